//! The embedding of time, guidance and pooled text: FLUX's `vec`.

use super::{Config, Input};
use crate::embed::EmbeddingMlp;
use candle_core::Tensor;
use nn::embedding::timestep_embedding;
use nn::{Error, Result, Weights};

/// Elements of a sinusoidal embedding.
const N_SINUSOIDS: usize = 256;
/// Time and guidance are embedded in thousandths.
const THOUSAND: f32 = 1000.0;

#[expect(clippy::struct_field_names, reason = "the fields are named as the checkpoint names them")]
pub(super) struct TimeTextEmbed {
    timestep_embedder: EmbeddingMlp,
    /// Only in models distilled from guidance.
    guidance_embedder: Option<EmbeddingMlp>,
    text_embedder: EmbeddingMlp,
}

impl TimeTextEmbed {
    pub(super) fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let n = config.hidden();
        let guidance = || EmbeddingMlp::new(&weights.at("guidance_embedder"), N_SINUSOIDS, n);
        Ok(Self {
            timestep_embedder: EmbeddingMlp::new(&weights.at("timestep_embedder"), N_SINUSOIDS, n)?,
            guidance_embedder: config.guidance_embeds.then(guidance).transpose()?,
            text_embedder: EmbeddingMlp::new(&weights.at("text_embedder"), config.pooled_projection_dim, n)?,
        })
    }

    /// # Shapes
    /// - output: `(b, hidden)`
    pub(super) fn forward(&self, input: &Input<'_>) -> Result<Tensor> {
        let mut vec = self.timestep_embedder.forward(&timestep_embedding(input.timestep * THOUSAND, N_SINUSOIDS)?)?;
        match (&self.guidance_embedder, input.guidance) {
            (Some(embedder), Some(guidance)) => {
                vec = (vec + embedder.forward(&timestep_embedding(guidance * THOUSAND, N_SINUSOIDS)?)?)?;
            }
            (None, None) => {}
            (Some(_), None) => return Err(Error::Shape("this model needs a guidance scale".to_owned())),
            (None, Some(_)) => return Err(Error::Shape("this model embeds no guidance scale".to_owned())),
        }
        Ok(vec.broadcast_add(&self.text_embedder.forward(input.pooled)?)?)
    }
}
