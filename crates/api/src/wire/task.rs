//! A task as the native routes show it: the contract's shape, and its exact state beside it.

use crate::links::Links;
use crate::wire::Envelope;
use domain::task::Task;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskView {
    #[serde(flatten)]
    envelope: Envelope,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    /// How many tasks go before it; null unless it is queued.
    position: Option<u64>,
    progress: Option<ProgressView>,
    /// How often a worker has begun it.
    attempt: u32,
    cancel_requested: bool,
    /// Milliseconds since the Unix epoch, like the two below.
    created_ms: i64,
    started_ms: Option<i64>,
    finished_ms: Option<i64>,
}

/// Steps done, of those that will run.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ProgressView {
    pub(crate) step: u32,
    pub(crate) n_steps: u32,
}

/// One page, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskList {
    pub(crate) tasks: Vec<TaskView>,
    /// Send it as `before` for the next page; null after the last one.
    pub(crate) next_before: Option<String>,
}

impl TaskView {
    pub(crate) fn of(task: &Task, links: &Links) -> Self {
        Self {
            envelope: Envelope::of_task(task, links),
            state: task.state.as_str(),
            position: None,
            progress: task.progress.map(|progress| ProgressView { step: progress.step, n_steps: progress.n_steps }),
            attempt: task.attempt,
            cancel_requested: task.cancel_requested,
            created_ms: task.created_ms,
            started_ms: task.started_ms,
            finished_ms: task.finished_ms,
        }
    }

    #[must_use]
    pub(crate) fn at(self, position: Option<u64>) -> Self {
        Self { position, ..self }
    }
}
