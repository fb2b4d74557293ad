//! Pulls from a hub on the loopback interface that breaks, lies and refuses.

mod access;
mod attempts;
mod content;
mod folders;
mod listing;

use domain::id::ModelId;
use hub::download::{Downloader, Endpoint, Event, Origin, Patience, Plan, Progress, PullError, Settings, Token};
use hub::registry::{self, Source};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use testkit::model_hub::ModelHub;

const REPOSITORY: &str = "owner/name";
const LARGE: &str = "vae/model.safetensors";
const SMALL: &str = "model_index.json";

/// A hub with one model, and a folder for it.
struct Rig {
    hub: ModelHub,
    dir: TempDir,
    token: Option<&'static str>,
    patience: Patience,
}

impl Rig {
    async fn start() -> Self {
        let hub = ModelHub::start().await;
        hub.small(REPOSITORY, SMALL, r#"{"_class_name": "FluxPipeline"}"#);
        hub.large(REPOSITORY, LARGE, content());
        hub.small(REPOSITORY, "README.md", "not asked for");
        hub.large(REPOSITORY, "model.safetensors", vec![7; 500]);
        Self { hub, dir: tempfile::tempdir().unwrap(), token: None, patience: patience() }
    }

    fn weights(&self) -> PathBuf {
        self.dir.path().join("weights")
    }

    fn folder(&self) -> PathBuf {
        self.weights().join("a-model")
    }

    fn part(&self) -> PathBuf {
        self.weights().join(".pull/a-model.pull/parts").join(format!("{LARGE}.part"))
    }

    fn downloader(&self) -> Downloader {
        let settings = Settings {
            endpoint: Endpoint::parse(&self.hub.url()).unwrap(),
            token: self.token.map(|text| Token::parse(text).unwrap()),
            cache: Some(self.dir.path().join("cache")),
            extra_roots_pem: None,
            patience: self.patience.clone(),
        };
        Downloader::new(settings).unwrap()
    }

    async fn plan(&self) -> Result<Plan, PullError> {
        self.downloader().plan(&model(), &source(), None).await
    }

    async fn pull(&self) -> Result<Log, PullError> {
        let log = Log::default();
        let plan = self.plan().await?;
        self.downloader().pull(&plan, &self.weights(), &log).await.map(|_| log)
    }

    #[track_caller]
    fn assert_installed(&self) {
        assert_eq!(std::fs::read(self.folder().join(LARGE)).unwrap(), content());
        assert!(self.folder().join(SMALL).is_file());
        assert!(!self.folder().join("README.md").exists() && !self.folder().join("model.safetensors").exists());
        assert_eq!(files_below(&self.weights().join(".pull")), ["a-model.lock"], "nothing is left behind");
        let record = hub::record::Record::read(&self.folder()).unwrap().unwrap();
        assert!(record.is_whole(&self.folder()));
        for file in &record.files {
            assert_eq!(file.verify(&self.folder()), None, "{}", file.path);
        }
    }

    /// Nobody who looks for the model finds it, or any file of it.
    #[track_caller]
    fn assert_absent(&self) {
        assert_eq!(files_below(&self.folder()), [""; 0]);
    }
}

fn model() -> ModelId {
    ModelId::parse("a-model").unwrap()
}

fn source() -> Source {
    let text = format!(
        "[[model]]\nid = 'a-model'\nname = 'A'\nlicence = 'MIT'\ngated = false\npaints = true\nrepository = '{REPOSITORY}'\n\
         revision = 'main'\nlicence_url = 'https://x'\nnon_commercial = false\n\
         files = ['model_index.json', 'vae/*.safetensors']\n"
    );
    registry::parse("test", &text).unwrap().models()[0].source.clone().unwrap()
}

/// Large enough for several pieces, and nowhere the same.
fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// Times that a test can wait for.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        idle: Duration::from_millis(400),
        slow_window: Duration::from_millis(400),
        slow_bytes: 1000,
        attempts: 3,
        progress_bytes: 1000,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        retry_after_max: Duration::from_secs(60),
    }
}

/// Relative, in order.
fn files_below(dir: &Path) -> Vec<String> {
    fn collect(dir: &Path, prefix: &str, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.path().is_dir() {
                collect(&entry.path(), &format!("{name}/"), files);
            } else {
                files.push(name);
            }
        }
    }
    let mut files = Vec::new();
    collect(dir, "", &mut files);
    files.sort();
    files
}

/// What a pull told.
#[derive(Default)]
struct Log(Mutex<Vec<(usize, String)>>);

impl Progress for Log {
    fn tell(&self, file: usize, event: Event<'_>) {
        if !matches!(event, Event::Bytes(_)) {
            self.0.lock().unwrap().push((file, format!("{event:?}")));
        }
    }
}

impl Log {
    /// How many files came from there.
    fn n_from(&self, origin: Origin) -> usize {
        let done = format!("{:?}", Event::Done(origin));
        self.0.lock().unwrap().iter().filter(|(_, event)| *event == done).count()
    }

    fn holds(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|(_, event)| event.contains(text))
    }
}

/// An error as a person reads it, and as a programmer does; neither may hold a secret.
#[track_caller]
fn told<T>(outcome: Result<T, PullError>) -> String {
    let Err(error) = outcome else { panic!("it went well") };
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    for secret in ["hf_", testkit::model_hub::SIGNATURE, "resolve/"] {
        assert!(!text.contains(secret) && !debug.contains(secret), "{text} {debug}");
    }
    text
}
