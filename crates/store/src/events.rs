//! News inside one process. Lossy: who falls behind reads the store, where the truth is.

use crate::contract::{EventBus, TaskEvent};
use tokio::sync::broadcast;

/// Events that a slow subscriber may lag behind before it loses the oldest.
pub const EVENTS_MAX: usize = 1024;

/// Passes events from the store and the workers to whoever waits for them.
pub struct Bus {
    sender: broadcast::Sender<TaskEvent>,
}

impl Bus {
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_MAX) }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl EventBus for Bus {
    fn publish(&self, event: TaskEvent) {
        // An error only says that nobody listens.
        let _ = self.sender.send(event);
    }

    fn subscribe(&self) -> broadcast::Receiver<TaskEvent> {
        self.sender.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::TaskId;
    use tokio::sync::broadcast::error::TryRecvError;

    #[test]
    fn news_reaches_every_subscriber_and_needs_none() {
        let bus = Bus::new();
        let event = TaskEvent::Queued(TaskId::from_random([7; 16]));
        bus.publish(event.clone());
        let (mut first, mut second) = (bus.subscribe(), bus.subscribe());
        assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
        bus.publish(event.clone());
        assert_eq!(first.try_recv(), Ok(event.clone()));
        assert_eq!(second.try_recv(), Ok(event));
    }

    #[test]
    fn who_falls_behind_is_told_so() {
        let bus = Bus::new();
        let mut slow = bus.subscribe();
        for _ in 0..=EVENTS_MAX {
            bus.publish(TaskEvent::Changed(TaskId::from_random([1; 16])));
        }
        assert_eq!(slow.try_recv(), Err(TryRecvError::Lagged(1)));
    }
}
