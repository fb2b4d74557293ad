//! What the crates above may ask of a store, whatever database is behind it.

use async_trait::async_trait;
use bytes::Bytes;
use domain::fault::Fault;
use domain::id::{AppId, BlobKey, KeyId, TaskId, WorkerId};
use domain::request::{GenerationRequest, InferenceType};
use domain::task::{Painting, Progress, Task};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The client's side of the queue.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Queues a task; durable when it returns. The capacity is checked in the same transaction.
    async fn submit(&self, task: NewTask) -> Result<Submission, StoreError>;
    /// What `submit` would answer because of an earlier call with this idempotency key: `Existing` or `Conflict`.
    /// `None`: the key is new. Asked before the reference picture is fetched, so that a repeated call is not.
    async fn remembered(&self, owner: &KeyId, idempotency: &Idempotency) -> Result<Option<Submission>, StoreError>;
    /// What `submit` would answer now because of a full queue: `QueueFull` or `OwnerFull`. `None`: there is room.
    async fn refusal(&self, owner: &KeyId) -> Result<Option<Submission>, StoreError>;
    async fn get(&self, id: &TaskId) -> Result<Option<Task>, StoreError>;
    /// Newest first; `before` is the last task of the page before.
    async fn list(&self, owner: &KeyId, n_max: u32, before: Option<&TaskId>) -> Result<Vec<Task>, StoreError>;
    /// A queued task ends at once; a running one is asked to, and its next heartbeat says so.
    async fn cancel(&self, id: &TaskId) -> Result<Option<Task>, StoreError>;
    async fn depth(&self) -> Result<Depth, StoreError>;
    /// Changes nothing, but by a write that must reach the disk: fails where any other would.
    async fn try_to_write(&self) -> Result<(), StoreError>;
    /// How many tasks will be claimed before this one; `None` unless it is queued.
    async fn position(&self, id: &TaskId) -> Result<Option<u64>, StoreError>;
    /// Forgets tasks that ended before this time and returns the files that nobody names any more.
    async fn purge(&self, finished_before_ms: i64) -> Result<Vec<BlobKey>, StoreError>;
    /// Of these files those that no task names.
    async fn unnamed(&self, files: Vec<BlobKey>) -> Result<Vec<BlobKey>, StoreError>;
}

/// The worker's side of the queue. Every call with a lease is refused as lost once a newer attempt exists.
#[async_trait]
pub trait WorkQueue: Send + Sync {
    /// Takes the oldest queued task of this kind, if any.
    async fn claim(&self, worker: &WorkerId, wanted: &Wanted) -> Result<Option<Lease>, StoreError>;
    /// Prolongs the lease and tells coarse progress.
    async fn heartbeat(&self, lease: &LeaseId, progress: Option<Progress>) -> Result<Heartbeat, StoreError>;
    async fn complete(&self, lease: &LeaseId, painting: Painting) -> Result<Settled, StoreError>;
    async fn fail(&self, lease: &LeaseId, fault: Fault, retry: Retry) -> Result<Settled, StoreError>;
    /// Ends a task that was asked to stop.
    async fn cancelled(&self, lease: &LeaseId) -> Result<Settled, StoreError>;
    /// Gives an unfinished task back without spending an attempt (the worker drains).
    async fn release(&self, lease: &LeaseId) -> Result<Settled, StoreError>;
    /// Queues again what dead workers held; what has spent its attempts fails with a reason.
    async fn reap(&self) -> Result<Reaped, StoreError>;
    /// Called once at start-up by a process that is the store's only worker: its predecessor is dead, so every lease is
    /// reaped at once instead of waiting for it to run out.
    async fn reap_all(&self) -> Result<Reaped, StoreError>;
}

/// API keys. A secret is never stored: only its SHA-256 (the secret has 256 random bits, so no slow hash is needed).
#[async_trait]
pub trait KeyStore: Send + Sync {
    async fn insert(&self, key: &Key, secret_sha256: [u8; 32]) -> Result<(), StoreError>;
    /// Oldest first, revoked ones included.
    async fn keys(&self) -> Result<Vec<Key>, StoreError>;
    /// `false`: no such key.
    async fn revoke(&self, id: &KeyId, now_ms: i64) -> Result<bool, StoreError>;
    /// The key with this secret, unless revoked.
    async fn find(&self, secret_sha256: [u8; 32]) -> Result<Option<Key>, StoreError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// When it was put, milliseconds since the Unix epoch; decides when a result expires.
    pub stored_ms: i64,
    pub n_bytes: u64,
}

