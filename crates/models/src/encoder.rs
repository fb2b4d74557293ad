//! The layer that CLIP and SigLIP are stacks of: attention, then a feed-forward, each behind a layer norm and beside a
//! residual (Radford et al., arXiv:2103.00020; transformers 5.23.0, `CLIPEncoderLayer` and `SiglipEncoderLayer`).

use candle_core::Tensor;
use nn::attention::{Heads, Mask, attend};
use nn::linear::{Linear, forward_each};
use nn::norm::LayerNorm;
use nn::{Activation, Error, Result, Weights};

/// What one layer is, apart from its weights.
#[derive(Clone, Copy)]
pub(crate) struct LayerForm {
    pub(crate) hidden: usize,
    /// Of the feed-forward.
    pub(crate) inner: usize,
    pub(crate) n_heads: usize,
    /// Of both norms.
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
    pub(crate) mask: Mask<'static>,
}

pub(crate) struct EncoderLayer {
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
    heads: Heads<'static>,
}

impl EncoderLayer {
    /// All the layers below `weights`.
    pub(crate) fn stack(form: LayerForm, n_layers: usize, weights: &Weights) -> Result<Vec<Self>> {
        if form.n_heads == 0 || !form.hidden.is_multiple_of(form.n_heads) {
            return Err(Error::Shape(format!("{} hidden elements do not make {} heads", form.hidden, form.n_heads)));
        }
        (0..n_layers).map(|idx| Self::new(form, &weights.at(idx))).collect()
    }

    fn new(form: LayerForm, weights: &Weights) -> Result<Self> {
        let LayerForm { hidden: n, inner, eps, activation, .. } = form;
        Ok(Self {
            layer_norm1: LayerNorm::new(&weights.at("layer_norm1"), n, eps)?,
            self_attn: SelfAttention::new(form, &weights.at("self_attn"))?,
            layer_norm2: LayerNorm::new(&weights.at("layer_norm2"), n, eps)?,
            fc1: Linear::new(&weights.at("mlp.fc1"), n, inner)?,
            fc2: Linear::new(&weights.at("mlp.fc2"), inner, n)?,
            activation,
        })
    }

    /// # Shapes
    /// - x, output: `(1, tokens, hidden)`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = nn::add(x, &self.self_attn.forward(&self.layer_norm1.forward(x)?)?)?;
        let inner = self.fc1.forward_activated(&self.layer_norm2.forward(&x)?, self.activation)?;
        nn::add(&x, &self.fc2.forward(&inner)?)
    }
}

impl SelfAttention {
    fn new(form: LayerForm, weights: &Weights) -> Result<Self> {
        let n = form.hidden;
        Ok(Self {
            q_proj: Linear::new(&weights.at("q_proj"), n, n)?,
            k_proj: Linear::new(&weights.at("k_proj"), n, n)?,
            v_proj: Linear::new(&weights.at("v_proj"), n, n)?,
            out_proj: Linear::new(&weights.at("out_proj"), n, n)?,
            heads: Heads { mask: form.mask, ..Heads::plain(form.n_heads, n / form.n_heads) },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [q, k, v] = forward_each([&self.q_proj, &self.k_proj, &self.v_proj], x)?;
        self.out_proj.forward(&attend(&q, &k, &v, self.heads)?)
    }
}
