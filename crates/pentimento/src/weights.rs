//! Which engine a command paints with: the weights of `--weights`, or those inside the program.

use crate::failure::Failure;
use domain::catalogue::App;
use domain::id::ModelId;
use engine::{Engine, EngineSource};
use hub::installed::{INDEX_FILE, Shelf};
use pipelines::{Engines, Precision};
use std::path::Path;

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

/// Loads the engine for an app. A folder with a model in it is taken as it is; a folder of folders is searched for
/// the app's models.
pub(crate) fn engine_for(app: &App, weights: Option<&Path>) -> Result<Box<dyn Engine>, Failure> {
    match weights {
        Some(folder) if !folder.is_dir() => Err(Failure::because(format!("{}: no such folder", folder.display()))),
        Some(folder) if folder.join(INDEX_FILE).is_file() => {
            pipelines::load_folder(folder.to_owned(), folder_name(folder)).map_err(Failure::because)
        }
        _ => from_shelf(app, weights),
    }
}

fn from_shelf(app: &App, weights: Option<&Path>) -> Result<Box<dyn Engine>, Failure> {
    let registry = hub::registry::built_in();
    let shelf = match weights {
        None => Shelf::embedded(),
        Some(folder) => Shelf::open(folder, &registry).map_err(Failure::because)?,
    };
    let model = shelf.usable(&app.models, &registry).map_err(Failure::because)?;
    Engines::new(shelf, registry).load(&model).map_err(Failure::because)
}

/// What a folder's pictures are signed with.
fn folder_name(folder: &Path) -> ModelId {
    let canonical = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = canonical.file_name().and_then(|name| name.to_str()).and_then(ModelId::parse);
    name.unwrap_or_else(|| ModelId::parse("weights").expect("a valid id, this is a bug"))
}
