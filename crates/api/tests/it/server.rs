//! A whole server in this process: its own port, its own data folder, a fake engine.

use api::drain::{self, DrainHandle};
use api::{Api, Config, Limits, Parts};
use app::App;
use app::availability::Availability;
use domain::catalogue::App as Entry;
use domain::gpu::GpuOffer;
use domain::id::ModelId;
use engine::EngineSource;
use engine::fake::FakeEngines;
use hub::installed::Shelf;
use ingest::{FetchPolicy, Fetcher, IpRange};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::contract::Stores;
use store::sqlite::StoreOptions;
use tempfile::TempDir;
use testkit::client::Client;
use testkit::pictures::PictureServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use worker::{Ownership, Timing, Worker, WorkerConfig};

pub(crate) const FLUX_DEV: &str = "ap-fGhKl3mfkdlpqrshuwwabc";
pub(crate) const REDUX: &str = "ap-gFhLq9zvbnmopxkytswabc";
pub(crate) const CANNY: &str = "ap-mNqZx4rtyjvbcfghwklpde";
pub(crate) const SDXL: &str = "ap-eRSyl0imzrUrbvgdAYwDTl";
pub(crate) const ANIME: &str = "ap-Zj2zfXKq52zvpib7jGqYFp";

/// What one test wants otherwise than usual.
pub(crate) struct Setup {
    pub(crate) worker: WorkerSetup,
    pub(crate) store: StoreOptions,
    pub(crate) submissions_per_minute: u32,
    pub(crate) keep_results: Duration,
    pub(crate) results_bytes: usize,
    pub(crate) sync_wait: Duration,
    pub(crate) limits: Limits,
    pub(crate) public_url: Option<String>,
    /// Models without weights.
    pub(crate) absent: Vec<&'static str>,
    pub(crate) may_fetch_locally: bool,
    pub(crate) gpus: GpuOffer,
}

