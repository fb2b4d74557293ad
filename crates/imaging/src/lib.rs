//! Bytes to pixels and back: sniff, limit, decode, orient, fit, pad, encode, thumbnail.

pub mod picture;

pub use picture::Picture;
