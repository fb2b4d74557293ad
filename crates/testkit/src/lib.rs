//! What the tests of several crates share: an HTTP client that can be as rude as a test wants, a server of pictures,
//! one that speaks a provider's API, and a hub of models.
//!
//! A test that cannot go on panics here, at the caller's line where that is possible.

pub mod client;
pub mod form;
pub mod ideogram;
pub mod model_hub;
pub mod pictures;
pub mod reply;
