//! CLIP's text encoder (Radford et al., arXiv:2103.00020; transformers 5.23.0, `models/clip/modeling_clip.py`).

use candle_core::Tensor;
use nn::attention::{Heads, Mask, attend};
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

/// What old checkpoints carry, and what means: the highest token is the end of the text.
fn legacy_eos_token_id() -> u32 {
    2
}

pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    eos_token_id: u32,
}

/// What a text becomes.
pub struct ClipText {
    /// `(1, tokens, hidden)`, after the final norm.
    pub last_hidden: Tensor,
    /// `(1, hidden)`: the last hidden state at the end of the text.
    pub pooled: Tensor,
}

struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: SelfAttention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    n_heads: usize,
    head_dim: usize,
}

impl ClipTextModel {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        // Newer exporters leave out the prefix; buffers of positions come from older ones.
        let text_model = if weights.has("text_model") { weights.at("text_model") } else { weights.clone() };
        let embeddings = text_model.at("embeddings");
        embeddings.skip("position_ids");
        weights.skip("text_projection");
        let n = config.hidden_size;
        let layers = text_model.at("encoder").at("layers");
        Ok(Self {
            token_embedding: Embedding::new(&embeddings.at("token_embedding"), config.vocab_size, n)?,
            position_embedding: Embedding::new(
                &embeddings.at("position_embedding"),
                config.max_position_embeddings,
                n,
            )?,
            layers: (0..config.num_hidden_layers)
                .map(|idx| EncoderLayer::new(config, &layers.at(idx)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(&text_model.at("final_layer_norm"), n, config.layer_norm_eps)?,
            eos_token_id: config.eos_token_id,
        })
    }

    /// Encodes one padded text; every token is attended to causally, padding included.
    pub fn forward(&self, tokens: &[u32]) -> Result<ClipText> {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let mut hidden = (self.token_embedding.forward(tokens)? + self.position_embedding.forward(&positions)?)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden)?;
        }
        let last_hidden = self.final_layer_norm.forward(&hidden)?;
        let pooled = last_hidden.narrow(1, self.end_of_text(tokens)?, 1)?.squeeze(1)?.contiguous()?;
        Ok(ClipText { last_hidden, pooled })
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

impl EncoderLayer {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (n, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        Ok(Self {
            layer_norm1: LayerNorm::new(&weights.at("layer_norm1"), n, eps)?,
            self_attn: SelfAttention::new(config, &weights.at("self_attn"))?,
            layer_norm2: LayerNorm::new(&weights.at("layer_norm2"), n, eps)?,
            fc1: Linear::new(&weights.at("mlp.fc1"), n, inner)?,
            fc2: Linear::new(&weights.at("mlp.fc2"), inner, n)?,
            activation: match config.hidden_act {
                HiddenAct::QuickGelu => Activation::QuickGelu,
                HiddenAct::Gelu => Activation::GeluErf,
            },
        })
    }

    /// # Shapes
    /// - x, output: `(1, tokens, hidden)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(&self.layer_norm1.forward(x)?)?)?;
        let inner = self.fc1.forward_activated(&self.layer_norm2.forward(&x)?, self.activation)?;
        Ok((&x + self.fc2.forward(&inner)?)?)
    }
}

impl SelfAttention {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let n = config.hidden_size;
        Ok(Self {
            q_proj: Linear::new(&weights.at("q_proj"), n, n)?,
            k_proj: Linear::new(&weights.at("k_proj"), n, n)?,
            v_proj: Linear::new(&weights.at("v_proj"), n, n)?,
            out_proj: Linear::new(&weights.at("out_proj"), n, n)?,
            n_heads: config.num_attention_heads,
            head_dim: n / config.num_attention_heads.max(1),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let heads = Heads { mask: Mask::Causal, ..Heads::plain(self.n_heads, self.head_dim) };
        let attended = attend(&self.q_proj.forward(x)?, &self.k_proj.forward(x)?, &self.v_proj.forward(x)?, heads)?;
        self.out_proj.forward(&attended)
    }
}
