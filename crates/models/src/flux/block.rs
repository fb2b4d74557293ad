//! FLUX's two kinds of blocks: two streams that meet in attention, then one stream of both.

use super::{Config, NORM_EPS, silu};
use candle_core::Tensor;
use nn::attention::{self, Heads, attend_jointly};
use nn::linear::{Input, Linear};
use nn::norm::{RmsNorm, gated_residual, modulated_layer_norm};
use nn::rope::Rope;
use nn::{Activation, Result, Weights};

/// Text and picture have weights of their own and attend together.
pub(super) struct DoubleStreamBlock {
    img: Stream,
    txt: Stream,
    heads: Heads<'static>,
}

/// Text and picture in one sequence; attention and feed-forward side by side.
pub(super) struct SingleStreamBlock {
    norm: Linear,
    projection: QkvProjection,
    proj_mlp: Linear,
    proj_out: Linear,
    heads: Heads<'static>,
}

impl DoubleStreamBlock {
    pub(super) fn new(config: &Config, weights: &Weights) -> Result<Self> {
        Ok(Self {
            img: Stream::new(config, weights, &IMG_KEYS)?,
            txt: Stream::new(config, weights, &TXT_KEYS)?,
            heads: heads(config, weights),
        })
    }

    /// # Shapes
    /// - img: `(b, img tokens, hidden)`; txt: `(b, txt tokens, hidden)`; vec: `(b, hidden)`; output: `(img, txt)`
    pub(super) fn forward(&self, img: &Tensor, txt: &Tensor, vec: &Tensor, pe: &Rope) -> Result<(Tensor, Tensor)> {
        let vec = silu(vec)?;
        let (img_attention, img_feed_forward) = self.img.modulation(&vec)?;
        let (txt_attention, txt_feed_forward) = self.txt.modulation(&vec)?;

        let img_qkv = self.img.projection.forward(&img_attention.apply(img)?)?;
        let txt_qkv = self.txt.projection.forward(&txt_attention.apply(txt)?)?;
        let streams = [self.txt.projection.normed(&txt_qkv), self.img.projection.normed(&img_qkv)];
        let attended = attend_jointly(&streams, pe, self.heads)?;
        let (n_txt, n_img) = (txt.dim(1)?, img.dim(1)?);

        let img_update = self.img.attention_out.forward(&attended.narrow(1, n_txt, n_img)?.contiguous()?)?;
        let img = gated_residual(img, &img_attention.gate, &img_update)?;
        let img_update = self.img.feed_forward.forward(&img_feed_forward.apply(&img)?)?;
        let img = gated_residual(&img, &img_feed_forward.gate, &img_update)?;

        let txt_update = self.txt.attention_out.forward(&attended.narrow(1, 0, n_txt)?.contiguous()?)?;
        let txt = gated_residual(txt, &txt_attention.gate, &txt_update)?;
        let txt_update = self.txt.feed_forward.forward(&txt_feed_forward.apply(&txt)?)?;
        let txt = gated_residual(&txt, &txt_feed_forward.gate, &txt_update)?;
        Ok((img, txt))
    }
}

impl SingleStreamBlock {
    pub(super) fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let n = config.hidden();
        Ok(Self {
            norm: Linear::new(&weights.at("norm.linear").with_exact_inputs(), n, 3 * n)?,
            projection: QkvProjection::new(config, &weights.at("attn"), &IMG_KEYS)?,
            proj_mlp: Linear::new(&weights.at("proj_mlp"), n, 4 * n)?,
            proj_out: Linear::new(&weights.at("proj_out"), 5 * n, n)?,
            heads: heads(config, weights),
        })
    }

    /// # Shapes
    /// - stream, output: `(b, txt + img tokens, hidden)`; vec: `(b, hidden)`
    pub(super) fn forward(&self, stream: &Tensor, vec: &Tensor, pe: &Rope) -> Result<Tensor> {
        let modulation = Modulation::of(&self.norm.forward(&silu(vec)?)?.chunk(3, 1)?);
        let modulated = modulation.apply(stream)?;

        let (qkv, mlp) = Input::read(&[&modulated], |modulated| {
            let qkv = self.projection.apply(modulated)?;
            Ok((qkv, self.proj_mlp.apply_activated(modulated, Activation::GeluTanh)?))
        })?;
        let attended = attend_jointly(&[self.projection.normed(&qkv)], pe, self.heads)?;

        let update = Input::read(&[&attended, &mlp], |joined| self.proj_out.apply(joined))?;
        gated_residual(stream, &modulation.gate, &update)
    }
}

