//! A store, workers on it, tasks to paint, and engines that count what they are asked.

use domain::catalogue::{App, Catalogue, Defaults, Mode, Preset, PromptRule, SizeRule};
use domain::fault::Fault;
use domain::id::{AppId, BlobKey, KeyId, ModelId, TaskId};
use domain::quantity::{Batch, GuidanceScale, Size, Steps, Strength};
use domain::request::{GenerationRequest, InferenceType, OutputFormat};
use domain::task::{Painting, Task, TaskState};
use engine::fake::FakeEngine;
use engine::{Engine, EngineError, EngineSource, Lane, Observer, Output, Plan, StepReport};
use imaging::{Metadata, Picture};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::contract::{NewTask, Stores, Submission};
use store::sqlite::{self, StoreOptions};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use worker::{Ownership, Timing, Worker, WorkerConfig, WorkerError};

pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Tasks that a worker's remote lane has at a time.
pub(crate) const REMOTE_TASKS: usize = 3;
/// No test waits for anything longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) stores: Stores,
    pub(crate) engines: Arc<Engines>,
    pub(crate) timing: Timing,
    dir: TempDir,
}

/// A worker that runs, and the way to stop it.
pub(crate) struct Running {
    pub(crate) shutdown: watch::Sender<bool>,
    pub(crate) handle: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.send_replace(true);
        timeout(PATIENCE, self.handle).await.expect("the worker stops").unwrap().unwrap();
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_steps_of(Duration::ZERO)
    }

    pub(crate) fn with_steps_of(step_time: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { lease_ms: LEASE.as_millis() as i64, ..StoreOptions::default() };
        let timing = Timing {
            poll: Duration::from_millis(50),
            lease: LEASE,
            drain_grace: Duration::from_secs(20),
            stop_grace: Duration::from_secs(20),
            retry_first: Duration::from_millis(20),
            ..Timing::default()
        };
        let stores = sqlite::open(dir.path(), options).unwrap();
        Self { stores, engines: Arc::new(Engines::new(step_time)), timing, dir }
    }

    pub(crate) fn start(&self, ownership: Ownership) -> Running {
        let config = WorkerConfig {
            catalogue: Arc::new(catalogue()),
            engines: self.engines.clone(),
            stores: self.stores.clone(),
            gpu_classes: vec![InferenceType::A10g, InferenceType::A100],
            remote_tasks_max: REMOTE_TASKS,
            ownership,
            timing: self.timing.clone(),
        };
        let (shutdown, asked) = watch::channel(false);
        let handle = tokio::spawn(Worker::new(config).unwrap().run(asked));
        Running { shutdown, handle }
    }

    /// Stores a reference picture and queues a request for it.
    pub(crate) async fn submit(&self, n: u8, change: impl FnOnce(&mut GenerationRequest)) -> TaskId {
        let source = BlobKey::parse(&format!("s-{n}.png")).unwrap();
        let picture = Picture::filled(Size::new(96, 64), [n, 0, 0]);
        let metadata = Metadata { software: "test".to_owned(), model: "none".to_owned(), seed: None };
        let bytes = imaging::encode(&picture, OutputFormat::Png, &metadata).unwrap();
        self.stores.blobs.put(&source, bytes.into()).await.unwrap();
        self.submit_without_source(n, change).await
    }

    pub(crate) async fn submit_without_source(&self, n: u8, change: impl FnOnce(&mut GenerationRequest)) -> TaskId {
        let mut request = request();
        change(&mut request);
        let id = TaskId::from_random([n; 16]);
        let source = BlobKey::parse(&format!("s-{n}.png")).unwrap();
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        let owner = KeyId::from_random([1; 8]);
        let task = NewTask { id: id.clone(), owner, request, source, control: None, idempotency: None, now_ms };
        let answer = self.stores.tasks.submit(task).await.unwrap();
        assert!(matches!(answer, Submission::Accepted(_)), "{answer:?}");
        id
    }

    pub(crate) async fn get(&self, id: &TaskId) -> Task {
        self.stores.tasks.get(id).await.unwrap().expect("the task is there")
    }

    pub(crate) async fn until(&self, id: &TaskId, what: &str, is_so: impl Fn(&Task) -> bool) -> Task {
        let begun = Instant::now();
        loop {
            let task = self.get(id).await;
            if is_so(&task) {
                return task;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}; the task is {:?}", task.state);
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_final(&self, id: &TaskId) -> Task {
        self.until(id, "it ends", |task| task.state.is_final()).await
    }

    pub(crate) async fn painting(&self, id: &TaskId) -> Painting {
        match self.until_final(id).await.state {
            TaskState::Succeeded(painting) => painting,
            other => panic!("not painted: {other:?}"),
        }
    }

    pub(crate) async fn fault(&self, id: &TaskId) -> Fault {
        match self.until_final(id).await.state {
            TaskState::Failed(fault) => fault,
            other => panic!("not failed: {other:?}"),
        }
    }

    pub(crate) async fn blob(&self, key: &BlobKey) -> Vec<u8> {
        self.stores.blobs.get(key).await.unwrap().expect("the file is there").to_vec()
    }

    /// Files that are no reference pictures.
    pub(crate) fn n_result_files(&self) -> usize {
        let shards = std::fs::read_dir(self.dir.path().join("blobs")).unwrap();
        let files = |shard: &Path| std::fs::read_dir(shard).unwrap().map(|file| file.unwrap().file_name()).collect();
        let all: Vec<Vec<_>> = shards.map(|shard| files(&shard.unwrap().path())).collect();
        all.concat().iter().filter(|name| !name.to_string_lossy().starts_with("s-")).count()
    }
}

pub(crate) fn request() -> GenerationRequest {
    GenerationRequest {
        app: AppId::parse("app-1").unwrap(),
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

/// `app-1` and `app-2` have weights; those of `app-3` are absent. `app-4` is painted elsewhere.
fn catalogue() -> Catalogue {
    let app = |n: u32| App {
        id: AppId::parse(&format!("app-{n}")).unwrap(),
        slug: format!("app-{n}"),
        name: format!("App {n}"),
        models: vec![ModelId::parse(&format!("model-{n}")).unwrap()],
        mode: Mode::Plain,
        size_rule: SizeRule::TakesInput,
        prompt: PromptRule::Required,
        deployed: false,
        defaults: Defaults {
            guidance_scale: GuidanceScale::new(3.5).unwrap(),
            steps: Steps::new(4).unwrap(),
            strength: Strength::DEFAULT,
        },
        preset: Preset::default(),
    };
    Catalogue::new((1..=4).map(app).collect()).unwrap()
}

/// Fake engines that write down what is asked of them.
pub(crate) struct Engines {
    /// How long a step takes, on the device and elsewhere.
    step_time: Duration,
    pub(crate) remote_step_time: Mutex<Duration>,
    log: Arc<Mutex<Log>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) loads: Vec<String>,
    /// The seed of each run.
    pub(crate) runs: Vec<u64>,
    /// Steps ended, all runs together.
    pub(crate) n_steps: u32,
}

impl Engines {
    fn new(step_time: Duration) -> Self {
        Self { step_time, remote_step_time: Mutex::new(step_time), log: Arc::default() }
    }

    pub(crate) fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }
}

impl EngineSource for Engines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        models.iter().find(|model| model.as_str() != "model-3").cloned()
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        self.log.lock().unwrap().loads.push(model.as_str().to_owned());
        let step_time = match self.lane_of(model) {
            Lane::Device => self.step_time,
            Lane::Remote => *self.remote_step_time.lock().unwrap(),
        };
        let inner = FakeEngine::new(step_time);
        Ok(Box::new(Counted { inner, model: model.clone(), log: self.log.clone() }))
    }

    fn lane_of(&self, model: &ModelId) -> Lane {
        if model.as_str() == "model-4" { Lane::Remote } else { Lane::Device }
    }
}

