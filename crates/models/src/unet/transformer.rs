//! The transformers between a UNet's residual blocks: pixels attend to each other and to the text.

use candle_core::Tensor;
use nn::attention::{Heads, attend};
use nn::linear::{Linear, forward_each};
use nn::norm::{GroupNorm, LayerNorm};
use nn::{Activation, Result, Weights};

/// Of the norm in front of a transformer; the residual blocks' own differs.
const GROUP_NORM_EPS: f64 = 1e-6;
/// Of the norms inside it.
const LAYER_NORM_EPS: f64 = 1e-5;
/// How much wider the feed-forward is than a token.
const FEED_FORWARD: usize = 4;

/// What one transformer is, apart from its weights.
#[derive(Clone, Copy)]
pub(super) struct TransformerForm {
    pub(super) n_channels: usize,
    pub(super) n_groups: usize,
    pub(super) n_heads: usize,
    pub(super) n_layers: usize,
    /// Elements of a token of text.
    pub(super) text: usize,
}

/// diffusers' `Transformer2DModel` with linear projections.
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(super) fn new(form: TransformerForm, weights: &Weights) -> Result<Self> {
        let n = form.n_channels;
        let blocks = weights.at("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::new(&weights.at("norm"), form.n_groups, n, GROUP_NORM_EPS)?,
            proj_in: Linear::new(&weights.at("proj_in"), n, n)?,
            transformer_blocks: (0..form.n_layers)
                .map(|idx| TransformerBlock::new(form, &blocks.at(idx)))
                .collect::<Result<_>>()?,
            proj_out: Linear::new(&weights.at("proj_out"), n, n)?,
        })
    }

    /// # Shapes
    /// - x, output: `(b, channels, h, w)`; txt: `(b, tokens, text)`
    pub(super) fn forward(&self, x: &Tensor, txt: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let pixels = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // (b, h·w, c)
        let mut hidden = self.proj_in.forward(&pixels)?;
        for block in &self.transformer_blocks {
            hidden = block.forward(&hidden, txt)?;
        }
        let update = self.proj_out.forward(&hidden)?.transpose(1, 2)?.contiguous()?.reshape((b, c, h, w))?;
        nn::add(x, &update)
    }
}

/// diffusers' `BasicTransformerBlock`.
struct TransformerBlock {
    norm1: LayerNorm,
    /// Of the pixels among themselves.
    attn1: Attention,
    norm2: LayerNorm,
    /// Of the pixels to the text.
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl TransformerBlock {
    fn new(form: TransformerForm, weights: &Weights) -> Result<Self> {
        let n = form.n_channels;
        let inner = FEED_FORWARD * n;
        let norm = |name: &str| LayerNorm::new(&weights.at(name), n, LAYER_NORM_EPS);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(form, n, &weights.at("attn1"))?,
            norm2: norm("norm2")?,
            attn2: Attention::new(form, form.text, &weights.at("attn2"))?,
            norm3: norm("norm3")?,
            ff_in: Linear::new(&weights.at("ff.net.0.proj"), n, 2 * inner)?,
            ff_out: Linear::new(&weights.at("ff.net.2"), inner, n)?,
        })
    }

    /// # Shapes
    /// - x, output: `(b, pixels, channels)`; txt: `(b, tokens, text)`
    fn forward(&self, x: &Tensor, txt: &Tensor) -> Result<Tensor> {
        let x = nn::add(x, &self.attn1.forward(&self.norm1.forward(x)?, None)?)?;
        let x = nn::add(&x, &self.attn2.forward(&self.norm2.forward(&x)?, Some(txt))?)?;
        let inner = nn::gated(Activation::GeluErf, &self.ff_in.forward(&self.norm3.forward(&x)?)?)?;
        nn::add(&x, &self.ff_out.forward(&inner)?)
    }
}

struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: Heads<'static>,
}

impl Attention {
    /// Attends to tokens of `seen` elements.
    fn new(form: TransformerForm, seen: usize, weights: &Weights) -> Result<Self> {
        let n = form.n_channels;
        Ok(Self {
            to_q: Linear::without_bias(&weights.at("to_q"), n, n)?,
            to_k: Linear::without_bias(&weights.at("to_k"), seen, n)?,
            to_v: Linear::without_bias(&weights.at("to_v"), seen, n)?,
            to_out: Linear::new(&weights.at("to_out.0"), n, n)?,
            heads: Heads::plain(form.n_heads, n / form.n_heads).in_precision(weights.precision()),
        })
    }

    /// Attends to `seen`, or to itself.
    fn forward(&self, x: &Tensor, seen: Option<&Tensor>) -> Result<Tensor> {
        let [q, k, v] = match seen {
            None => forward_each([&self.to_q, &self.to_k, &self.to_v], x)?,
            Some(seen) => {
                let [k, v] = forward_each([&self.to_k, &self.to_v], seen)?;
                [self.to_q.forward(x)?, k, v]
            }
        };
        self.to_out.forward(&attend(&q, &k, &v, self.heads)?)
    }
}
