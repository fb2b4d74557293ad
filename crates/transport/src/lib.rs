//! One HTTP/1.1 exchange over one connection: reach an address, encrypt, send a request, read the answer bit by bit.
//!
//! Who may be reached, how often, and what an answer means is the caller's business. Deliberately absent: name lookup,
//! redirects, retries, pools of connections.

pub mod connect;
pub mod error;
pub mod exchange;
pub mod pause;
pub mod upload;

pub use connect::{Destination, Stream, Tls};
pub use error::TransportError;
pub use exchange::{Answer, Body, exchange};
pub use pause::retry_after;
pub use upload::{HasLeft, Upload};
