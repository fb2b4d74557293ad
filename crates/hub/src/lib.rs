//! Which apps and which weights there are, as data; which weights lie on this machine.
//!
//! A new app or model is an entry in `data/*.toml`. Deliberately absent: tensors, the network, the queue.

pub mod catalogue;
mod entry;
pub mod error;
pub mod installed;
pub mod pattern;
pub mod registry;
