//! One lane of work: claim a task when a thread is free, attend to it, settle it; drain when asked to.
//!
//! Lanes do not wait for each other: a picture that is painted elsewhere takes no turn of the device, and a long
//! painting on the device delays no call.

use crate::attempt::{Attempt, Setback};
use crate::config::{WorkerConfig, WorkerError};
use crate::device::Device;
use crate::heartbeat::Pulse;
use crate::lookout::{Lookout, Stop};
use crate::telemetry;
use domain::id::WorkerId;
use domain::task::{Painting, TaskState};
use engine::Lane;
use std::sync::Arc;
use std::time::Duration;
use store::contract::{Lease, Settled, StoreError, TaskEvent, Wanted};
use tokio::sync::broadcast::Receiver;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

pub(crate) struct LaneOfWork {
    desk: Arc<Desk>,
    /// Threads without a task.
    idle: Vec<Device>,
    /// Tasks under way; each gives its thread back.
    attempts: JoinSet<Device>,
}

/// What all attempts of a lane share.
struct Desk {
    kind: Lane,
    worker: WorkerId,
    config: Arc<WorkerConfig>,
    /// Of the worker's lanes together.
    decodings: Arc<Semaphore>,
}

impl LaneOfWork {
    /// Starts one thread for each task that may be under way at a time.
    pub(crate) fn start(
        kind: Lane,
        n_tasks: usize,
        worker: WorkerId,
        config: Arc<WorkerConfig>,
        decodings: Arc<Semaphore>,
    ) -> Result<Self, WorkerError> {
        let idle = (0..n_tasks).map(|_| Device::start(kind, Arc::clone(&config.engines))).collect::<Result<_, _>>()?;
        Ok(Self { desk: Arc::new(Desk { kind, worker, config, decodings }), idle, attempts: JoinSet::new() })
    }

    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        while !is_asked(&shutdown) && (!self.idle.is_empty() || !self.attempts.is_empty()) {
            while let Some(ended) = self.attempts.try_join_next() {
                self.idle.push(given_back(ended));
            }
            let Some(device) = self.idle.pop() else {
                tokio::select! {
                    Some(ended) = self.attempts.join_next() => self.idle.push(given_back(ended)),
                    () = asked(&mut shutdown) => {}
                }
                continue;
            };
            // Subscribed before looking, so that nothing falls between the look and the wait.
            let news = self.desk.config.stores.events.subscribe();
            match self.desk.claim().await {
                Ok(Some(lease)) => self.begin(device, lease, shutdown.clone()),
                Ok(None) => {
                    self.idle.push(device);
                    self.desk.wait_for_work(news, &mut shutdown).await;
                }
                Err(error) => {
                    tracing::error!(%error, "no task could be claimed");
                    self.idle.push(device);
                    self.desk.pause(&mut shutdown).await;
                }
            }
        }
        while self.attempts.join_next().await.is_some() {}
    }

    fn begin(&mut self, device: Device, lease: Lease, mut shutdown: watch::Receiver<bool>) {
        let span = tracing::info_span!(
            "attempt",
            task.id = %lease.id.task,
            app.id = %lease.task.request.app,
            attempt = lease.id.attempt,
        );
        let desk = Arc::clone(&self.desk);
        let attending = async move {
            desk.attend(&device, lease, &mut shutdown).await;
            device
        };
        self.attempts.spawn(attending.instrument(span));
    }
}

impl Desk {
    /// Takes the oldest task of the apps that are painted in this lane.
    async fn claim(&self) -> Result<Option<Lease>, StoreError> {
        let engines = &self.config.engines;
        let lane_of = |models| engines.model_for(models).map(|model| engines.lane_of(&model));
        let served = self.config.catalogue.apps().iter().filter(|app| lane_of(&app.models) == Some(self.kind));
        let apps = served.map(|app| app.id.clone()).collect();
        let wanted = Wanted { apps, classes: self.config.gpu_classes.clone() };
        self.config.stores.queue.claim(&self.worker, &wanted).await
    }

    async fn wait_for_work(&self, mut news: Receiver<TaskEvent>, shutdown: &mut watch::Receiver<bool>) {
        let news_of_work = async {
            // Missed news may have been of work. The bus is never closed while the store lives.
            while !matches!(news.recv().await, Ok(TaskEvent::Queued(_)) | Err(_)) {}
        };
        tokio::select! {
            () = news_of_work => {}
            () = self.pause(shutdown) => {}
        }
    }

