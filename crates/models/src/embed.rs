//! The two-layer embedding of time, guidance, size or pooled text (diffusers 0.42.1, `TimestepEmbedding`).

use candle_core::Tensor;
use nn::linear::Linear;
use nn::{Activation, Result, Weights};

pub(crate) struct EmbeddingMlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl EmbeddingMlp {
    pub(crate) fn new(weights: &Weights, inputs: usize, n: usize) -> Result<Self> {
        // One row, which every block is modulated by.
        let weights = weights.clone().with_exact_inputs();
        Ok(Self {
            linear_1: Linear::new(&weights.at("linear_1"), inputs, n)?,
            linear_2: Linear::new(&weights.at("linear_2"), n, n)?,
        })
    }

    /// # Shapes
    /// - x: `(b, inputs)`; output: `(b, n)`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.linear_1.forward_activated(x, Activation::Silu)?)
    }
}
