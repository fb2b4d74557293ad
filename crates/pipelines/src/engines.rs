//! Engines for the weights that are installed.

use crate::assembly::{self, Lora, Opened};
use crate::flux::FluxEngine;
use crate::folder::Pipeline;
use crate::sdxl::SdxlEngine;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource};
use hub::installed::{Installed, Shelf};
use hub::registry::Registry;
use nn::files::ModelFiles;
use std::path::{Path, PathBuf};

/// The number format that layers compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The best that this version has: today the same as `F32`.
    #[default]
    Auto,
    F32,
}

impl Precision {
    pub const ALL: [Self; 2] = [Self::Auto, Self::F32];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
        }
    }
}

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
}

impl Engines {
    pub fn new(shelf: Shelf, registry: Registry) -> Self {
        Self { shelf, registry, loras: Vec::new() }
    }

    /// The same, with these changes to the weights of every engine.
    #[must_use]
    pub fn changed_by(self, loras: Vec<Lora>) -> Self {
        Self { loras, ..self }
    }
}

impl EngineSource for Engines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        self.shelf.usable(models, &self.registry).ok()
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
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
        load(model.clone(), changed(Parts { own, base, companion }, &self.loras)?)
    }
}

/// An engine for the weights at a path, a folder or one file, whatever its name, with these changes to them.
pub fn load_weights(path: &Path, name: ModelId, loras: &[Lora]) -> Result<Box<dyn Engine>, EngineError> {
    let files = match assembly::open(path).map_err(unusable)? {
        Opened::Model(files) => files,
        Opened::Loras(files) => return Err(only_loras(&files)),
    };
    load(name, changed(Parts { own: files, base: None, companion: None }, loras)?)
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

fn load(model: ModelId, parts: Parts) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match Pipeline::of(&parts.own).map_err(unusable)? {
        Pipeline::Flux | Pipeline::FluxKontext | Pipeline::FluxControl | Pipeline::FluxRedux => {
            Box::new(FluxEngine::load(model, &parts).map_err(unusable)?)
        }
        Pipeline::Sdxl => Box::new(SdxlEngine::load(model, &parts.own).map_err(unusable)?),
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
