//! Engines for the weights that are installed.

use crate::flux::FluxEngine;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource};
use hub::installed::{Installed, Shelf};
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

/// Makes engines from a shelf of weights.
pub struct Engines {
    shelf: Shelf,
}

impl Engines {
    pub fn new(shelf: Shelf) -> Self {
        Self { shelf }
    }
}

impl EngineSource for Engines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        self.shelf.first_of(models).cloned()
    }

    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        let installed = self.shelf.find(model);
        let installed =
            installed.ok_or_else(|| EngineError::Weights(format!("no weights of {model} are installed")))?;
        Ok(Box::new(load(model.clone(), &files_of(installed))?))
    }
}

/// An engine for one model folder, whatever its name.
pub fn load_folder(folder: PathBuf, name: ModelId) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(load(name, &ModelFiles::Folder(folder))?))
}

fn load(model: ModelId, files: &ModelFiles) -> Result<FluxEngine, EngineError> {
    FluxEngine::load(model, files).map_err(|error| EngineError::Weights(error.to_string()))
}

fn files_of(installed: &Installed) -> ModelFiles {
    match installed {
        Installed::Folder(folder) => ModelFiles::Folder(folder.clone()),
        Installed::Embedded(files) => ModelFiles::Embedded(files.iter().map(|file| (file.path, file.bytes)).collect()),
    }
}
