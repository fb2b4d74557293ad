//! What a pull tells whoever watches it.

use std::time::Duration;

/// Told of everything as it happens, from several files at once. `file` counts in the plan's order.
pub trait Progress: Send + Sync {
    fn tell(&self, file: usize, event: Event<'_>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The network is asked; so many bytes are here from before.
    Begin { have: u64 },
    /// So many more have been written.
    Bytes(u64),
    /// What was here is of no use: it begins anew.
    StartOver(&'a str),
    /// This went wrong, and will be tried again.
    Retry { problem: &'a str, wait: Duration },
    /// It lies whole and verified on the disk.
    Done(Origin),
}

/// Where a file came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the model's folder, or had arrived before.
    Kept,
    Cache,
    Network,
}

/// Watches nothing.
pub struct Silent;

impl Progress for Silent {
    fn tell(&self, _file: usize, _event: Event<'_>) {}
}
