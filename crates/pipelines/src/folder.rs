//! `model_index.json`: which pipeline a folder holds.

use nn::files::ModelFiles;
use nn::{Error, Result};
use serde::Deserialize;

const FILE: &str = "model_index.json";

/// The pipelines that this version runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipeline {
    /// FLUX.1 dev, schnell and their like: the run starts from the noised reference.
    Flux,
    /// FLUX.1 Kontext: the run starts from noise, with the reference beside it in the sequence.
    FluxKontext,
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
}

impl Pipeline {
    pub(crate) fn of(files: &ModelFiles) -> Result<Self> {
        let malformed = |reason: String| Error::Malformed { path: files.display(FILE), reason };
        let index: ModelIndex =
            serde_json::from_str(&files.text(FILE)?).map_err(|error| malformed(error.to_string()))?;
        match index.class_name.as_str() {
            "FluxPipeline" | "FluxImg2ImgPipeline" => Ok(Self::Flux),
            "FluxKontextPipeline" => Ok(Self::FluxKontext),
            other => Err(malformed(format!(
                "the pipeline {other} cannot be run; known: FluxPipeline, FluxImg2ImgPipeline, FluxKontextPipeline"
            ))),
        }
    }
}
