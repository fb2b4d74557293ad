//! Takes leases and paints: claim, heartbeat, device thread, upload, settle, retry, drain.
//!
//! One worker runs one task at a time on one device, and beside it several that providers paint. Deliberately absent: tensors, SQL, HTTP; what is painted with and
//! where it is kept are behind the traits of `engine` and `store`.

mod attempt;
mod config;
mod device;
mod heartbeat;
mod lane;
mod lookout;
mod telemetry;
mod upkeep;
mod worker;

pub use config::{Ownership, Timing, WorkerConfig, WorkerError};
pub use worker::Worker;
