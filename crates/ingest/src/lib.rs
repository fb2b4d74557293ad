//! The guarded fetcher: a picture from a URL that a stranger chose, without lending the stranger our network.
//!
//! We resolve the name ourselves, check every address, connect to a checked address and to nothing else, and do so
//! anew for each redirect. Bytes, time and pixels are limited, the type is what the bytes say, and an error never tells
//! an address, nor whether anything listens where one may not look.

pub mod address;
pub mod error;
pub mod fetch;
pub mod policy;
pub mod resolve;

mod data_uri;
mod http1;
mod target;

pub use address::IpRange;
pub use error::FetchError;
pub use fetch::{Fetched, Fetcher};
pub use policy::FetchPolicy;
pub use resolve::{Resolver, SystemResolver};
