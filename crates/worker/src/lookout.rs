//! What the device thread, the heartbeat and the drain know of one attempt: how far it is, and whether it shall stop.

use domain::id::TaskId;
use domain::task::Progress;
use engine::{Observer, StepReport};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use store::contract::{EventBus, TaskEvent};

pub(crate) struct Lookout {
    task: TaskId,
    events: Arc<dyn EventBus>,
    progress: Mutex<Option<Progress>>,
    stop: OnceLock<Stop>,
}

/// Why an attempt shall stop. The first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The client asked.
    Cancel,
    /// Somebody else has the task, or it is over.
    Lost,
    /// The worker goes.
    Drain,
}

impl Lookout {
    pub(crate) fn new(task: TaskId, events: Arc<dyn EventBus>) -> Self {
        Self { task, events, progress: Mutex::new(None), stop: OnceLock::new() }
    }

    pub(crate) fn ask_to_stop(&self, why: Stop) {
        let _ = self.stop.set(why);
    }

    pub(crate) fn stop(&self) -> Option<Stop> {
        self.stop.get().copied()
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.events.publish(TaskEvent::Progress(self.task.clone(), progress));
    }
}

/// The engine's view of a lookout.
pub(crate) struct Steps(pub(crate) Arc<Lookout>);

impl Observer for Steps {
    fn step(&mut self, report: StepReport) -> ControlFlow<()> {
        self.0.report(Progress { step: report.step, n_steps: report.n_steps });
        self.go_on()
    }

    fn go_on(&mut self) -> ControlFlow<()> {
        match self.0.stop() {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::events::Bus;

    #[test]
    fn a_step_is_told_and_the_next_one_is_not_begun_once_stopped() {
        let bus = Arc::new(Bus::new());
        let mut news = bus.subscribe();
        let task = TaskId::from_random([1; 16]);
        let lookout = Arc::new(Lookout::new(task.clone(), bus));
        let mut steps = Steps(Arc::clone(&lookout));
        assert_eq!(steps.step(StepReport { step: 1, n_steps: 3 }), ControlFlow::Continue(()));
        let progress = Progress { step: 1, n_steps: 3 };
        assert_eq!(news.try_recv(), Ok(TaskEvent::Progress(task, progress)));
        assert_eq!(lookout.progress(), Some(progress));
        assert_eq!(steps.go_on(), ControlFlow::Continue(()));
        lookout.ask_to_stop(Stop::Drain);
        lookout.ask_to_stop(Stop::Cancel);
        assert_eq!(steps.go_on(), ControlFlow::Break(()));
        assert!(news.try_recv().is_err(), "asking is no step");
        assert_eq!(steps.step(StepReport { step: 2, n_steps: 3 }), ControlFlow::Break(()));
        assert_eq!(lookout.stop(), Some(Stop::Drain));
    }
}
