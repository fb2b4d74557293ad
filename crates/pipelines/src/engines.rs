//! Engines for the weights that are installed.

use crate::assembly::{self, Lora, Opened};
use crate::flux::FluxEngine;
use crate::folder::Pipeline;
use crate::residency::Residency;
use crate::sdxl::SdxlEngine;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource};
use hub::installed::{Installed, Shelf};
use hub::registry::Registry;
use nn::files::ModelFiles;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

/// The files that one engine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub own: ModelFiles,
    /// The model that these weights add to (Redux to FLUX.1).
    pub base: Option<ModelFiles>,
    /// A model that helps this one (a depth estimator).
    pub companion: Option<ModelFiles>,
}

/// Makes engines from a shelf of weights.
pub struct Engines {
    shelf: Shelf,
    registry: Registry,
    loras: Vec<Lora>,
    residency: Arc<Residency>,
    /// Of models that were asked for: whether they can be read, and are within the budget.
    verdicts: Mutex<BTreeMap<ModelId, Result<(), Unfit>>>,
}

/// Why an installed model cannot paint here.
#[derive(Clone)]
struct Unfit {
    /// For everybody.
    told: String,
    /// For the operator.
    why: String,
}

impl Engines {
    /// All of their components together stay within the budget of `residency`.
    pub fn new(shelf: Shelf, registry: Registry, residency: Arc<Residency>) -> Self {
        Self { shelf, registry, loras: Vec::new(), residency, verdicts: Mutex::default() }
    }

    /// The same, with these changes to the weights of every engine.
    #[must_use]
    pub fn changed_by(self, loras: Vec<Lora>) -> Self {
        Self { loras, ..self }
    }

    /// The first of these that is installed with all that it needs; otherwise one sentence that says what to do.
    pub fn usable(&self, models: &[ModelId]) -> Result<ModelId, String> {
        let model = self.shelf.usable(models, &self.registry)?;
        if self.shelf.is_remote(&model) {
            return Ok(model);
        }
        self.verdict(&model).map_err(|unfit| unfit.told)?;
        Ok(model)
    }

    /// Looks at every installed model now, so that no request waits while files are read, and tells which cannot paint here
    /// and why, in words that are for the operator alone.
    pub fn survey(&self) -> Vec<(ModelId, String)> {
        let whole = |model: &&ModelId| self.shelf.usable(slice::from_ref(*model), &self.registry).is_ok();
        let models = self.shelf.list().map(|(model, _)| model).filter(whole);
        models.filter_map(|model| Some((model.clone(), self.verdict(model).err()?.why))).collect()
    }

    /// Holds until the program starts anew, as what lies on the shelf does.
    fn verdict(&self, model: &ModelId) -> Result<(), Unfit> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.entry(model.clone()).or_insert_with(|| self.rehearse(model)).clone()
    }

    fn rehearse(&self, model: &ModelId) -> Result<(), Unfit> {
        let unusable =
            |why: String| Unfit { told: format!("the weights of {model} cannot be used on this server"), why };
        let parts = self.parts(model).map_err(|error| unusable(error.to_string()))?;
        match load(model.clone(), &parts, &self.residency.rehearsal()) {
            Ok(_) => Ok(()),
            Err(error @ nn::Error::OverBudget { .. }) => {
                let told = format!("{model} is too large for this server: {error}; --memory-budget sets it");
                Err(Unfit { why: told.clone(), told })
            }
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    fn parts(&self, model: &ModelId) -> Result<Parts, EngineError> {
        let parts = self.shelf.parts(model, &self.registry).map_err(EngineError::Weights)?;
        let base = parts.base.map(files_of).transpose()?;
        // One component alone, which nothing else has to be put beside.
        let companion = parts.companion.and_then(folder_of);
        let own = match opened(parts.own)? {
            Opened::Model(files) => files,
            Opened::Loras(files) => {
                let base = base.clone().ok_or_else(|| only_loras(&files))?;
                let loras: Vec<Lora> = files.into_iter().map(|file| Lora { file, scale: 1.0 }).collect();
                assembly::with_loras(base, &loras).map_err(unusable)?
            }
        };
        changed(Parts { own, base, companion }, &self.loras)
    }
}

impl EngineSource for Engines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        self.usable(models).ok()
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        load(model.clone(), &self.parts(model)?, &self.residency).map_err(unusable)
    }
}

/// An engine for the weights at a path, a folder or one file, whatever its name, with these changes to them.
pub fn load_weights(
    path: &Path,
    name: ModelId,
    loras: &[Lora],
    residency: &Arc<Residency>,
) -> Result<Box<dyn Engine>, EngineError> {
    let files = match assembly::open(path).map_err(unusable)? {
        Opened::Model(files) => files,
        Opened::Loras(files) => return Err(only_loras(&files)),
    };
    let parts = changed(Parts { own: files, base: None, companion: None }, loras)?;
    load(name, &parts, residency).map_err(unusable)
}

/// LoRAs change the model that denoises: a Redux has its base do that.
fn changed(parts: Parts, loras: &[Lora]) -> Result<Parts, EngineError> {
    if loras.is_empty() {
        return Ok(parts);
    }
    let with = |files: ModelFiles| assembly::with_loras(files, loras).map_err(unusable);
    match (Pipeline::of(&parts.own).map_err(unusable)?, parts.base) {
        (Pipeline::FluxRedux, Some(base)) => Ok(Parts { base: Some(with(base)?), ..parts }),
        (_, base) => Ok(Parts { own: with(parts.own)?, base, companion: parts.companion }),
    }
}

fn load(model: ModelId, parts: &Parts, residency: &Arc<Residency>) -> nn::Result<Box<dyn Engine>> {
    Ok(match Pipeline::of(&parts.own)? {
        Pipeline::Flux | Pipeline::FluxKontext | Pipeline::FluxControl | Pipeline::FluxRedux => {
            Box::new(FluxEngine::load(model, parts, residency)?)
        }
        Pipeline::Sdxl => Box::new(SdxlEngine::load(model, &parts.own, residency)?),
    })
}

fn unusable(error: nn::Error) -> EngineError {
    EngineError::Weights(error.to_string())
}

fn files_of(installed: &Installed) -> Result<ModelFiles, EngineError> {
    match opened(installed)? {
        Opened::Model(files) => Ok(files),
        Opened::Loras(files) => Err(only_loras(&files)),
    }
}

fn folder_of(installed: &Installed) -> Option<ModelFiles> {
    match installed {
        Installed::Folder(folder) => Some(ModelFiles::Folder(folder.clone())),
        Installed::File(_) | Installed::Embedded(_) => None,
    }
}

fn opened(installed: &Installed) -> Result<Opened, EngineError> {
    match installed {
        Installed::Folder(path) | Installed::File(path) => assembly::open(path).map_err(unusable),
        Installed::Embedded(files) => {
            let files = files.iter().map(|file| (file.path, file.bytes)).collect();
            Ok(Opened::Model(ModelFiles::Embedded(files)))
        }
    }
}

fn only_loras(files: &[PathBuf]) -> EngineError {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    EngineError::Weights(format!("{}: only a LoRA, which changes another model's weights", names.join(", ")))
}
