//! Where a command's engine comes from: the weights of `--weights`, those that were pulled, those inside the program, or
//! a provider.

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::remote::{Remote, Sources};
use domain::catalogue::App;
use domain::id::ModelId;
use engine::{Engine, EngineSource};
use hub::installed::{INDEX_FILE, Shelf};
use hub::registry::Registry;
use ingest::IpRange;
use pipelines::{Engines, Precision};
use std::path::{Path, PathBuf};

/// Below the data folder.
const WEIGHTS_DIR: &str = "weights";

/// The `--weights` option, which several commands share.
#[derive(clap::Args)]
pub(crate) struct WeightsArg {
    /// A folder of model folders, or one model's own [default: `weights` in the data folder, beside the model inside this
    /// program]
    #[arg(id = "weights", long, value_name = "DIR", env = "PENTIMENTO_WEIGHTS", global = true)]
    dir: Option<PathBuf>,
}

impl WeightsArg {
    /// Where a pull puts models, whether or not there is anything yet.
    pub(crate) fn dir(&self, data: &DataArg) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| data.dir().join(WEIGHTS_DIR))
    }

    pub(crate) fn shelf(&self, data: &DataArg, registry: &Registry) -> Result<Shelf, Failure> {
        let usual = data.dir().join(WEIGHTS_DIR);
        let shelf = match &self.dir {
            Some(dir) => Shelf::open(dir, registry),
            None if usual.is_dir() => Shelf::open_usual(&usual, registry),
            None => Ok(Shelf::embedded()),
        };
        shelf.map_err(|error| Failure::caused_by(&error))
    }
}

/// The number formats that `--precision` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum PrecisionArg {
    /// The fastest one that keeps the picture.
    Auto,
    /// 32-bit floating point, in step with the reference.
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(argument: PrecisionArg) -> Self {
        match argument {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
        }
    }
}

/// Where engines may come from besides the weights inside the program.
pub(crate) struct Places<'a> {
    pub(crate) weights: &'a WeightsArg,
    pub(crate) data: &'a DataArg,
    pub(crate) remote: Remote,
    /// Ranges that are not public from which a provider's results may be fetched.
    pub(crate) allowed: &'a [IpRange],
}

/// Loads the engine for an app. A folder with a model in it is taken as it is; a folder of folders is searched for
/// the app's models. An app that a provider serves needs no weights.
pub(crate) fn engine_for(app: &App, places: Places<'_>) -> Result<Box<dyn Engine>, Failure> {
    let registry = hub::registry::built_in();
    let has_provider = |model: &ModelId| registry.get(model).is_some_and(|entry| entry.provider.is_some());
    match &places.weights.dir {
        _ if app.models.iter().any(has_provider) => from_shelf(app, places, registry),
        Some(folder) if !folder.is_dir() => Err(Failure::because(format!("{}: no such folder", folder.display()))),
        Some(folder) if folder.join(INDEX_FILE).is_file() => {
            pipelines::load_folder(folder.to_owned(), folder_name(folder)).map_err(Failure::because)
        }
        _ => from_shelf(app, places, registry),
    }
}

fn from_shelf(app: &App, places: Places<'_>, registry: Registry) -> Result<Box<dyn Engine>, Failure> {
    let Places { weights, data, remote, allowed } = places;
    let shelf = weights.shelf(data, &registry)?.with_remote(&remote.providers(), &registry);
    let model = shelf.usable(&app.models, &registry).map_err(Failure::because)?;
    let local = Engines::new(shelf, registry.clone());
    let sources = Sources { local, remote, registry, allowed: allowed.to_vec() };
    sources.load(&model).map_err(Failure::because)
}

/// What a folder's pictures are signed with.
fn folder_name(folder: &Path) -> ModelId {
    let canonical = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = canonical.file_name().and_then(|name| name.to_str()).and_then(ModelId::parse);
    name.unwrap_or_else(|| ModelId::parse("weights").expect("a valid id, this is a bug"))
}
