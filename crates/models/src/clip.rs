//! CLIP's text encoder (Radford et al., arXiv:2103.00020; transformers 5.23.0, `models/clip/modeling_clip.py`).

use crate::encoder::{EncoderLayer, LayerForm};
use candle_core::Tensor;
use nn::attention::Mask;
use nn::embedding::Embedding;
use nn::linear::Linear;
use nn::norm::LayerNorm;
use nn::{Activation, Error, Result, Weights};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
    #[serde(default = "legacy_eos_token_id")]
    pub eos_token_id: u32,
}

/// The activations that CLIP checkpoints name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    QuickGelu,
    Gelu,
}

impl HiddenAct {
    fn activation(self) -> Activation {
        match self {
            Self::QuickGelu => Activation::QuickGelu,
            Self::Gelu => Activation::GeluErf,
        }
    }
}

/// What the reference assumes of a file that leaves it out.
fn projection_dim() -> usize {
    512
}

/// What old checkpoints carry, and what means: the highest token is the end of the text.
fn legacy_eos_token_id() -> u32 {
    2
}

pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
}

/// What a text becomes.
pub struct ClipText {
    /// `(1, tokens, hidden)`, after the final norm.
    pub last_hidden: Tensor,
    /// `(1, tokens, hidden)`: what the last layer is given, without the final norm.
    pub penultimate: Tensor,
    /// `(1, hidden)`: the last hidden state at the end of the text; `(1, projection_dim)` if the model projects it.
    pub pooled: Tensor,
}

impl ClipTextModel {
    /// Without a projection of the pooled output, even if the checkpoint has one.
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        weights.skip("text_projection");
        // Newer exporters leave out the prefix; buffers of positions come from older ones.
        let text_model = if weights.has("text_model") { weights.at("text_model") } else { weights.clone() };
        let embeddings = text_model.at("embeddings");
        embeddings.skip("position_ids");
        let n = config.hidden_size;
        let form = LayerForm {
            hidden: n,
            inner: config.intermediate_size,
            n_heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: config.hidden_act.activation(),
            mask: Mask::Causal,
        };
        Ok(Self {
            token_embedding: Embedding::new(&embeddings.at("token_embedding"), config.vocab_size, n)?,
            position_embedding: Embedding::new(
                &embeddings.at("position_embedding"),
                config.max_position_embeddings,
                n,
            )?,
            layers: EncoderLayer::stack(form, config.num_hidden_layers, &text_model.at("encoder.layers"))?,
            final_layer_norm: LayerNorm::new(&text_model.at("final_layer_norm"), n, config.layer_norm_eps)?,
            text_projection: None,
            eos_token_id: config.eos_token_id,
        })
    }

    /// transformers' `CLIPTextModelWithProjection`.
    pub fn with_projection(config: &Config, weights: &Weights) -> Result<Self> {
        let (n, projected) = (config.hidden_size, config.projection_dim);
        let text_projection = Linear::without_bias(&weights.at("text_projection"), n, projected)?;
        Ok(Self { text_projection: Some(text_projection), ..Self::new(config, weights)? })
    }

    /// Encodes one padded text; every token is attended to causally, padding included.
    pub fn forward(&self, tokens: &[u32]) -> Result<ClipText> {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let mut hidden = (self.token_embedding.forward(tokens)? + self.position_embedding.forward(&positions)?)?;
        let mut penultimate = hidden.clone();
        for layer in &self.layers {
            penultimate = hidden;
            hidden = layer.forward(&penultimate)?;
        }
        let last_hidden = self.final_layer_norm.forward(&hidden)?;
        let mut pooled = last_hidden.narrow(1, self.end_of_text(tokens)?, 1)?.squeeze(1)?.contiguous()?;
        if let Some(text_projection) = &self.text_projection {
            pooled = text_projection.forward(&pooled)?;
        }
        Ok(ClipText { last_hidden, penultimate, pooled })
    }

    /// Where the text ends: at the first end token, or in old checkpoints at the first highest token.
    fn end_of_text(&self, tokens: &[u32]) -> Result<usize> {
        let end = match self.eos_token_id {
            id if id == legacy_eos_token_id() => tokens.iter().max().copied(),
            id => Some(id),
        };
        let position = tokens.iter().position(|token| Some(*token) == end);
        position.ok_or_else(|| Error::Shape("a CLIP text has no end token".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::{Value, json};

    const TOKENS: [u32; 6] = [3, 7, 5, 1, 11, 4];

    fn config(hidden_act: &str) -> Value {
        json!({
            "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 8, "hidden_act": hidden_act, "layer_norm_eps": 1e-5,
            "projection_dim": 6,
        })
    }

    /// The worst of all the outputs.
    fn off(case: &str, config: Value) -> f32 {
        let fixture = Fixture::open("towers.safetensors", &format!("clip.{case}"));
        let config = serde_json::from_value(config).unwrap();
        let text = ClipTextModel::with_projection(&config, &fixture.weights).unwrap().forward(&TOKENS).unwrap();
        let outputs =
            [("penultimate", &text.penultimate), ("last_hidden", &text.last_hidden), ("pooled", &text.pooled)];
        outputs.map(|(role, ours)| fixture.off(role, ours)).into_iter().fold(0.0, f32::max)
    }

    #[test]
    fn its_norms_have_their_epsilon_and_its_gelu_the_flavor_that_is_named() {
        for (case, hidden_act) in [("norms", "gelu"), ("gelu", "gelu"), ("quick_gelu", "quick_gelu")] {
            let worst = off(case, config(hidden_act));
            assert!(worst < 1e-5, "{case} is off by {worst:e}");
        }
        let mut other = config("gelu");
        other["layer_norm_eps"] = json!(1e-6);
        assert!(off("norms", other) > 1e-3, "the fixture shows no epsilon");
        assert!(off("gelu", config("quick_gelu")) > 1e-3, "the fixture shows no GELU");
        assert!(off("quick_gelu", config("gelu")) > 1e-3, "the fixture shows no GELU");
    }

    #[test]
    fn without_a_projection_the_pooled_output_is_a_hidden_state() {
        let fixture = Fixture::open("towers.safetensors", "clip.gelu");
        let config = serde_json::from_value(config("gelu")).unwrap();
        let text = ClipTextModel::new(&config, &fixture.weights).unwrap().forward(&TOKENS).unwrap();
        assert_eq!(text.pooled.dims(), [1, 16]);
    }

    #[test]
    fn the_prefix_of_published_checkpoints_may_be_missing() {
        let fixture = Fixture::open("towers.safetensors", "clip.gelu");
        let config = serde_json::from_value(config("gelu")).unwrap();
        let text = ClipTextModel::new(&config, &fixture.weights.at("text_model")).unwrap().forward(&TOKENS).unwrap();
        assert!(fixture.off("last_hidden", &text.last_hidden) < 1e-5);
    }
}
