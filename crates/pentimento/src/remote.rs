//! The options of providers, and the keys that open them.
//!
//! A key comes from the environment or from a file and never from an option: whoever is on the machine can read the
//! command lines of all.

use crate::failure::Failure;
use app::availability::Availability;
use domain::catalogue::App;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource, Lane};
use hub::registry::{Provider, Registry};
use ingest::{FetchPolicy, IpRange};
use pipelines::Engines;
use providers::ideogram::{ApiKey, BaseUrl, IdeogramConfig, IdeogramEngine, RenderingSpeed};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

const IDEOGRAM_KEY: &str = "PENTIMENTO_IDEOGRAM_KEY";
/// More than any key has; the wrong file is not read to its end.
const KEY_FILE_BYTES_MAX: u64 = 4096;

#[derive(clap::Args)]
pub(crate) struct IdeogramArgs {
    /// A file with the key to Ideogram's API and nothing else [default: the key is in PENTIMENTO_IDEOGRAM_KEY]
    #[arg(id = "ideogram-key-file", long, value_name = "FILE", env = "PENTIMENTO_IDEOGRAM_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Where to find Ideogram's API, if not at its own address
    #[arg(id = "ideogram-url", long, value_name = "URL", env = "PENTIMENTO_IDEOGRAM_URL", hide_env_values = true,
          value_parser = base_url)]
    url: Option<BaseUrl>,
    /// Ideogram's trade of time and money for quality: turbo, default or quality
    #[arg(id = "ideogram-speed", long, value_name = "SPEED", env = "PENTIMENTO_IDEOGRAM_SPEED",
          default_value = "default", value_parser = rendering_speed)]
    speed: RenderingSpeed,
    /// How long one call to Ideogram may take, seconds
    #[arg(id = "ideogram-timeout", long, value_name = "SECONDS", env = "PENTIMENTO_IDEOGRAM_TIMEOUT",
          default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
}

/// The providers whose keys are here.
#[derive(Clone)]
pub(crate) struct Remote {
    ideogram: Option<IdeogramConfig>,
}

impl IdeogramArgs {
    pub(crate) fn open(&self) -> Result<Remote, Failure> {
        let Some(key) = self.ideogram_key()? else { return Ok(Remote::none()) };
        let usual = IdeogramConfig::new(key);
        Ok(Remote {
            ideogram: Some(IdeogramConfig {
                base_url: self.url.clone().unwrap_or_else(BaseUrl::official),
                rendering_speed: self.speed,
                call_time_max: Duration::from_secs(self.timeout.into()),
                ..usual
            }),
        })
    }

    /// The file goes first: it was named, while a variable may be left from another day.
    fn ideogram_key(&self) -> Result<Option<ApiKey>, Failure> {
        let (text, place) = match &self.key_file {
            Some(file) => (read_key(file)?, file.display().to_string()),
            None => match std::env::var(IDEOGRAM_KEY) {
                Ok(text) => (text, IDEOGRAM_KEY.to_owned()),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(Failure::usage(format!("{IDEOGRAM_KEY}: allowed: visible ASCII characters")));
                }
            },
        };
        // A variable that is set to nothing is one that somebody took back.
        match text.trim() {
            "" if self.key_file.is_none() => Ok(None),
            text => ApiKey::parse(text).map(Some).map_err(|invalid| Failure::usage(format!("{place}: {invalid}"))),
        }
    }
}

impl Remote {
    pub(crate) fn none() -> Self {
        Self { ideogram: None }
    }

    pub(crate) fn providers(&self) -> Vec<Provider> {
        self.ideogram.iter().map(|_| Provider::Ideogram).collect()
    }

    /// Providers whose keys travel in the clear.
    pub(crate) fn unencrypted(&self) -> Vec<Provider> {
        let in_the_clear = self.ideogram.iter().filter(|config| !config.base_url.is_encrypted());
        in_the_clear.map(|_| Provider::Ideogram).collect()
    }

    fn engine(&self, provider: Provider, model: &ModelId, allowed: &[IpRange]) -> Result<Box<dyn Engine>, EngineError> {
        let Provider::Ideogram = provider;
        let config = self.ideogram.clone().ok_or_else(|| EngineError::Denied(provider.how_to_configure()))?;
        let results = FetchPolicy { allowed_sources: allowed.to_vec(), ..config.results };
        Ok(Box::new(IdeogramEngine::new(model.clone(), IdeogramConfig { results, ..config })?))
    }
}

/// Engines from the weights here and from providers, side by side.
pub(crate) struct Sources {
    pub(crate) local: Engines,
    pub(crate) remote: Remote,
    pub(crate) registry: Registry,
    /// Ranges that are not public from which results may be fetched.
    pub(crate) allowed: Vec<IpRange>,
}

impl Sources {
    fn provider_of(&self, model: &ModelId) -> Option<Provider> {
        self.registry.get(model)?.provider
    }
}

impl EngineSource for Sources {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        // The shelf behind them knows whose keys are here, so the order of an app's models holds across both kinds.
        self.local.model_for(models)
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        match self.provider_of(model) {
            Some(provider) => self.remote.engine(provider, model, &self.allowed),
            None => self.local.load(model),
        }
    }

    fn lane_of(&self, model: &ModelId) -> Lane {
        if self.provider_of(model).is_some() { Lane::Remote } else { self.local.lane_of(model) }
    }
}

/// What the server says of an app is what its engines say.
impl Availability for Sources {
    fn model_for(&self, app: &App) -> Result<ModelId, String> {
        self.local.usable(&app.models)
    }
}

fn read_key(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::because(format!("{}: {error}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file).map_err(failed)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn base_url(text: &str) -> Result<BaseUrl, String> {
    BaseUrl::parse(text).map_err(|invalid| format!("allowed: {}", invalid.allowed))
}

fn rendering_speed(text: &str) -> Result<RenderingSpeed, String> {
    RenderingSpeed::parse(text).map_err(|invalid| format!("allowed: {}", invalid.allowed))
}