/// Files: reference pictures, results, thumbnails.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Durable when it returns.
    async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), StoreError>;
    async fn get(&self, key: &BlobKey) -> Result<Option<Bytes>, StoreError>;
    /// What there is to know of a file without reading it.
    async fn look(&self, key: &BlobKey) -> Result<Option<BlobInfo>, StoreError>;
    /// All files that were put before this time, milliseconds since the Unix epoch.
    async fn put_before(&self, ms: i64) -> Result<Vec<BlobKey>, StoreError>;
    /// Deleting what is not there is no error.
    async fn delete(&self, key: &BlobKey) -> Result<(), StoreError>;
}

/// Lossy news: a waiter subscribes, then reads the store, then waits for news or a one-second poll.
pub trait EventBus: Send + Sync {
    fn publish(&self, event: TaskEvent);
    fn subscribe(&self) -> broadcast::Receiver<TaskEvent>;
}

/// One store behind all its roles.
#[derive(Clone)]
pub struct Stores {
    pub tasks: Arc<dyn TaskStore>,
    pub queue: Arc<dyn WorkQueue>,
    pub keys: Arc<dyn KeyStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub events: Arc<dyn EventBus>,
}

#[derive(Clone, Debug)]
pub struct NewTask {
    pub id: TaskId,
    pub owner: KeyId,
    pub request: GenerationRequest,
    pub source: BlobKey,
    pub control: Option<BlobKey>,
    pub idempotency: Option<Idempotency>,
    pub now_ms: i64,
}

/// The same key with the same body is the same task; with another body, a conflict. Scoped to the owner.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    pub body_sha256: [u8; 32],
}

/// Which tasks a worker can paint.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub apps: Vec<AppId>,
    /// Of tasks that name a class of GPU, only these; of the others all.
    pub classes: Vec<InferenceType>,
}

#[derive(Clone, Debug)]
pub enum Submission {
    Accepted(Task),
    /// An earlier call with the same idempotency key made this task.
    Existing(Task),
    /// The same idempotency key came with another body.
    Conflict,
    /// The whole queue is full.
    QueueFull,
    /// This owner has as many unfinished tasks as it may have.
    OwnerFull,
}

/// A task in a worker's hands until `heartbeat` stops for longer than the lease lasts.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub task: Task,
}

/// Names one attempt at one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub task: TaskId,
    pub worker: WorkerId,
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    Continue,
    /// The client asked to stop.
    Cancel,
    /// Somebody else has the task, or it is over: stop and forget it.
    Lost,
}

/// Whether the store took the worker's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Done,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The fault is the request's own.
    Never,
    /// Another attempt may succeed; no sooner than this many milliseconds from now, while attempts are left.
    AfterMs(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub requeued: u64,
    pub failed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub queued: u64,
    pub running: u64,
}

/// A key without its secret. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: KeyId,
    pub name: String,
    pub created_ms: i64,
    pub revoked_ms: Option<i64>,
}

/// Something happened to a task. Read the store for the truth; `progress` alone is finer here than there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    Queued(TaskId),
    Progress(TaskId, Progress),
    /// Claimed, requeued, finished or cancelled.
    Changed(TaskId),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two servers on one folder would each take the other's running tasks for a dead worker's.
    #[error("the data folder {0} is in use by another server")]
    InUse(PathBuf),
    #[error("the data folder {0} cannot be used: {1}")]
    Folder(PathBuf, std::io::Error),
    /// Taken for new, all its pictures would be deleted as nobody's.
    #[error("{} is missing or empty, but {} has files: bring the database back from a backup, or move these away", database.display(), files.display())]
    Forgotten { database: PathBuf, files: PathBuf },
    #[error("the database has schema version {found}; this program knows versions up to {known}")]
    Newer { found: i64, known: i64 },
    #[error("the database failed: {0}")]
    Database(String),
    #[error("the file store failed: {0}")]
    Blobs(String),
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
}
