//! The worker as a whole: takes over from a predecessor, does the chores, and runs its lanes until it shall stop.

use crate::attempt::DECODINGS_MAX;
use crate::config::{Ownership, WorkerConfig, WorkerError};
use crate::lane::{Beside, LaneOfWork};
use crate::upkeep;
use domain::id::WorkerId;
use engine::Lane;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// One device with one task at a time, and beside it several tasks that are painted elsewhere.
pub struct Worker {
    id: WorkerId,
    config: Arc<WorkerConfig>,
    device: LaneOfWork,
    remote: LaneOfWork,
}

impl Worker {
    /// Starts the threads that will own engines; takes no task before [`Worker::run`].
    pub fn new(config: WorkerConfig) -> Result<Self, WorkerError> {
        let mut bytes = [0; WorkerId::N_BYTES];
        getrandom::fill(&mut bytes).map_err(WorkerError::Random)?;
        let (id, config) = (WorkerId::from_random(bytes), Arc::new(config));
        let decodings = Arc::new(Semaphore::new(DECODINGS_MAX));
        let lane =
            |kind, n_tasks| LaneOfWork::start(kind, n_tasks, id.clone(), Arc::clone(&config), Arc::clone(&decodings));
        let device = lane(Lane::Device, 1)?;
        let remote = lane(Lane::Remote, config.remote_tasks_max)?;
        Ok(Self { id, config, device, remote })
    }

    /// Paints until `shutdown` turns true (or its sender is gone), then finishes or gives back the tasks at hand.
    ///
    /// # Errors
    /// Only at the start. Later failures of the store are logged and waited out.
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> Result<(), WorkerError> {
        let Self { id, config, device, remote } = self;
        if config.ownership == Ownership::Sole {
            upkeep::tell_of(config.stores.queue.reap_all().await.map_err(WorkerError::TakeOver)?);
        }
        let chores = upkeep::keep_up(config.stores.clone(), config.timing.clone());
        let _chores = Beside::spawn(chores);
        tracing::info!(worker.id = %id, "the worker is ready");
        tokio::join!(device.run(shutdown.clone()), remote.run(shutdown));
        tracing::info!(worker.id = %id, "the worker has stopped");
        Ok(())
    }
}
