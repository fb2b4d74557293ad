//! Chores beside the painting: take over what dead workers held, forget what is old, count what waits.

use crate::config::Timing;
use crate::telemetry;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::contract::{Reaped, StoreError, Stores};
use tokio::time::{MissedTickBehavior, interval};

const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Does the chores until it is dropped.
pub(crate) async fn keep_up(stores: Stores, timing: Timing) {
    let ticks = |every: Duration| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut reaping = ticks(timing.lease / 2);
    let mut purging = ticks(timing.purge_every);
    let mut counting = ticks(COUNT_EVERY);
    loop {
        let (chore, done) = tokio::select! {
            _ = reaping.tick() => ("reap", reap(&stores).await),
            _ = purging.tick() => ("purge", purge(&stores, timing.keep_results).await),
            _ = counting.tick() => ("count", count(&stores).await),
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let before_ms = i64::try_from(now.saturating_sub(keep).as_millis()).unwrap_or(i64::MAX);
    let orphans = stores.tasks.purge(before_ms).await?;
    if !orphans.is_empty() {
        tracing::info!(files = orphans.len(), "forgot old tasks");
    }
    for key in &orphans {
        // One file that cannot be deleted keeps no other.
        if let Err(error) = stores.blobs.delete(key).await {
            tracing::warn!(%error, "a file of a forgotten task could not be deleted");
        }
    }
    Ok(())
}

async fn count(stores: &Stores) -> Result<(), StoreError> {
    telemetry::depth(stores.tasks.depth().await?);
    Ok(())
}
