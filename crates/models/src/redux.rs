//! FLUX.1 Redux's embedder: what a vision tower saw, as tokens among those of the text (Black Forest Labs, 2024;
//! diffusers 0.42.1, `pipelines/flux/modeling_flux.py`).

use candle_core::Tensor;
use nn::linear::Linear;
use nn::{Activation, Result, Weights};
use serde::Deserialize;

/// What a configuration leaves out has the value of the published model.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Of the vision tower.
    #[serde(default = "redux_dim")]
    pub redux_dim: usize,
    /// Of the transformer's text.
    #[serde(default = "txt_in_features")]
    pub txt_in_features: usize,
}

fn redux_dim() -> usize {
    1152
}

fn txt_in_features() -> usize {
    4096
}

pub struct ReduxImageEncoder {
    redux_up: Linear,
    redux_down: Linear,
}

impl ReduxImageEncoder {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let Config { redux_dim, txt_in_features: n } = *config;
        Ok(Self {
            redux_up: Linear::new(&weights.at("redux_up"), redux_dim, 3 * n)?,
            redux_down: Linear::new(&weights.at("redux_down"), 3 * n, n)?,
        })
    }

    /// # Shapes
    /// - hidden: `(1, tokens, redux_dim)`; output: `(1, tokens, txt_in_features)`
    pub fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        self.redux_down.forward(&self.redux_up.forward_activated(hidden, Activation::Silu)?)
    }
}