struct Counted {
    inner: FakeEngine,
    model: ModelId,
    log: Arc<Mutex<Log>>,
}

impl Engine for Counted {
    fn model(&self) -> &ModelId {
        &self.model
    }

    /// Knows more prompts than the fake engine: `refuse please`, `weights please` and what a provider may say.
    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Output, EngineError> {
        self.log.lock().unwrap().runs.push(plan.seed);
        match plan.prompt.as_str() {
            "refuse please" => return Err(EngineError::Refused("too small to paint".to_owned())),
            "weights please" => return Err(EngineError::Weights("/secret/place is broken".to_owned())),
            "unsafe please" => return Err(EngineError::Unsafe("not in this house".to_owned())),
            "lose please" => return Err(EngineError::Lost("painted, but nobody knows what".to_owned())),
            "deny please" => return Err(EngineError::Denied("the secret account is empty".to_owned())),
            _ => {}
        }
        let output = self.inner.run(plan, &mut CountedSteps { observer, log: &self.log })?;
        let withheld = if plan.prompt == "withhold please" { vec![false, true] } else { Vec::new() };
        let ignored = vec!["negative_prompt".to_owned(), "guidance_scale".to_owned()];
        Ok(Output { model: self.model.clone(), ignored, withheld, ..output })
    }
}

struct CountedSteps<'a> {
    observer: &'a mut dyn Observer,
    log: &'a Mutex<Log>,
}

impl Observer for CountedSteps<'_> {
    fn step(&mut self, report: StepReport) -> ControlFlow<()> {
        self.log.lock().unwrap().n_steps += 1;
        self.observer.step(report)
    }
}