pub(crate) enum WorkerSetup {
    /// Tasks stay queued.
    Absent,
    /// So long for each step.
    StepTime(Duration),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            worker: WorkerSetup::StepTime(Duration::ZERO),
            store: StoreOptions { queue_tasks_max: 10_000, owner_tasks_max: 10_000, ..StoreOptions::default() },
            submissions_per_minute: 1_000_000,
            keep_results: Duration::from_secs(3600),
            results_bytes: domain::limits::RESULTS_BYTES_MAX,
            sync_wait: Duration::from_secs(60),
            limits: Limits { linger: Duration::from_secs(2), ..Limits::default() },
            public_url: None,
            absent: Vec::new(),
            may_fetch_locally: true,
            gpus: GpuOffer::ANY,
        }
    }
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// With a key of its own.
    pub(crate) client: Client,
    pub(crate) app: App,
    pub(crate) pictures: PictureServer,
    pub(crate) drain: DrainHandle,
    pub(crate) served: JoinHandle<api::Closing>,
    _worker_goes_on: watch::Sender<bool>,
    pub(crate) dir: TempDir,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// One whose tasks stay queued, for tests of what is accepted.
    pub(crate) async fn that_only_accepts() -> Self {
        Self::with(Setup { worker: WorkerSetup::Absent, ..Setup::default() }).await
    }

    /// One whose tasks take this long for each step.
    pub(crate) async fn with_steps_of(step_time: Duration) -> Self {
        Self::with(Setup { worker: WorkerSetup::StepTime(step_time), ..Setup::default() }).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stores = store::sqlite::open(dir.path(), setup.store.clone()).unwrap();
        let step_time = match setup.worker {
            WorkerSetup::Absent => Duration::ZERO,
            WorkerSetup::StepTime(step_time) => step_time,
        };
        let absent = setup.absent.iter().map(|id| ModelId::parse(id).unwrap()).collect();
        let engines: Arc<dyn EngineSource> = Arc::new(FakeEngines { step_time, absent });
        let (goes_on, shutdown) = watch::channel(false);
        if matches!(setup.worker, WorkerSetup::StepTime(_)) {
            start_worker(&setup, &engines, &stores, shutdown);
        }
        let app = app(&setup, engines, stores);
        let secret = app.keys().create("test").await.unwrap().secret;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config {
            public_url: setup.public_url,
            fallback_url: format!("http://{address}"),
            sync_wait: setup.sync_wait,
            limits: setup.limits,
        };
        let (drain, signal) = drain::channel();
        let api = Api::new(Parts { app: app.clone(), config, metrics: recorder(), drain: signal });
        Self {
            address,
            client: Client::new(address, secret.expose()),
            app,
            pictures: PictureServer::start().await,
            drain,
            served: tokio::spawn(api.serve(listener)),
            _worker_goes_on: goes_on,
            dir,
        }
    }

    /// A client with another key.
    pub(crate) async fn another_client(&self) -> Client {
        let secret = self.app.keys().create("another").await.unwrap().secret;
        Client::new(self.address, secret.expose())
    }

    /// The least that an app wants.
    pub(crate) fn ask(&self, app_id: &str) -> Value {
        json!({"app_id": app_id, "image": self.pictures.url("64x48.png"), "prompt": "a harbor at dusk"})
    }

    /// Asks for Flux Dev with this in addition or in place.
    pub(crate) fn ask_with(&self, more: Value) -> Value {
        merged(self.ask(FLUX_DEV), more)
    }

    /// Queues a task and returns its id.
    pub(crate) async fn queue(&self, more: Value) -> String {
        let reply = self.client.post("/getImagetoImage", &merged(self.ask_with(more), json!({"celery": true}))).await;
        let body = crate::shape::assert_status(&reply, 200, "PENDING");
        body["task_id"].as_str().unwrap().to_owned()
    }

    /// Polls until the task's state is this one.
    pub(crate) async fn reaches(&self, id: &str, state: &str) -> Value {
        for _ in 0..1000 {
            let body = self.client.get(&format!("/v1/tasks/{id}")).await.json();
            if body["state"] == state {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the task did not become {state}");
    }
}

pub(crate) fn merged(mut base: Value, more: Value) -> Value {
    let object = base.as_object_mut().unwrap();
    for (name, value) in more.as_object().unwrap() {
        object.insert(name.clone(), value.clone());
    }
    base
}

pub(crate) fn without(mut base: Value, name: &str) -> Value {
    base.as_object_mut().unwrap().remove(name);
    base
}

/// One for all tests of this process: a process has one recorder.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| api::telemetry::install().unwrap()).clone()
}

fn start_worker(setup: &Setup, engines: &Arc<dyn EngineSource>, stores: &Stores, shutdown: watch::Receiver<bool>) {
    let timing = Timing { retry_first: Duration::from_millis(20), ..Timing::default() };
    let worker = Worker::new(WorkerConfig {
        catalogue: Arc::new(hub::catalogue::built_in()),
        engines: engines.clone(),
        stores: stores.clone(),
        gpu_classes: setup.gpus.painted(),
        remote_tasks_max: 2,
        ownership: Ownership::Sole,
        timing,
    });
    tokio::spawn(worker.unwrap().run(shutdown));
}

fn app(setup: &Setup, engines: Arc<dyn EngineSource>, stores: Stores) -> App {
    let loopback = IpRange::parse("127.0.0.0/8").unwrap();
    let allowed_sources = if setup.may_fetch_locally { vec![loopback] } else { Vec::new() };
    let policy = FetchPolicy { allowed_sources, ..FetchPolicy::default() };
    App::new(app::Parts {
        catalogue: hub::catalogue::built_in(),
        stores,
        sources: Arc::new(Fetcher::new(policy).unwrap()),
        availability: Arc::new(Installed(engines)),
        config: app::Config {
            submissions_per_minute: setup.submissions_per_minute,
            keep_results: setup.keep_results,
            results_bytes: setup.results_bytes,
            gpus: setup.gpus,
        },
    })
}

struct Installed(Arc<dyn EngineSource>);

impl Availability for Installed {
    fn model_for(&self, app: &Entry) -> Result<ModelId, String> {
        let how = || Shelf::embedded().how_to_install(&app.models[0], &hub::registry::built_in());
        self.0.model_for(&app.models).ok_or_else(how)
    }
}
