//! What a model folder says of how it wants to be run, and what holds where it is silent.

use nn::files::ModelFiles;
use nn::{Error, Result};
use serde::Deserialize;

/// Our own, optional file beside `model_index.json`.
const FILE: &str = "pentimento.json";

/// The defaults of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub strength: f64,
    pub steps: u32,
    pub guidance_scale: f64,
    /// True guidance above 1 with an absent negative prompt uses an empty one.
    pub true_cfg_scale: f64,
    pub max_sequence_length: u32,
    /// Side of the square that the model was trained on, pixels: larger pictures are painted at this area and their
    /// detail is brought back. `None`: any size is painted as it is.
    pub native_pixels: Option<u32>,
}

#[derive(Deserialize)]
struct Written {
    default_strength: Option<f64>,
    default_steps: Option<u32>,
    default_guidance_scale: Option<f64>,
    default_true_cfg_scale: Option<f64>,
    max_sequence_length: Option<u32>,
    native_pixels: Option<u32>,
}

impl Settings {
    /// What FLUX.1-dev was trained for, if the model embeds guidance; else what FLUX.1-schnell was.
    pub fn of_flux(guidance_embeds: bool) -> Self {
        let distilled = Self {
            strength: 0.7,
            steps: 28,
            guidance_scale: 3.5,
            true_cfg_scale: 1.0,
            max_sequence_length: 512,
            native_pixels: None,
        };
        if guidance_embeds { distilled } else { Self { steps: 4, max_sequence_length: 256, ..distilled } }
    }

    /// What FLUX.1 Canny was trained for. From noise alone, unless a plan has a strength.
    pub fn of_flux_control() -> Self {
        Self { strength: 1.0, steps: 50, guidance_scale: 30.0, ..Self::of_flux(true) }
    }

    /// What Stable Diffusion XL was trained for.
    pub fn of_sdxl() -> Self {
        Self {
            strength: 0.7,
            steps: 30,
            guidance_scale: 5.0,
            true_cfg_scale: 1.0,
            max_sequence_length: 77,
            native_pixels: None,
        }
    }

    /// What its distilled kin was trained for: a few steps without guidance.
    pub fn of_sdxl_turbo() -> Self {
        Self { steps: 4, guidance_scale: 1.0, ..Self::of_sdxl() }
    }

    /// These, where the folder does not say otherwise.
    pub fn overridden_by(self, files: &ModelFiles) -> Result<Self> {
        let Some(text) = files.optional_text(FILE)? else { return Ok(self) };
        let malformed = |reason: String| Error::Malformed { path: files.display(FILE), reason };
        let written: Written = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if written.native_pixels.is_some_and(|side| side < 64) {
            return Err(malformed("native_pixels: at least 64".to_owned()));
        }
        Ok(Self {
            strength: written.default_strength.unwrap_or(self.strength),
            steps: written.default_steps.unwrap_or(self.steps),
            guidance_scale: written.default_guidance_scale.unwrap_or(self.guidance_scale),
            true_cfg_scale: written.default_true_cfg_scale.unwrap_or(self.true_cfg_scale),
            max_sequence_length: written.max_sequence_length.unwrap_or(self.max_sequence_length),
            native_pixels: written.native_pixels.or(self.native_pixels),
        })
    }
}
