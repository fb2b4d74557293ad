//! The vocabulary of Pentimento: typed ids, the app catalogue, a valid request, a task and its state machine,
//! limits and error codes.
//!
//! Deliberately absent: serde, async, IO, tensors. Wire forms and database rows are other crates' business.

pub mod catalogue;
pub mod fault;
pub mod gpu;
pub mod id;
pub mod limits;
pub mod memory;
pub mod quantity;
pub mod request;
pub mod task;