fn heads(config: &Config, weights: &Weights) -> Heads<'static> {
    Heads::plain(config.num_attention_heads, config.attention_head_dim).in_precision(weights.precision())
}

/// What a double block holds for one of its two streams.
struct Stream {
    norm: Linear,
    projection: QkvProjection,
    attention_out: Linear,
    feed_forward: FeedForward,
}

impl Stream {
    fn new(config: &Config, weights: &Weights, keys: &Keys) -> Result<Self> {
        let n = config.hidden();
        let attention = weights.at("attn");
        Ok(Self {
            norm: Linear::new(&weights.at(keys.norm).with_exact_inputs(), n, 6 * n)?,
            projection: QkvProjection::new(config, &attention, keys)?,
            attention_out: Linear::new(&attention.at(keys.out), n, n)?,
            feed_forward: FeedForward::new(&weights.at(keys.feed_forward), n)?,
        })
    }

    /// The modulations of attention and of the feed-forward.
    fn modulation(&self, activated_vec: &Tensor) -> Result<(Modulation, Modulation)> {
        let chunks = self.norm.forward(activated_vec)?.chunk(6, 1)?;
        Ok((Modulation::of(&chunks[..3]), Modulation::of(&chunks[3..])))
    }
}

/// `(b, hidden)` each.
struct Modulation {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

impl Modulation {
    fn of(chunks: &[Tensor]) -> Self {
        Self { shift: chunks[0].clone(), scale: chunks[1].clone(), gate: chunks[2].clone() }
    }

    /// Layer norm, scale and shift; the gate comes after the layer.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        modulated_layer_norm(x, NORM_EPS, &self.scale, &self.shift)
    }
}

struct QkvProjection {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
}

/// `(b, tokens, hidden)` each; not yet normed nor rotated.
struct Qkv {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl QkvProjection {
    fn new(config: &Config, weights: &Weights, keys: &Keys) -> Result<Self> {
        let n = config.hidden();
        let linear = |name: &str| Linear::new(&weights.at(name), n, n);
        let norm = |name: &str| RmsNorm::new(&weights.at(name), config.attention_head_dim, NORM_EPS);
        Ok(Self {
            to_q: linear(keys.q)?,
            to_k: linear(keys.k)?,
            to_v: linear(keys.v)?,
            norm_q: norm(keys.norm_q)?,
            norm_k: norm(keys.norm_k)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Qkv> {
        Input::read(&[x], |x| self.apply(x))
    }

    /// [`QkvProjection::forward`] of an input that other layers read too.
    fn apply(&self, x: &Input<'_>) -> Result<Qkv> {
        Ok(Qkv { q: self.to_q.apply(x)?, k: self.to_k.apply(x)?, v: self.to_v.apply(x)? })
    }

    /// As attention takes them: with the norms of queries and keys, over each head.
    fn normed<'a>(&'a self, qkv: &'a Qkv) -> attention::Stream<'a> {
        attention::Stream { q: &qkv.q, k: &qkv.k, v: &qkv.v, norms: Some((&self.norm_q, &self.norm_k)) }
    }
}

struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(weights: &Weights, n: usize) -> Result<Self> {
        Ok(Self {
            proj: Linear::new(&weights.at("net.0.proj"), n, 4 * n)?,
            out: Linear::new(&weights.at("net.2"), 4 * n, n)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.proj.forward_activated(x, Activation::GeluTanh)?)
    }
}

/// How a checkpoint names the parts of a stream.
struct Keys {
    norm: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    norm_q: &'static str,
    norm_k: &'static str,
    out: &'static str,
    feed_forward: &'static str,
}

const IMG_KEYS: Keys = Keys {
    norm: "norm1.linear",
    q: "to_q",
    k: "to_k",
    v: "to_v",
    norm_q: "norm_q",
    norm_k: "norm_k",
    out: "to_out.0",
    feed_forward: "ff",
};

const TXT_KEYS: Keys = Keys {
    norm: "norm1_context.linear",
    q: "add_q_proj",
    k: "add_k_proj",
    v: "add_v_proj",
    norm_q: "norm_added_q",
    norm_k: "norm_added_k",
    out: "to_add_out",
    feed_forward: "ff_context",
};