    async fn pause(&self, shutdown: &mut watch::Receiver<bool>) {
        tokio::select! {
            () = sleep(self.config.timing.poll) => {}
            () = asked(shutdown) => {}
        }
    }

    /// Sees one attempt through: paints with a heartbeat beside it, and tells the store how it ended.
    async fn attend(&self, device: &Device, lease: Lease, shutdown: &mut watch::Receiver<bool>) {
        let stores = &self.config.stores;
        let lookout = Arc::new(Lookout::new(lease.id.task.clone(), Arc::clone(&stores.events)));
        let pulse = Pulse {
            queue: Arc::clone(&stores.queue),
            events: Arc::clone(&stores.events),
            lease: lease.id.clone(),
            lookout: Arc::clone(&lookout),
            every: self.config.timing.heartbeat(),
        };
        let _pulse = Beside::spawn(pulse.keep().in_current_span());
        let attempt = Attempt::new(&self.config, device, &lease, Arc::clone(&lookout), Arc::clone(&self.decodings));
        let outcome = self.see_through(&attempt, shutdown).await;
        let is_painted = outcome.is_ok();
        let settled = self.settle(&lease, &lookout, outcome).await;
        // If storing a painting failed, the store may have taken it all the same.
        if !is_painted || matches!(settled, Ok(Settled::Lost)) {
            attempt.delete_uploads().await;
        }
        match settled {
            Ok(_) => self.tell_end(&lease).await,
            Err(error) => tracing::error!(%error, "the end of an attempt could not be stored; its lease will run out"),
        }
    }

    /// Waits for the attempt; once shutdown is asked for, only for so long.
    async fn see_through(
        &self,
        attempt: &Attempt<'_>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Painting, Setback> {
        let timing = &self.config.timing;
        let mut painting = Box::pin(attempt.run());
        tokio::select! {
            outcome = &mut painting => return outcome,
            () = drained(shutdown, timing.drain_grace) => {}
        }
        attempt.lookout().ask_to_stop(Stop::Drain);
        // A step may last longer than anybody waits; the lease's attempt number keeps its result out.
        timeout(timing.stop_grace, painting).await.unwrap_or(Err(Setback::Stopped))
    }

    async fn settle(
        &self,
        lease: &Lease,
        lookout: &Lookout,
        outcome: Result<Painting, Setback>,
    ) -> Result<Settled, StoreError> {
        let queue = &self.config.stores.queue;
        match outcome {
            Ok(painting) => {
                telemetry::painted(&lease.task, &painting.model, painting.runtime_s);
                queue.complete(&lease.id, painting).await
            }
            Err(Setback::Failed { fault, retry }) => queue.fail(&lease.id, fault, retry).await,
            Err(Setback::Stopped) => match lookout.stop() {
                Some(Stop::Cancel) => queue.cancelled(&lease.id).await,
                Some(Stop::Drain) | None => queue.release(&lease.id).await,
                Some(Stop::Lost) => Ok(Settled::Lost),
            },
        }
    }

    /// Logs and counts what the store made of the attempt.
    async fn tell_end(&self, lease: &Lease) {
        let task = match self.config.stores.tasks.get(&lease.id.task).await {
            Ok(Some(task)) => task,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "the end of an attempt could not be read"),
        };
        if task.attempt != lease.id.attempt {
            return tracing::warn!("another worker took the task over");
        }
        match &task.state {
            TaskState::Failed(fault) => tracing::warn!(error.code = fault.code.as_str(), "a task failed"),
            state => tracing::info!(state = state.as_str(), "an attempt ended"),
        }
        if task.state.is_final() {
            telemetry::finished(&task);
        } else {
            telemetry::retried(&task);
        }
    }
}

/// A task of the runtime that ends with its owner.
pub(crate) struct Beside(JoinHandle<()>);

impl Beside {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The thread of an attempt that has ended. Engines' panics are caught long before; one of our own ends the worker.
fn given_back(ended: Result<Device, JoinError>) -> Device {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn is_asked(shutdown: &watch::Receiver<bool>) -> bool {
    *shutdown.borrow() || shutdown.has_changed().is_err()
}

async fn asked(shutdown: &mut watch::Receiver<bool>) {
    // Without a sender nobody could ever ask again.
    let _ = shutdown.wait_for(|asked| *asked).await;
}

async fn drained(shutdown: &mut watch::Receiver<bool>, grace: Duration) {
    asked(shutdown).await;
    tracing::info!(grace_s = grace.as_secs_f64(), "the worker drains");
    sleep(grace).await;
}
