//! Ending without dropping anybody: what is in flight may finish, nothing new begins, and there is a last moment.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Begins the drain. Dropped without doing so, the server goes on.
pub struct DrainHandle(watch::Sender<Option<Instant>>);

/// Tells of the drain.
#[derive(Clone)]
pub struct DrainSignal(watch::Receiver<Option<Instant>>);

pub fn channel() -> (DrainHandle, DrainSignal) {
    let (sender, receiver) = watch::channel(None);
    (DrainHandle(sender), DrainSignal(receiver))
}

impl DrainHandle {
    /// Callers that still wait when the time is over get their task's id instead of its result.
    pub fn begin(&self, patience: Duration) {
        self.0.send_replace(Some(Instant::now() + patience));
    }
}

impl DrainSignal {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Ends when the drain begins, with its last moment.
    pub(crate) async fn begun(&mut self) -> Instant {
        loop {
            if let Some(until) = *self.0.borrow_and_update() {
                return until;
            }
            if self.0.changed().await.is_err() {
                // Nobody is left who could begin it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends at the drain's last moment.
    pub(crate) async fn over(&mut self) {
        let until = self.begun().await;
        tokio::time::sleep_until(until).await;
    }
}
