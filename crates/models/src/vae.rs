//! The convolutional autoencoder of FLUX and SDXL (Rombach et al., arXiv:2112.10752; diffusers 0.42.1,
//! `models/autoencoders/autoencoder_kl.py`).

use crate::resnet::{ResnetBlock, ResnetForm};
use crate::tiles::{Scale, Tiles};
use candle_core::{D, Tensor};
use nn::attention::{Heads, attend};
use nn::conv::{Conv2d, Form, Padding};
use nn::linear::{Linear, forward_each};
use nn::norm::GroupNorm;
use nn::{Error, Result, Weights};
use serde::Deserialize;

/// Of every group norm; with 1e-5 a result still looks right and is not.
const NORM_EPS: f64 = 1e-6;

/// Blocks nearest to the picture: their layers are the large ones, see no further than a few latents, and can be computed
/// tile by tile. What is within them sees all of the picture.
const N_OUTER: usize = 2;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub in_channels: usize,
    pub out_channels: usize,
    pub latent_channels: usize,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub norm_num_groups: usize,
    pub scaling_factor: f64,
    #[serde(default)]
    pub shift_factor: Option<f64>,
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Of latents that are normalized channel by channel, which nothing here does.
    #[serde(default)]
    latents_mean: Option<Vec<f64>>,
}

fn yes() -> bool {
    true
}

impl Config {
    /// Pixels per latent, on each side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len().max(1) - 1)
    }

    fn check(&self) -> Result<()> {
        if self.block_out_channels.is_empty() || self.block_out_channels.len() > 8 {
            return Err(Error::Shape(format!("an autoencoder of {} blocks", self.block_out_channels.len())));
        }
        if self.latents_mean.is_some() {
            return Err(Error::Shape("latents_mean: got some; allowed: null".to_owned()));
        }
        Ok(())
    }

    fn last_channels(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or_default()
    }
}

/// A diagonal Gaussian over latents, before scaling.
pub struct LatentDistribution {
    /// `(b, latent_channels, h, w)`
    pub mean: Tensor,
    /// `(b, latent_channels, h, w)`, clamped to -30 to 20.
    pub logvar: Tensor,
}

pub struct Autoencoder {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}

impl Autoencoder {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.check()?;
        let c = config.latent_channels;
        let quant_conv = config.use_quant_conv.then(|| pointwise(&weights.at("quant_conv"), 2 * c));
        let post_quant_conv = config.use_post_quant_conv.then(|| pointwise(&weights.at("post_quant_conv"), c));
        Ok(Self {
            encoder: Encoder::new(config, &weights.at("encoder"))?,
            decoder: Decoder::new(config, &weights.at("decoder"))?,
            quant_conv: quant_conv.transpose()?,
            post_quant_conv: post_quant_conv.transpose()?,
        })
    }

    /// With tiles, a single picture whose largest layers are computed tile by tile.
    ///
    /// # Shapes
    /// - image: `(b, 3, h, w)`, -1 to 1, both sides multiples of the factor
    pub fn encode(&self, image: &Tensor, tiles: Option<&Tiles>) -> Result<LatentDistribution> {
        let mut moments = self.encoder.forward(image, tiles)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let c = moments.dim(1)? / 2;
        let mean = moments.narrow(1, 0, c)?.contiguous()?;
        let logvar = moments.narrow(1, c, c)?.contiguous()?.clamp(-30.0, 20.0)?;
        Ok(LatentDistribution { mean, logvar })
    }

    /// With tiles, a single picture whose largest layers are computed tile by tile.
    ///
    /// # Shapes
    /// - latent: `(b, latent_channels, h, w)`; output: `(b, 3, h · factor, w · factor)`, about -1 to 1
    pub fn decode(&self, latent: &Tensor, tiles: Option<&Tiles>) -> Result<Tensor> {
        match &self.post_quant_conv {
            None => self.decoder.forward(latent, tiles),
            Some(conv) => self.decoder.forward(&conv.forward(latent)?, tiles),
        }
    }
}

impl LatentDistribution {
    /// `mean + exp(logvar / 2) * noise`.
    ///
    /// # Shapes
    /// - noise, output: `(b, latent_channels, h, w)`
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = (&self.logvar * 0.5)?.exp()?;
        Ok((&self.mean + (deviation * noise)?)?)
    }
}

struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Block>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let mut down_blocks = Vec::new();
        let mut inputs = channels[0];
        for (idx, outputs) in channels.iter().copied().enumerate() {
            let weights = weights.at("down_blocks").at(idx);
            let n = Stack { n_resnets: config.layers_per_block, inputs, outputs, n_groups: config.norm_num_groups };
            // Zeros only below and to the right, as the reference pads.
            let padding = Padding { before: 0, after: 1 };
            let halve = Form { stride: 2, padding, ..Form::same(outputs, outputs) };
            let sampler = (idx + 1 < channels.len()).then(|| Conv2d::new(&weights.at("downsamplers.0.conv"), halve));
            down_blocks.push(Block { resnets: n.resnets(&weights)?, sampler: sampler.transpose()? });
            inputs = outputs;
        }
        let last = config.last_channels();
        let outer = |name: &str| weights.at(name).with_exact_inputs();
        Ok(Self {
            conv_in: Conv2d::new(&outer("conv_in"), Form::same(config.in_channels, channels[0]))?,
            down_blocks,
            mid_block: MidBlock::new(config, &weights.at("mid_block"))?,
            conv_norm_out: GroupNorm::new(&weights.at("conv_norm_out"), config.norm_num_groups, last, NORM_EPS)?,
            conv_out: Conv2d::new(&outer("conv_out"), Form::same(last, 2 * config.latent_channels))?,
        })
    }

    fn forward(&self, image: &Tensor, tiles: Option<&Tiles>) -> Result<Tensor> {
        let (outer, inner) = self.down_blocks.split_at(N_OUTER.min(self.down_blocks.len()));
        let outer_layers = |image: &Tensor| walk(outer, self.conv_in.forward(image)?);
        let hidden = match tiles {
            None => outer_layers(image)?,
            Some(tiles) => {
                tiles.map(image, Scale { from: factor(&self.down_blocks), to: factor(inner) }, outer_layers)?
            }
        };
        let hidden = self.mid_block.forward(&walk(inner, hidden)?)?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&hidden)?)
    }
}

struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let mut up_blocks = Vec::new();
        let mut inputs = config.last_channels();
        for (idx, outputs) in config.block_out_channels.iter().rev().copied().enumerate() {
            let weights = weights.at("up_blocks").at(idx);
            // A decoder's block has one more layer than an encoder's.
            let n = Stack { n_resnets: config.layers_per_block + 1, inputs, outputs, n_groups: config.norm_num_groups };
            let double = Form { upsample: true, ..Form::same(outputs, outputs) };
            let is_last = idx + 1 == config.block_out_channels.len();
            let sampler = (!is_last).then(|| Conv2d::new(&weights.at("upsamplers.0.conv"), double));
            up_blocks.push(Block { resnets: n.resnets(&weights)?, sampler: sampler.transpose()? });
            inputs = outputs;
        }
        let (first, last) = (config.block_out_channels[0], config.last_channels());
        let outer = |name: &str| weights.at(name).with_exact_inputs();
        Ok(Self {
            conv_in: Conv2d::new(&outer("conv_in"), Form::same(config.latent_channels, last))?,
            mid_block: MidBlock::new(config, &weights.at("mid_block"))?,
            up_blocks,
            conv_norm_out: GroupNorm::new(&weights.at("conv_norm_out"), config.norm_num_groups, first, NORM_EPS)?,
            conv_out: Conv2d::new(&outer("conv_out"), Form::same(first, config.out_channels))?,
        })
    }

    fn forward(&self, latent: &Tensor, tiles: Option<&Tiles>) -> Result<Tensor> {
        let (inner, outer) = self.up_blocks.split_at(self.up_blocks.len().saturating_sub(N_OUTER));
        let hidden = self.mid_block.forward(&self.conv_in.forward(latent)?)?;
        let hidden = walk(inner, hidden)?;
        let outer_layers = |hidden: &Tensor| {
            let hidden = walk(outer, hidden.clone())?;
            self.conv_out.forward(&self.conv_norm_out.forward_silu(&hidden)?)
        };
        match tiles {
            None => outer_layers(&hidden),
            Some(tiles) => tiles.map(&hidden, Scale { from: factor(inner), to: factor(&self.up_blocks) }, outer_layers),
        }
    }
}

struct MidBlock {
    resnet_0: ResnetBlock,
    attention: Option<SpatialAttention>,
    resnet_1: ResnetBlock,
}

