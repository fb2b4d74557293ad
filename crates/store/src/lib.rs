//! Durable state: tasks, the work queue, keys and files.
//!
//! Only this crate knows SQL and object stores. A task's state is durable before any call returns; an `attempt` number
//! in every lease is the fencing token that turns a late completion away.

pub mod blobs;
pub mod contract;
pub mod events;
mod record;
pub mod sqlite;
