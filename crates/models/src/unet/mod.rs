//! The UNet of Stable Diffusion XL (Podell et al., arXiv:2307.01952; diffusers 0.42.1,
//! `models/unets/unet_2d_condition.py`): down, through the middle and up again, with what was seen on the way down beside
//! what comes up. Text enters by attention; time, pooled text and sizes enter every residual block.

mod block;
mod config;
mod transformer;

pub use config::{Config, DownBlockType, UpBlockType};

use crate::embed::EmbeddingMlp;
use crate::probe::Probe;
use block::{DownBlock, MidBlock, Told, UpBlock};
use candle_core::Tensor;
use nn::conv::{Conv2d, Form};
use nn::embedding::timestep_embedding;
use nn::norm::GroupNorm;
use nn::{Activation, Result, Weights};

pub struct UNet {
    config: Config,
    conv_in: Conv2d,
    time_embedding: EmbeddingMlp,
    add_embedding: EmbeddingMlp,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Everything that the UNet sees of one step.
pub struct Input<'a> {
    /// `(b, in_channels, h, w)`, any h and w
    pub sample: &'a Tensor,
    /// Position in the training's schedule, 0 to 1000.
    pub timestep: f32,
    /// `(b, tokens, cross_attention_dim)`
    pub txt: &'a Tensor,
    /// `(b, pooled_dim)`
    pub pooled: &'a Tensor,
    /// Height and width of the original, top and left of the crop, height and width of the target: pixels.
    pub sizes: [f32; Config::N_SIZES],
}

impl UNet {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.check()?;
        let n_blocks = config.n_blocks();
        let (first, n_groups) = (config.block_out_channels[0], config.norm_num_groups);
        let n_time = config.time_dim();
        let n_added = config.projection_class_embeddings_input_dim;
        let (down, up) = (weights.at("down_blocks"), weights.at("up_blocks"));
        let outer = |name: &str| weights.at(name).with_exact_inputs();
        Ok(Self {
            conv_in: Conv2d::new(&outer("conv_in"), Form::same(config.in_channels, first))?,
            time_embedding: EmbeddingMlp::new(&weights.at("time_embedding"), first, n_time)?,
            add_embedding: EmbeddingMlp::new(&weights.at("add_embedding"), n_added, n_time)?,
            down_blocks: (0..n_blocks)
                .map(|block| DownBlock::new(config, block, &down.at(block)))
                .collect::<Result<_>>()?,
            mid_block: MidBlock::new(config, &weights.at("mid_block"))?,
            up_blocks: (0..n_blocks).map(|idx| UpBlock::new(config, idx, &up.at(idx))).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(&weights.at("conv_norm_out"), n_groups, first, config.norm_eps)?,
            conv_out: Conv2d::new(&outer("conv_out"), Form::same(first, config.out_channels))?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Predicts the noise, or what else the schedule says that the model was trained to predict.
    ///
    /// # Shapes
    /// - output: `(b, out_channels, h, w)`
    pub fn forward(&self, input: &Input<'_>, probe: &mut dyn Probe) -> Result<Tensor> {
        let time = nn::activate(Activation::Silu, &self.embed(input, probe)?)?;
        let told = Told { time: &time, txt: input.txt };

        let mut hidden = self.conv_in.forward(input.sample)?;
        probe.see("conv_in", &hidden);
        let mut skips = vec![hidden.clone()];
        for (idx, block) in self.down_blocks.iter().enumerate() {
            hidden = block.forward(&hidden, told, &mut skips)?;
            probe.see(&format!("down_blocks.{idx}"), &hidden);
        }

        hidden = self.mid_block.forward(&hidden, told)?;
        probe.see("mid_block", &hidden);

        for (idx, block) in self.up_blocks.iter().enumerate() {
            hidden = block.forward(&hidden, told, &mut skips)?;
            probe.see(&format!("up_blocks.{idx}"), &hidden);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&hidden)?)
    }

    /// Time, pooled text and sizes. `(b, time)`
    fn embed(&self, input: &Input<'_>, probe: &mut dyn Probe) -> Result<Tensor> {
        let time = timestep_embedding(input.timestep, self.config.block_out_channels[0])?;
        let time = self.time_embedding.forward(&time)?; // (1, time)
        probe.see("time_embedding", &time);

        let b = input.pooled.dim(0)?;
        let n = self.config.addition_time_embed_dim;
        let sizes: Vec<Tensor> = input.sizes.iter().map(|size| timestep_embedding(*size, n)).collect::<Result<_>>()?;
        let sizes = Tensor::cat(&sizes, 1)?.broadcast_as((b, n * input.sizes.len()))?;
        let added = self.add_embedding.forward(&Tensor::cat(&[input.pooled, &sizes], 1)?)?;
        probe.see("add_embedding", &added);
        Ok(added.broadcast_add(&time)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Blind;
    use crate::testing::Fixture;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "in_channels": 4, "out_channels": 4, "block_out_channels": [4, 8], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "norm_num_groups": 2,
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 6,
            "transformer_layers_per_block": [1, 2], "attention_head_dim": [1, 2], "use_linear_projection": true,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "norm_eps": 1e-5,
            "projection_class_embeddings_input_dim": 29,
        })
    }

    fn off(case: &str, config: Value) -> f32 {
        let fixture = Fixture::open("towers.safetensors", &format!("unet.{case}"));
        let unet = UNet::new(&serde_json::from_value(config).unwrap(), &fixture.weights).unwrap();
        let input = Input {
            sample: fixture.tensor("sample"),
            timestep: 321.0,
            txt: fixture.tensor("txt"),
            pooled: fixture.tensor("pooled"),
            sizes: fixture.tensor("sizes").to_vec1().unwrap().try_into().unwrap(),
        };
        fixture.off("output", &unet.forward(&input, &mut Blind).unwrap())
    }

    /// Every epsilon: with another one in any of the norms the first case is off by more.
    #[test]
    fn its_norms_have_their_epsilons_and_its_gelu_is_the_exact_one() {
        for case in ["norms", "gelu"] {
            let worst = off(case, config());
            assert!(worst < 1e-5, "{case} is off by {worst:e}");
        }
        let mut other = config();
        other["norm_eps"] = json!(1e-6);
        assert!(off("norms", other) > 1e-3, "the fixture shows no epsilon");
    }
}