impl MidBlock {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (c, n_groups) = (config.last_channels(), config.norm_num_groups);
        let attention =
            config.mid_block_add_attention.then(|| SpatialAttention::new(c, n_groups, &weights.at("attentions.0")));
        Ok(Self {
            resnet_0: ResnetBlock::new(resnet(c, c, n_groups), &weights.at("resnets.0"))?,
            attention: attention.transpose()?,
            resnet_1: ResnetBlock::new(resnet(c, c, n_groups), &weights.at("resnets.1"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut hidden = self.resnet_0.forward(x)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden)?;
        }
        self.resnet_1.forward(&hidden)
    }
}

/// A block of either half, at one size of the picture.
struct Block {
    resnets: Vec<ResnetBlock>,
    /// Halves or doubles the sides; the last block keeps its size.
    sampler: Option<Conv2d>,
}

fn walk(blocks: &[Block], mut hidden: Tensor) -> Result<Tensor> {
    for block in blocks {
        for resnet in &block.resnets {
            hidden = resnet.forward(&hidden)?;
        }
        if let Some(sampler) = &block.sampler {
            hidden = sampler.forward(&hidden)?;
        }
    }
    Ok(hidden)
}

/// By how much blocks change the sides.
fn factor(blocks: &[Block]) -> usize {
    1 << blocks.iter().filter(|block| block.sampler.is_some()).count()
}

/// Some residual blocks, the first of which changes the number of channels.
struct Stack {
    n_resnets: usize,
    inputs: usize,
    outputs: usize,
    n_groups: usize,
}

impl Stack {
    fn resnets(&self, weights: &Weights) -> Result<Vec<ResnetBlock>> {
        let block = |idx: usize| {
            let inputs = if idx == 0 { self.inputs } else { self.outputs };
            ResnetBlock::new(resnet(inputs, self.outputs, self.n_groups), &weights.at("resnets").at(idx))
        };
        (0..self.n_resnets).map(block).collect()
    }
}

/// One head over all pixels.
struct SpatialAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: Heads<'static>,
}

impl SpatialAttention {
    fn new(n_channels: usize, n_groups: usize, weights: &Weights) -> Result<Self> {
        let linear = |name: &str| Linear::new(&weights.at(name), n_channels, n_channels);
        Ok(Self {
            group_norm: GroupNorm::new(&weights.at("group_norm"), n_groups, n_channels, NORM_EPS)?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
            heads: Heads::plain(1, n_channels).in_precision(weights.precision()),
        })
    }

    /// # Shapes
    /// - x, output: `(b, channels, h, w)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let pixels = self.group_norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // (b, h·w, c)
        let [q, k, v] = forward_each([&self.to_q, &self.to_k, &self.to_v], &pixels)?;
        let attended = self.to_out.forward(&attend(&q, &k, &v, self.heads)?)?;
        let attended = attended.transpose(1, D::Minus1)?.contiguous()?.reshape((b, c, h, w))?;
        nn::add(x, &attended)
    }
}

fn resnet(inputs: usize, outputs: usize, n_groups: usize) -> ResnetForm {
    ResnetForm { inputs, outputs, n_groups, eps: NORM_EPS, time: None }
}

fn pointwise(weights: &Weights, n_channels: usize) -> Result<Conv2d> {
    Conv2d::new(&weights.clone().with_exact_inputs(), Form::pointwise(n_channels, n_channels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    /// A residual block of 8 groups against the recorded one: the norms' epsilon, SiLU and the shortcut.
    #[track_caller]
    fn check_resnet(case: &str, outputs: usize) {
        let fixture = Fixture::open("layers.safetensors", &format!("resnet.{case}"));
        let block = ResnetBlock::new(resnet(16, outputs, 8), &fixture.weights).unwrap();
        let worst = fixture.off("output", &block.forward(fixture.tensor("input")).unwrap());
        assert!(worst < 1e-5, "off by {worst:e}");
    }

    #[test]
    fn latents_that_are_normalized_are_refused_by_name() {
        let config = |mean: &str| -> Config {
            let channels = r#""in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8]"#;
            let rest = r#""layers_per_block": 1, "norm_num_groups": 8, "scaling_factor": 0.5"#;
            serde_json::from_str(&format!(r#"{{{channels}, {rest}, "latents_mean": {mean}}}"#)).unwrap()
        };
        config("null").check().unwrap();
        assert!(config("[0.0, 0.1, 0.2, 0.3]").check().unwrap_err().to_string().starts_with("latents_mean"));
    }

    #[test]
    fn a_residual_block_keeps_its_channels() {
        check_resnet("same", 16);
    }

    #[test]
    fn a_residual_block_changes_its_channels() {
        check_resnet("shortcut", 24);
    }
}
