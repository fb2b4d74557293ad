//! What the tests of several crates share: an HTTP client that can be as rude as a test wants, and a server of pictures.
//!
//! A test that cannot go on panics here, at the caller's line where that is possible.

pub mod client;
pub mod pictures;
pub mod reply;
