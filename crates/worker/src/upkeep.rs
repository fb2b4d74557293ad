//! Chores beside the painting: take over what dead workers held, forget what is old.

use crate::config::Timing;
use crate::telemetry;
use domain::id::BlobKey;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::contract::{Reaped, StoreError, Stores};
use tokio::time::{MissedTickBehavior, interval};

/// Does the chores until it is dropped.
pub(crate) async fn keep_up(stores: Stores, timing: Timing) {
    let ticks = |every: Duration| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut reaping = ticks(timing.lease / 2);
    let mut purging = ticks(timing.purge_every);
    let mut sweeping = ticks(timing.sweep_every);
    loop {
        let (chore, done) = tokio::select! {
            _ = reaping.tick() => ("reap", reap(&stores).await),
            _ = purging.tick() => ("purge", purge(&stores, timing.keep_results).await),
            _ = sweeping.tick() => ("sweep", sweep(&stores, timing.left_over_after.max(timing.keep_results)).await),
        };
        if let Err(error) = done {
            tracing::error!(chore, %error, "a chore failed; it is tried again later");
        }
    }
}

pub(crate) fn tell_of(reaped: Reaped) {
    if reaped != Reaped::default() {
        tracing::warn!(requeued = reaped.requeued, failed = reaped.failed, "took over tasks of dead workers");
        telemetry::reaped(reaped);
    }
}

async fn reap(stores: &Stores) -> Result<(), StoreError> {
    tell_of(stores.queue.reap().await?);
    Ok(())
}

async fn purge(stores: &Stores, keep: Duration) -> Result<(), StoreError> {
    let orphans = stores.tasks.purge(ms_ago(keep)).await?;
    if !orphans.is_empty() {
        tracing::info!(files = orphans.len(), "forgot old tasks");
    }
    delete(stores, &orphans).await;
    Ok(())
}

/// What a process left behind that ended between storing a file and naming it, or between forgetting it and deleting it.
async fn sweep(stores: &Stores, left_over_after: Duration) -> Result<(), StoreError> {
    let old = stores.blobs.put_before(ms_ago(left_over_after)).await?;
    let orphans = stores.tasks.unnamed(old).await?;
    if !orphans.is_empty() {
        tracing::warn!(files = orphans.len(), "deleting files that belong to no task");
    }
    delete(stores, &orphans).await;
    Ok(())
}

async fn delete(stores: &Stores, files: &[BlobKey]) {
    for key in files {
        // One file that cannot be deleted keeps no other; the next sweep finds it again.
        if let Err(error) = stores.blobs.delete(key).await {
            tracing::warn!(%error, "a file that belongs to no task could not be deleted");
        }
    }
}

/// Milliseconds since the Unix epoch.
fn ms_ago(duration: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(duration).as_millis()).unwrap_or(i64::MAX)
}
