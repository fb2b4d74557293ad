//! A store in a scratch folder, a clock that the test turns, and tasks to put in.

use domain::id::{AppId, BlobKey, KeyId, ModelId, TaskId, WorkerId};
use domain::quantity::{Batch, GuidanceScale, Steps, Strength};
use domain::request::{GenerationRequest, InferenceType, OutputFormat};
use domain::task::{PaintedImage, Painting, Task};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::contract::{Idempotency, Lease, NewTask, Stores, Submission, Wanted};
use store::sqlite::{self, StoreOptions};
use tempfile::TempDir;

pub(crate) const LEASE_MS: i64 = 1000;
pub(crate) const ATTEMPTS_MAX: u32 = 3;
pub(crate) const START_MS: i64 = 1_000_000;

pub(crate) struct Bench {
    pub(crate) stores: Stores,
    pub(crate) options: StoreOptions,
    now_ms: Arc<AtomicI64>,
    pub(crate) dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Arc::clone(&now_ms);
        let mut options = StoreOptions {
            lease_ms: LEASE_MS,
            attempts_max: ATTEMPTS_MAX,
            queue_tasks_max: 1000,
            owner_tasks_max: 1000,
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        };
        change(&mut options);
        let stores = sqlite::open(dir.path(), options.clone()).unwrap();
        Self { stores, options, now_ms, dir }
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The database behind the store's back.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.dir.path().join("pentimento.db")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        connection
    }

    pub(crate) async fn submit(&self, n: u8) -> Task {
        match self.stores.tasks.submit(new_task(n)).await.unwrap() {
            Submission::Accepted(task) => task,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) async fn claim(&self) -> Option<Lease> {
        self.stores.queue.claim(&worker(1), &wanted(&["a", "b"])).await.unwrap()
    }

    pub(crate) async fn get(&self, n: u8) -> Task {
        self.stores.tasks.get(&task_id(n)).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, n: u8) -> &'static str {
        self.get(n).await.state.as_str()
    }
}

pub(crate) fn task_id(n: u8) -> TaskId {
    TaskId::from_random([n; 16])
}

pub(crate) fn owner(n: u8) -> KeyId {
    KeyId::from_random([n; 8])
}

pub(crate) fn worker(n: u8) -> WorkerId {
    WorkerId::from_random([n; 8])
}

pub(crate) fn app(name: &str) -> AppId {
    AppId::parse(name).unwrap()
}

/// Tasks of these apps, on whatever class of GPU.
pub(crate) fn wanted(apps: &[&str]) -> Wanted {
    Wanted { apps: apps.iter().map(|name| app(name)).collect(), classes: InferenceType::ALL.to_vec() }
}

pub(crate) fn blob(name: &str) -> BlobKey {
    BlobKey::parse(name).unwrap()
}

pub(crate) fn idempotency(key: &str, body: u8) -> Idempotency {
    Idempotency { key: key.to_owned(), body_sha256: [body; 32] }
}

pub(crate) fn new_task(n: u8) -> NewTask {
    NewTask {
        id: task_id(n),
        owner: owner(1),
        request: request("a"),
        source: blob(&format!("s-{n}")),
        control: None,
        idempotency: None,
        now_ms: START_MS,
    }
}

pub(crate) fn request(app_name: &str) -> GenerationRequest {
    GenerationRequest {
        app: app(app_name),
        image: "https://example.com/a.png".to_owned(),
        control_image: None,
        prompt: "a cat".to_owned(),
        negative_prompt: String::new(),
        guidance_scale: GuidanceScale::new(3.5).unwrap(),
        strength: Strength::DEFAULT,
        batch: Batch::ONE,
        steps: Steps::new(4).unwrap(),
        size: None,
        seed: 1,
        inference_type: None,
        output_format: OutputFormat::Png,
        reference_id: None,
        ignored: Vec::new(),
    }
}

pub(crate) fn painting(name: &str) -> Painting {
    Painting {
        images: vec![PaintedImage {
            image: blob(&format!("r-{name}")),
            thumbnail: blob(&format!("t-{name}")),
            withheld: false,
        }],
        model: ModelId::parse("fake").unwrap(),
        startup_s: 0.5,
        runtime_s: 1.25,
        ignored: Vec::new(),
    }
}
