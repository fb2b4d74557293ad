//! The use cases: submit, wait, watch, cancel, list, fetch a result, manage keys.
//!
//! Every answer is a value of `domain` or a [`Fault`] that a client may read. Deliberately absent: HTTP, SQL, tensors.

use domain::catalogue::Catalogue;
use domain::fault::{ErrorCode, Fault};
use domain::gpu::GpuOffer;
use domain::id::TaskId;
use domain::memory::Budget;
use domain::task::{Task, TaskState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::contract::{Depth, StoreError, Stores};

use crate::availability::Availability;
use crate::keys::{Caller, Keys};
use crate::quota::Quota;
use crate::readiness::Readiness;
use crate::source::{DECODERS, Sources};
use crate::turns::Turns;

pub mod availability;
pub mod keys;
pub mod quota;
pub mod results;
pub mod source;
pub mod submit;
pub mod wait;
pub mod watch;

mod readiness;
mod turns;

/// When a caller that meets a failing store should come back, seconds: a full disk, or another program's lock.
const RETRY_STORE_S: u32 = 10;

/// The use cases, over everything that they need. A clone is a handle to the same thing.
#[derive(Clone)]
pub struct App {
    inner: Arc<Parts>,
    keys: Keys,
    quota: Arc<Quota>,
    turns: Arc<Turns>,
    readiness: Arc<Readiness>,
    results_memory: Budget,
}

/// What the composition root puts together.
pub struct Parts {
    pub catalogue: Catalogue,
    pub stores: Stores,
    pub sources: Arc<dyn Sources>,
    pub availability: Arc<dyn Availability>,
    pub config: Config,
}

#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Tasks that one key may submit per minute, on average and in one burst.
    pub submissions_per_minute: u32,
    /// How long a finished task and its pictures are kept.
    pub keep_results: Duration,
    /// All results together that are being sent.
    pub results_bytes: usize,
    /// The classes of GPU that the workers offer.
    pub gpus: GpuOffer,
}

/// A task, and how many go before it if it is queued.
#[derive(Clone, Debug)]
pub struct Standing {
    pub task: Task,
    pub position: Option<u64>,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        let keys = Keys::new(parts.stores.keys.clone());
        let quota = Arc::new(Quota::new(parts.config.submissions_per_minute));
        let results_memory = Budget::new(parts.config.results_bytes);
        let (turns, readiness) = (Arc::new(Turns::new(DECODERS)), Arc::default());
        Self { inner: Arc::new(parts), keys, quota, turns, readiness, results_memory }
    }

    pub fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    pub fn availability(&self) -> &dyn Availability {
        &*self.inner.availability
    }

    pub fn gpus(&self) -> GpuOffer {
        self.inner.config.gpus
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Where one of the caller's tasks stands. Another key's task is as unknown as one that never was.
    pub async fn status(&self, caller: &Caller, id: &str) -> Result<Standing, Fault> {
        let id = TaskId::parse(id).ok_or_else(no_such_task)?;
        let task = self.inner.stores.tasks.get(&id).await.map_err(store_failed)?;
        let task = task.filter(|task| task.owner == caller.key).ok_or_else(no_such_task)?;
        let position = match task.state {
            TaskState::Queued => self.inner.stores.tasks.position(&id).await.map_err(store_failed)?,
            _ => None,
        };
        Ok(Standing { task, position })
    }

    /// The caller's tasks, newest first; `before` is the last one of the page before.
    pub async fn list(&self, caller: &Caller, n_max: u32, before: Option<&TaskId>) -> Result<Vec<Task>, Fault> {
        if let Some(before) = before {
            // Another key's task must not be told from none by how the list begins.
            self.status(caller, before.as_str()).await?;
        }
        self.inner.stores.tasks.list(&caller.key, n_max, before).await.map_err(store_failed)
    }

    /// Ends a queued task at once and asks a running one to stop; one that is over stays as it is.
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<Task, Fault> {
        let standing = self.status(caller, id).await?;
        let cancelled = self.inner.stores.tasks.cancel(&standing.task.id).await.map_err(store_failed)?;
        cancelled.ok_or_else(no_such_task)
    }

    /// Fails if a task or a picture could not be stored now; as tried within the last second.
    pub async fn ready(&self) -> Result<(), Fault> {
        let failed = || Fault::new(ErrorCode::Unavailable, "the server cannot write its records or pictures");
        if self.readiness.check(&self.inner.stores).await { Ok(()) } else { Err(failed()) }
    }

    /// How much is queued and running; fails if the store does.
    pub async fn depth(&self) -> Result<Depth, Fault> {
        self.inner.stores.tasks.depth().await.map_err(store_failed)
    }
}

fn no_such_task() -> Fault {
    Fault::new(ErrorCode::NotFound, "no task of this key has this id")
}

/// The cause is for the log alone: it may name paths and rows.
fn store_failed(error: StoreError) -> Fault {
    tracing::error!(%error, "the store failed");
    match error {
        // Trying again would find the same.
        StoreError::Corrupt(_) => Fault::new(ErrorCode::Internal, "the stored task cannot be read"),
        _ => Fault::new(ErrorCode::Unavailable, "the server could not read or write its records; try again")
            .retry_after_s(RETRY_STORE_S),
    }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_millis() as i64
}

fn random_bytes<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            tracing::error!(%error, "the system's random source failed");
            Err(Fault::new(ErrorCode::Internal, "the server has no random numbers; try again"))
        }
    }
}
