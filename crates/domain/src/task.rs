//! A task and its state machine: what has been accepted, and what became of it.

use crate::fault::Fault;
use crate::id::{BlobKey, KeyId, ModelId, TaskId};
use crate::request::GenerationRequest;

/// An accepted request and what became of it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: TaskId,
    /// The key that may see it.
    pub owner: KeyId,
    pub request: GenerationRequest,
    /// The reference picture, as fetched.
    pub source: BlobKey,
    /// The ready-made control picture, as fetched, if the request has one.
    pub control: Option<BlobKey>,
    pub state: TaskState,
    /// How often a worker has begun it.
    pub attempt: u32,
    pub progress: Option<Progress>,
    pub cancel_requested: bool,
    pub created_ms: i64,
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
}

/// Where a task stands. `Queued` and `Running` may follow each other; the other three are final.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskState {
    Queued,
    Running,
    Succeeded(Painting),
    Failed(Fault),
    Cancelled,
}

/// Denoising steps done, of those that will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub step: u32,
    pub n_steps: u32,
}

/// What a successful task made.
#[derive(Clone, Debug, PartialEq)]
pub struct Painting {
    /// One for each picture of the batch, in order.
    pub images: Vec<PaintedImage>,
    /// The weights that painted it.
    pub model: ModelId,
    /// From acceptance to the start of the work, seconds.
    pub startup_s: f64,
    /// The work itself, seconds.
    pub runtime_s: f64,
    /// Parameters that had no effect with this model.
    pub ignored: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaintedImage {
    pub image: BlobKey,
    pub thumbnail: BlobKey,
    /// Who painted it withheld it as unsafe; what is stored is black.
    pub withheld: bool,
}

impl TaskState {
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Failed(_) | Self::Cancelled)
    }

    /// A stable spelling for rows, metrics and events.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
