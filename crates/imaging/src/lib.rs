//! Bytes to pixels and back: sniff, limit, decode, orient, resize, fit, pad, encode, thumbnail; and edges.
//!
//! Deliberately absent: files, the network, async. Everything here is a function of its arguments, and whatever the
//! bytes are, the answer is a picture or an [`ImageError`]: never a panic, never an allocation beyond the limits.

pub mod canny;
pub mod decode;
pub mod encode;
pub mod error;
pub mod fit;
pub mod format;
pub mod picture;
pub mod resize;

mod color;
mod jpeg;
mod raster;
mod tiff;
mod webp;

pub use canny::{Canny, canny};
pub use decode::{Header, decode, probe};
pub use encode::{Metadata, SOFTWARE, encode};
pub use error::ImageError;
pub use fit::{crop, fit_cover, fit_within, pad_to_multiple, thumbnail};
pub use format::{Format, sniff};
pub use picture::Picture;
pub use resize::{Filter, resize, resize_with};
