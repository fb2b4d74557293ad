//! Where a command's engine comes from: the weights of `--weights`, those that were pulled, those inside the program, or
//! a provider.

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::remote::{Remote, Sources};
use domain::catalogue::App;
use domain::id::ModelId;
use engine::{Engine, EngineSource};
use hub::error::HubError;
use hub::installed::{self, INDEX_FILE, Shelf, has_loose_weights};
use hub::registry::Registry;
use ingest::IpRange;
use pipelines::assembly::Lora;
use pipelines::{Engines, Residency};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Below the data folder.
const WEIGHTS_DIR: &str = "weights";

/// The `--weights` option, which several commands share.
#[derive(clap::Args)]
pub(crate) struct WeightsArg {
    /// A folder of models, each a folder or a file (docs/weights.md), or one model's own [default: `weights` in the data
    /// folder, beside the model inside this program]
    #[arg(id = "weights", long, value_name = "PATH", env = "PENTIMENTO_WEIGHTS", global = true)]
    dir: Option<PathBuf>,
}

impl WeightsArg {
    /// Where a pull puts models, whether or not there is anything yet.
    pub(crate) fn dir(&self, data: &DataArg) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| data.dir().join(WEIGHTS_DIR))
    }

    pub(crate) fn shelf(&self, data: &DataArg, registry: &Registry) -> Result<Shelf, Failure> {
        let usual = data.dir().join(WEIGHTS_DIR);
        let told = |shelf: Shelf| if data.is_given() { shelf.filled_by(" --data DIR") } else { shelf };
        let shelf = match &self.dir {
            Some(dir) => Shelf::open(dir, registry),
            None if usual.is_dir() => Shelf::open_usual(&usual, registry).map(told),
            None => Ok(told(Shelf::embedded())),
        };
        shelf.map_err(|error| Failure::caused_by(&error))
    }
}

/// Where engines may come from besides the weights inside the program, and what changes them.
pub(crate) struct Places<'a> {
    pub(crate) weights: &'a WeightsArg,
    pub(crate) data: &'a DataArg,
    pub(crate) loras: &'a [Lora],
    pub(crate) residency: Arc<Residency>,
    pub(crate) remote: Remote,
    /// Ranges that are not public from which a provider's results may be fetched.
    pub(crate) allowed: &'a [IpRange],
}

/// Loads the engine for an app. A file, or a folder with a model in it, is taken as it is; a folder of models is
/// searched for the app's. An app that a provider serves needs no weights.
pub(crate) fn engine_for(app: &App, places: Places<'_>) -> Result<Box<dyn Engine>, Failure> {
    let registry = hub::registry::built_in();
    let has_provider = |model: &ModelId| registry.get(model).is_some_and(|entry| entry.provider.is_some());
    let is_remote = app.models.iter().any(has_provider);
    if is_remote && !places.loras.is_empty() {
        return Err(Failure::usage(format!(
            "--lora: {} is painted by a provider, whose weights are its own",
            app.slug
        )));
    }
    let shelf = || places.weights.shelf(places.data, &registry);
    let shelf = match &places.weights.dir {
        Some(path) if !path.exists() => {
            return Err(Failure::because(format!("{}: no such file or folder", path.display())));
        }
        Some(path) if !is_remote && (path.join(INDEX_FILE).is_file() || path.is_file()) => {
            return from_path(path, &places, &registry);
        }
        Some(path) if !is_remote && has_loose_weights(path) => match shelf()? {
            shelf if shelf.has_any(&app.models) => shelf,
            // Not named by the app's models, so rather the loose files of one model.
            _ => return from_path(path, &places, &registry),
        },
        _ => shelf()?,
    };
    from_shelf(app, shelf, places, registry)
}

fn from_path(path: &Path, places: &Places<'_>, registry: &Registry) -> Result<Box<dyn Engine>, Failure> {
    if path.is_dir() && !installed::is_complete(path) {
        return Err(Failure::caused_by(&HubError::Incomplete(path.to_owned())));
    }
    pipelines::load_weights(path, name_of(path, registry), places.loras, &places.residency).map_err(Failure::because)
}

fn from_shelf(app: &App, shelf: Shelf, places: Places<'_>, registry: Registry) -> Result<Box<dyn Engine>, Failure> {
    let Places { remote, allowed, loras, residency, .. } = places;
    let shelf = shelf.with_remote(&remote.providers(), &registry);
    let model = shelf.usable(&app.models, &registry).map_err(Failure::because)?;
    let local = Engines::new(shelf, registry.clone(), residency).changed_by(loras.to_vec());
    let sources = Sources { local, remote, registry, allowed: allowed.to_vec() };
    sources.load(&model).map_err(Failure::because)
}

/// `FILE` or `FILE:SCALE`.
pub(crate) fn lora(text: &str) -> Result<Lora, String> {
    const SCALE_MAX: f64 = 10.0;
    let named = text.rsplit_once(':').and_then(|(file, scale)| Some((file, scale.parse::<f64>().ok()?)));
    let (file, scale) = named.unwrap_or((text, 1.0));
    if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
        return Err(format!("the scale is {scale}; allowed: -{SCALE_MAX} to {SCALE_MAX}"));
    }
    if file.is_empty() { Err("allowed: FILE or FILE:SCALE".to_owned()) } else { Ok(Lora { file: file.into(), scale }) }
}

/// What the pictures of a folder or a file are signed with.
fn name_of(path: &Path, registry: &Registry) -> ModelId {
    let unknown = || path.canonicalize().ok().and_then(|path| installed::name_of(&path));
    let name = installed::named_after(path, registry).or_else(unknown);
    name.unwrap_or_else(|| ModelId::parse("weights").expect("a valid id, this is a bug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_has_a_scale_if_a_number_ends_it() {
        let check = |text: &str, file: &str, scale: f64| assert_eq!(lora(text), Ok(Lora { file: file.into(), scale }));
        check("style.safetensors", "style.safetensors", 1.0);
        check("style.safetensors:0.5", "style.safetensors", 0.5);
        check("style.safetensors:-1", "style.safetensors", -1.0);
        check("C:/style.safetensors", "C:/style.safetensors", 1.0);
        for text in ["a:11", "a:nan", "a:inf", ":1", ""] {
            assert!(lora(text).is_err(), "{text}");
        }
    }
}
