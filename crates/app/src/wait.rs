//! Waiting for a task's end. The news are lossy, so they only hasten the next look at the store.

use crate::{App, no_such_task, store_failed};
use domain::fault::Fault;
use domain::id::TaskId;
use domain::task::Task;
use std::time::Duration;
use store::contract::TaskEvent;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// How long lost news can go unnoticed.
pub(crate) const POLL: Duration = Duration::from_secs(1);

impl App {
    /// The task once it is over; or as it stands when `give_up` ends.
    pub async fn wait(&self, id: &TaskId, give_up: impl Future<Output = ()>) -> Result<Task, Fault> {
        let mut events = self.inner.stores.events.subscribe();
        tokio::pin!(give_up);
        loop {
            let task = self.inner.stores.tasks.get(id).await.map_err(store_failed)?.ok_or_else(no_such_task)?;
            if task.state.is_final() {
                return Ok(task);
            }
            tokio::select! {
                () = &mut give_up => return Ok(task),
                () = changed(&mut events, id) => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Until something happens to this task that is not mere progress, or news were lost.
async fn changed(events: &mut Receiver<TaskEvent>, id: &TaskId) {
    loop {
        match events.recv().await {
            Ok(TaskEvent::Changed(changed)) if changed == *id => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
