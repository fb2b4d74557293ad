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
    /// FLUX.1 Canny and Depth: a control picture lies beside the noise, on channels of its own.
    FluxControl,
    /// FLUX.1 Redux: an addition to a folder of [`Pipeline::Flux`].
    FluxRedux,
    /// Stable Diffusion XL and every checkpoint of its shape.
    Sdxl,
}

#[derive(Deserialize)]
pub(crate) struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// SDXL: whether no negative prompt at all is embeddings of zero.
    #[serde(default = "yes")]
    pub(crate) force_zeros_for_empty_prompt: bool,
    /// SDXL: whether this is its refiner.
    #[serde(default)]
    pub(crate) requires_aesthetics_score: bool,
}

/// What the reference assumes of a file that leaves it out.
fn yes() -> bool {
    true
}

impl ModelIndex {
    pub(crate) fn read(files: &ModelFiles) -> Result<Self> {
        let malformed = |reason: String| Error::Malformed { path: Self::display(files), reason };
        serde_json::from_str(&files.text(FILE)?).map_err(|error| malformed(error.to_string()))
    }

    /// How errors name the file.
    pub(crate) fn display(files: &ModelFiles) -> String {
        files.display(FILE)
    }
}

impl Pipeline {
    pub(crate) fn of(files: &ModelFiles) -> Result<Self> {
        match ModelIndex::read(files)?.class_name.as_str() {
            "FluxPipeline" | "FluxImg2ImgPipeline" => Ok(Self::Flux),
            "FluxKontextPipeline" => Ok(Self::FluxKontext),
            "FluxControlPipeline" | "FluxControlImg2ImgPipeline" => Ok(Self::FluxControl),
            "FluxPriorReduxPipeline" => Ok(Self::FluxRedux),
            "StableDiffusionXLPipeline" | "StableDiffusionXLImg2ImgPipeline" => Ok(Self::Sdxl),
            other => {
                let reason = format!(
                    "the pipeline {other} cannot be run; known: FluxPipeline, FluxImg2ImgPipeline, FluxKontextPipeline, \
                     FluxControlPipeline, FluxControlImg2ImgPipeline, FluxPriorReduxPipeline, \
                     StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline"
                );
                Err(Error::Malformed { path: ModelIndex::display(files), reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn of(json: &'static str) -> Result<Pipeline> {
        Pipeline::of(&ModelFiles::Embedded(Arc::from([(FILE, json.as_bytes())])))
    }

    #[test]
    fn a_pipeline_is_known_by_its_class_and_any_other_refused_by_name() {
        assert_eq!(of(r#"{"_class_name": "FluxControlPipeline"}"#).unwrap(), Pipeline::FluxControl);
        assert_eq!(of(r#"{"_class_name": "FluxControlImg2ImgPipeline"}"#).unwrap(), Pipeline::FluxControl);
        assert_eq!(of(r#"{"_class_name": "FluxPriorReduxPipeline"}"#).unwrap(), Pipeline::FluxRedux);
        for class in [r#"{"_class_name": "FluxControlInpaintPipeline"}"#, r#"{"_class_name": "FluxFillPipeline"}"#] {
            let error = of(class).unwrap_err().to_string();
            let name = class.split('"').nth(3).unwrap();
            assert!(error.contains(&format!("{name} cannot be run; known: FluxPipeline")), "{error}");
        }
        assert!(of("{}").is_err());
    }
}
