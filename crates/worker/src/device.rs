//! A thread that owns engines; a device has one, and no two at a time. It keeps the engines that it was asked for: what of
//! their weights stays in memory is for whoever made them to decide.

use crate::config::WorkerError;
use crate::lookout::{Lookout, Steps};
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource, Lane, Output, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

/// Engines that a thread keeps; the one that was used longest ago goes.
const ENGINES_MAX: usize = 16;

/// Hands jobs to the thread, which ends with the job at hand once this is dropped.
pub(crate) struct Device {
    jobs: mpsc::Sender<Job>,
}

/// What to paint, and with which weights.
pub(crate) struct Order {
    pub(crate) model: ModelId,
    pub(crate) plan: Plan,
    pub(crate) lookout: Arc<Lookout>,
}

pub(crate) struct Painted {
    pub(crate) output: Output,
    /// How long loading the weights took; zero if they were loaded.
    pub(crate) loading: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Mishap {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the engine panicked")]
    Panicked,
    #[error("the device thread is gone")]
    Gone,
}

struct Job {
    order: Order,
    reply: oneshot::Sender<Result<Painted, Mishap>>,
    span: Span,
}

impl Device {
    pub(crate) fn start(lane: Lane, engines: Arc<dyn EngineSource>) -> Result<Self, WorkerError> {
        // One job may wait while another is done.
        let (sender, jobs) = mpsc::channel(1);
        let thread = DeviceThread { engines, loaded: Vec::new() };
        let name = match lane {
            Lane::Device => "device",
            Lane::Remote => "remote",
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || thread.serve(jobs))
            .map_err(WorkerError::Thread)?;
        Ok(Self { jobs: sender })
    }

    pub(crate) async fn paint(&self, order: Order) -> Result<Painted, Mishap> {
        let (reply, answer) = oneshot::channel();
        let job = Job { order, reply, span: Span::current() };
        self.jobs.send(job).await.map_err(|_| Mishap::Gone)?;
        answer.await.map_err(|_| Mishap::Gone)?
    }
}

struct DeviceThread {
    engines: Arc<dyn EngineSource>,
    /// The one that was used last comes last.
    loaded: Vec<Loaded>,
}

struct Loaded {
    model: ModelId,
    engine: Box<dyn Engine>,
}

impl DeviceThread {
    fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let Job { order, reply, span } = job;
            if reply.is_closed() {
                continue;
            }
            let _ = reply.send(span.in_scope(|| self.paint(&order)));
        }
    }

    fn paint(&mut self, order: &Order) -> Result<Painted, Mishap> {
        let Ok(painted) = catch_unwind(AssertUnwindSafe(|| self.load_and_run(order))) else {
            tracing::error!(model.id = %order.model, "the engine panicked; it is loaded anew for the next task");
            let broken = self.take(&order.model);
            // What is half broken may panic again while it is torn down.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            return Err(Mishap::Panicked);
        };
        Ok(painted?)
    }

    fn load_and_run(&mut self, order: &Order) -> Result<Painted, EngineError> {
        let begun = Instant::now();
        let engine = self.engine(&order.model)?;
        let loading = begun.elapsed();
        if order.lookout.stop().is_some() {
            return Err(EngineError::Cancelled);
        }
        let output = engine.run(&order.plan, &mut Steps(Arc::clone(&order.lookout)))?;
        Ok(Painted { output, loading })
    }

    fn engine(&mut self, model: &ModelId) -> Result<&mut dyn Engine, EngineError> {
        let loaded = if let Some(loaded) = self.take(model) {
            loaded
        } else {
            let begun = Instant::now();
            let engine = self.engines.load(model)?;
            tracing::info!(model.id = %model, seconds = begun.elapsed().as_secs_f64(), "loaded a model");
            Loaded { model: model.clone(), engine }
        };
        if self.loaded.len() == ENGINES_MAX {
            self.loaded.remove(0);
        }
        self.loaded.push(loaded);
        Ok(self.loaded.last_mut().expect("it was just put there, this is a bug").engine.as_mut())
    }

    fn take(&mut self, model: &ModelId) -> Option<Loaded> {
        let idx = self.loaded.iter().position(|loaded| loaded.model == *model)?;
        Some(self.loaded.remove(idx))
    }
}
