//! What a worker needs to be told.

use domain::catalogue::Catalogue;
use domain::request::InferenceType;
use engine::EngineSource;
use std::sync::Arc;
use std::time::Duration;
use store::contract::{StoreError, Stores};

pub struct WorkerConfig {
    pub catalogue: Arc<Catalogue>,
    pub engines: Arc<dyn EngineSource>,
    pub stores: Stores,
    /// Of tasks that name a class of GPU, only these are taken.
    pub gpu_classes: Vec<InferenceType>,
    /// Tasks that may be painted elsewhere at a time; none of them takes a turn of the device.
    pub remote_tasks_max: usize,
    pub ownership: Ownership,
    pub timing: Timing,
}

/// Whether other workers take leases from the same store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// None does: whatever is leased at the start was held by a predecessor that is dead.
    Sole,
    /// Others may: their leases must run out before anybody takes them over.
    Shared,
}

#[derive(Clone, Debug)]
pub struct Timing {
    /// How long an idle worker waits before it looks again, if no event wakes it.
    pub poll: Duration,
    /// How long the store's leases last; heartbeats and reaping go by it.
    pub lease: Duration,
    /// How long a running task may go on once shutdown is asked for.
    pub drain_grace: Duration,
    /// How long the engine may take to notice, after that, that it shall stop.
    pub stop_grace: Duration,
    /// The pause after the first failed attempt; doubled for each further one.
    pub retry_first: Duration,
    pub retry_max: Duration,
    /// How long a finished task and its pictures are kept.
    pub keep_results: Duration,
    pub purge_every: Duration,
    /// How often files are looked for that belong to no task, the first time at start.
    pub sweep_every: Duration,
    /// How old such a file must be, at least as old as results that are kept no longer: one that was just stored is about
    /// to be named, and a database that is put back may name others.
    pub left_over_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            lease: Duration::from_millis(store::sqlite::LEASE_MS_DEFAULT.unsigned_abs()),
            drain_grace: Duration::from_secs(60),
            stop_grace: Duration::from_secs(10),
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_secs(60),
            keep_results: Duration::from_secs(24 * 60 * 60),
            purge_every: Duration::from_secs(5 * 60),
            sweep_every: Duration::from_secs(3600),
            left_over_after: Duration::from_secs(3600),
        }
    }
}

impl Timing {
    /// Often enough that a lost event delays a cancellation by a second only.
    pub(crate) fn heartbeat(&self) -> Duration {
        (self.lease / 3).min(Duration::from_secs(1))
    }

    /// How long to wait after this attempt, the first being 1.
    pub(crate) fn retry_after(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        self.retry_first.saturating_mul(1 << doublings).min(self.retry_max)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("a thread for an engine could not be started")]
    Thread(#[source] std::io::Error),
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("the tasks of a dead predecessor could not be taken over")]
    TakeOver(#[source] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let timing = Timing::default();
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, u32::MAX].map(|attempt| timing.retry_after(attempt).as_secs()).to_vec();
        assert_eq!(pauses, [2, 4, 8, 60, 60, 60]);
    }

    #[test]
    fn heartbeats_come_thrice_a_lease_and_once_a_second() {
        let lease = |millis| Timing { lease: Duration::from_millis(millis), ..Timing::default() };
        assert_eq!(lease(30_000).heartbeat(), Duration::from_secs(1));
        assert_eq!(lease(600).heartbeat(), Duration::from_millis(200));
    }
}
