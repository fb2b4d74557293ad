//! Keeps a lease alive beside the painting, and hears from the store whether to go on.

use crate::lookout::{Lookout, Stop};
use domain::id::TaskId;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use store::contract::{EventBus, Heartbeat, LeaseId, TaskEvent, WorkQueue};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) struct Pulse {
    pub(crate) queue: Arc<dyn WorkQueue>,
    pub(crate) events: Arc<dyn EventBus>,
    pub(crate) lease: LeaseId,
    pub(crate) lookout: Arc<Lookout>,
    pub(crate) every: Duration,
}

impl Pulse {
    /// Beats until the lease is lost. A cancellation need not wait for the next beat: its event brings one at once.
    pub(crate) async fn keep(self) {
        let mut news = self.events.subscribe();
        let mut beats = interval(self.every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = change_of(&self.lease.task, &mut news) => {}
            }
            match self.queue.heartbeat(&self.lease, self.lookout.progress()).await {
                Ok(Heartbeat::Continue) => {}
                // The lease is kept until the engine has stopped.
                Ok(Heartbeat::Cancel) => self.lookout.ask_to_stop(Stop::Cancel),
                Ok(Heartbeat::Lost) => return self.lookout.ask_to_stop(Stop::Lost),
                Err(error) => tracing::warn!(task.id = %self.lease.task, %error, "a heartbeat failed"),
            }
        }
    }
}

async fn change_of(task: &TaskId, news: &mut Receiver<TaskEvent>) {
    loop {
        match news.recv().await {
            Ok(TaskEvent::Changed(changed)) if changed == *task => return,
            Ok(_) => {}
            // The change may be among what was missed.
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => pending().await,
        }
    }
}
