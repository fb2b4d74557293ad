//! Engines that are somebody else's API.
//!
//! A provider is asked once for each plan, and asked again only when the first question cannot have been paid for.
//! What it paints is fetched at once, since its links expire, and checked like any stranger's picture. Deliberately
//! absent: tensors, the queue, the environment.

pub mod ideogram;

mod backoff;
mod patience;
