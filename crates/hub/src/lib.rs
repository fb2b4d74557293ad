//! Which apps and which weights there are, as data; which weights lie on this machine, and how others get there.
//!
//! A new app or model is an entry in `data/*.toml`. Deliberately absent: tensors, the environment, the queue.

pub mod catalogue;
pub mod disk;
pub mod download;
mod entry;
pub mod error;
pub mod installed;
pub mod pattern;
pub mod record;
pub mod registry;
