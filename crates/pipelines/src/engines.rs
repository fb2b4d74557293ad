//! Engines for the weights that are installed.

use crate::flux::FluxEngine;
use crate::folder::Pipeline;
use crate::sdxl::SdxlEngine;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource};
use hub::installed::{Installed, Shelf};
use hub::registry::Registry;
use nn::files::ModelFiles;
use std::path::PathBuf;

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
}

impl Engines {
    pub fn new(shelf: Shelf, registry: Registry) -> Self {
        Self { shelf, registry }
    }
}

impl EngineSource for Engines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        self.shelf.usable(models, &self.registry).ok()
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        let parts = self.shelf.parts(model, &self.registry).map_err(EngineError::Weights)?;
        let parts = Parts {
            own: files_of(parts.own),
            base: parts.base.map(files_of),
            companion: parts.companion.map(files_of),
        };
        load(model.clone(), &parts)
    }
}

/// An engine for one model folder, whatever its name.
pub fn load_folder(folder: PathBuf, name: ModelId) -> Result<Box<dyn Engine>, EngineError> {
    load(name, &Parts { own: ModelFiles::Folder(folder), base: None, companion: None })
}

fn load(model: ModelId, parts: &Parts) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match Pipeline::of(&parts.own).map_err(unusable)? {
        Pipeline::Flux | Pipeline::FluxKontext | Pipeline::FluxControl | Pipeline::FluxRedux => {
            Box::new(FluxEngine::load(model, parts).map_err(unusable)?)
        }
        Pipeline::Sdxl => Box::new(SdxlEngine::load(model, &parts.own).map_err(unusable)?),
    })
}

fn unusable(error: nn::Error) -> EngineError {
    EngineError::Weights(error.to_string())
}

fn files_of(installed: &Installed) -> ModelFiles {
    match installed {
        Installed::Folder(folder) => ModelFiles::Folder(folder.clone()),
        Installed::Embedded(files) => ModelFiles::Embedded(files.iter().map(|file| (file.path, file.bytes)).collect()),
    }
}
