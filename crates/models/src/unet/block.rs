//! A UNet's blocks: down, in the middle, and up again.

use super::config::{Config, DownBlockType, UpBlockType};
use super::transformer::{SpatialTransformer, TransformerForm};
use crate::resnet::{ResnetBlock, ResnetForm};
use candle_core::Tensor;
use nn::conv::{Conv2d, Form};
use nn::{Error, Result, Weights};

/// What every block is told besides the picture.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    /// Time and sizes, after SiLU. `(b, time)`
    pub(super) time: &'a Tensor,
    /// `(b, tokens, text)`
    pub(super) txt: &'a Tensor,
}

pub(super) struct DownBlock {
    layers: Vec<Layer>,
    /// The last block keeps its size.
    downsampler: Option<Conv2d>,
}

impl DownBlock {
    pub(super) fn new(config: &Config, block: usize, weights: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let outputs = channels[block];
        let has_attention = config.down_block_types[block] == DownBlockType::CrossAttn;
        let layer = |idx: usize| {
            let inputs = if idx == 0 { channels[block.saturating_sub(1)] } else { outputs };
            Layer::new(&Place { config, block, inputs, has_attention }, idx, weights)
        };
        let halve = Form { stride: 2, ..Form::same(outputs, outputs) };
        let is_last = block + 1 == channels.len();
        let downsampler = (!is_last).then(|| Conv2d::new(&weights.at("downsamplers.0.conv"), halve));
        Ok(Self {
            layers: (0..config.n_resnets(block)).map(layer).collect::<Result<_>>()?,
            downsampler: downsampler.transpose()?,
        })
    }

    /// Leaves in `skips` what the way up will need.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, h/2, w/2)`, rounded up
    pub(super) fn forward(&self, x: &Tensor, told: Told<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = x.clone();
        for layer in &self.layers {
            hidden = layer.forward(&hidden, told)?;
            skips.push(hidden.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            hidden = downsampler.forward(&hidden)?;
            skips.push(hidden.clone());
        }
        Ok(hidden)
    }
}

pub(super) struct MidBlock {
    resnet_0: ResnetBlock,
    attention: SpatialTransformer,
    resnet_1: ResnetBlock,
}

impl MidBlock {
    pub(super) fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let block = config.n_blocks() - 1;
        let place = Place { config, block, inputs: config.block_out_channels[block], has_attention: true };
        Ok(Self {
            resnet_0: ResnetBlock::new(place.resnet(), &weights.at("resnets.0"))?,
            attention: SpatialTransformer::new(place.transformer(), &weights.at("attentions.0"))?,
            resnet_1: ResnetBlock::new(place.resnet(), &weights.at("resnets.1"))?,
        })
    }

    /// # Shapes
    /// - x, output: `(b, channels, h, w)`
    pub(super) fn forward(&self, x: &Tensor, told: Told<'_>) -> Result<Tensor> {
        let hidden = self.resnet_0.forward_timed(x, told.time)?;
        self.resnet_1.forward_timed(&self.attention.forward(&hidden, told.txt)?, told.time)
    }
}

pub(super) struct UpBlock {
    layers: Vec<Layer>,
    /// The last block keeps its size.
    upsampler: Option<Conv2d>,
}

impl UpBlock {
    /// The `idx`-th from below.
    pub(super) fn new(config: &Config, idx: usize, weights: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let block = channels.len() - 1 - idx;
        let outputs = channels[block];
        let below = channels[(block + 1).min(channels.len() - 1)];
        let beside_last = channels[block.saturating_sub(1)];
        let has_attention = config.up_block_types[idx] == UpBlockType::CrossAttn;
        // One more than on the way down: there the convolution between two blocks left a picture, too.
        let n_layers = config.n_resnets(block) + 1;
        let layer = |idx: usize| {
            let hidden = if idx == 0 { below } else { outputs };
            let skip = if idx + 1 == n_layers { beside_last } else { outputs };
            Layer::new(&Place { config, block, inputs: hidden + skip, has_attention }, idx, weights)
        };
        let double = Form { upsample: true, ..Form::same(outputs, outputs) };
        let upsampler = (block > 0).then(|| Conv2d::new(&weights.at("upsamplers.0.conv"), double));
        Ok(Self { layers: (0..n_layers).map(layer).collect::<Result<_>>()?, upsampler: upsampler.transpose()? })
    }

    /// Takes from the end of `skips` what the way down has left; the next one tells the size to grow to.
    ///
    /// # Shapes
    /// - x: `(b, below, h, w)`; output: `(b, outputs, h', w')` of the next skip
    pub(super) fn forward(&self, x: &Tensor, told: Told<'_>, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut hidden = x.clone();
        for layer in &self.layers {
            let skip = skips.pop().ok_or_else(|| Error::Shape("a UNet goes up further than down".to_owned()))?;
            hidden = layer.forward(&Tensor::cat(&[&hidden, &skip], 1)?, told)?;
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                let (_, _, height, width) = next.dims4()?;
                upsampler.forward_cut(&hidden, height, width)
            }
            _ => Ok(hidden),
        }
    }
}

/// A residual block, and perhaps a transformer after it.
struct Layer {
    resnet: ResnetBlock,
    attention: Option<SpatialTransformer>,
}

impl Layer {
    fn new(place: &Place<'_>, idx: usize, weights: &Weights) -> Result<Self> {
        let attention = || SpatialTransformer::new(place.transformer(), &weights.at("attentions").at(idx));
        Ok(Self {
            resnet: ResnetBlock::new(place.resnet(), &weights.at("resnets").at(idx))?,
            attention: place.has_attention.then(attention).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, told: Told<'_>) -> Result<Tensor> {
        let hidden = self.resnet.forward_timed(x, told.time)?;
        match &self.attention {
            None => Ok(hidden),
            Some(attention) => attention.forward(&hidden, told.txt),
        }
    }
}

/// Where in a UNet a layer is.
struct Place<'a> {
    config: &'a Config,
    /// Counted on the way down.
    block: usize,
    /// Channels.
    inputs: usize,
    has_attention: bool,
}

impl Place<'_> {
    fn resnet(&self) -> ResnetForm {
        let Config { norm_num_groups, norm_eps, .. } = *self.config;
        ResnetForm {
            inputs: self.inputs,
            outputs: self.config.block_out_channels[self.block],
            n_groups: norm_num_groups,
            eps: norm_eps,
            time: Some(self.config.time_dim()),
        }
    }

    fn transformer(&self) -> TransformerForm {
        TransformerForm {
            n_channels: self.config.block_out_channels[self.block],
            n_groups: self.config.norm_num_groups,
            n_heads: self.config.n_heads(self.block),
            n_layers: self.config.n_transformer_layers(self.block),
            text: self.config.cross_attention_dim,
        }
    }
}
