//! The FLUX.1 transformer (Black Forest Labs, 2024; diffusers 0.42.1, `models/transformers/transformer_flux.py`).
//!
//! Names follow the reference: `img` are the picture's tokens, `txt` the text's, `vec` is the embedding of time, guidance
//! and pooled text that modulates every block, `pe` the positions' rotary angles. Text tokens come first in attention.

mod block;
mod embed;
mod positions;

pub use positions::{image_positions, text_positions};

use crate::probe::Probe;
use block::{DoubleStreamBlock, SingleStreamBlock};
use candle_core::Tensor;
use embed::TimeTextEmbed;
use nn::linear::Linear;
use nn::norm::modulated_layer_norm;
use nn::rope::Rope;
use nn::{Activation, Error, Result, Weights};
use serde::Deserialize;

/// Of every layer norm and RMS norm.
const NORM_EPS: f64 = 1e-6;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub in_channels: usize,
    #[serde(default)]
    pub out_channels: Option<usize>,
    pub num_layers: usize,
    pub num_single_layers: usize,
    pub attention_head_dim: usize,
    pub num_attention_heads: usize,
    pub joint_attention_dim: usize,
    pub pooled_projection_dim: usize,
    pub guidance_embeds: bool,
    #[serde(default = "axes_dims_rope")]
    pub axes_dims_rope: Vec<usize>,
}

fn axes_dims_rope() -> Vec<usize> {
    vec![16, 56, 56]
}

impl Config {
    pub fn hidden(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    pub fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    fn check(&self) -> Result<()> {
        let rotated: usize = self.axes_dims_rope.iter().sum();
        if rotated != self.attention_head_dim || self.axes_dims_rope.iter().any(|dim| !dim.is_multiple_of(2)) {
            let axes = &self.axes_dims_rope;
            return Err(Error::Shape(format!(
                "axes_dims_rope {axes:?} do not fill heads of {}",
                self.attention_head_dim
            )));
        }
        Ok(())
    }
}

pub struct Flux {
    config: Config,
    x_embedder: Linear,
    context_embedder: Linear,
    time_text_embed: TimeTextEmbed,
    transformer_blocks: Vec<DoubleStreamBlock>,
    single_transformer_blocks: Vec<SingleStreamBlock>,
    norm_out: Linear,
    proj_out: Linear,
}

/// Everything that the transformer sees of one step.
pub struct Input<'a> {
    /// `(b, img tokens, in_channels)`
    pub img: &'a Tensor,
    /// `(b, txt tokens, joint_attention_dim)`
    pub txt: &'a Tensor,
    /// `(b, pooled_projection_dim)`
    pub pooled: &'a Tensor,
    /// Noise level, 0 to 1: the timestep divided by 1000.
    pub timestep: f32,
    /// Given exactly if the model embeds guidance.
    pub guidance: Option<f32>,
    /// Angles of the text's and then the picture's positions; see [`Flux::rope`].
    pub pe: &'a Rope,
}

impl Flux {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.check()?;
        let n = config.hidden();
        let blocks = weights.at("transformer_blocks");
        let single_blocks = weights.at("single_transformer_blocks");
        let outer = |name: &str| weights.at(name).with_exact_inputs();
        Ok(Self {
            x_embedder: Linear::new(&outer("x_embedder"), config.in_channels, n)?,
            context_embedder: Linear::new(&outer("context_embedder"), config.joint_attention_dim, n)?,
            time_text_embed: TimeTextEmbed::new(config, &weights.at("time_text_embed"))?,
            transformer_blocks: (0..config.num_layers)
                .map(|idx| DoubleStreamBlock::new(config, &blocks.at(idx)))
                .collect::<Result<_>>()?,
            single_transformer_blocks: (0..config.num_single_layers)
                .map(|idx| SingleStreamBlock::new(config, &single_blocks.at(idx)))
                .collect::<Result<_>>()?,
            norm_out: Linear::new(&outer("norm_out.linear"), n, 2 * n)?,
            proj_out: Linear::new(&outer("proj_out"), n, config.outputs())?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The angles for these positions, text first.
    pub fn rope(&self, positions: &[Vec<f64>]) -> Result<Rope> {
        Rope::new(positions, &self.config.axes_dims_rope)
    }

    /// Predicts the velocity from the picture to the noise.
    ///
    /// # Shapes
    /// - output: `(b, img tokens, out_channels)`
    pub fn forward(&self, input: &Input<'_>, probe: &mut dyn Probe) -> Result<Tensor> {
        let mut img = self.x_embedder.forward(input.img)?;
        probe.see("x_embedder", &img);
        let vec = self.time_text_embed.forward(input)?;
        probe.see("time_text_embed", &vec);
        let mut txt = self.context_embedder.forward(input.txt)?;
        probe.see("context_embedder", &txt);

        for (idx, block) in self.transformer_blocks.iter().enumerate() {
            (img, txt) = block.forward(&img, &txt, &vec, input.pe)?;
            probe.see(&format!("transformer_blocks.{idx}.txt"), &txt);
            probe.see(&format!("transformer_blocks.{idx}.img"), &img);
        }

        let (n_txt, n_img) = (txt.dim(1)?, img.dim(1)?);
        let mut stream = Tensor::cat(&[&txt, &img], 1)?;
        for (idx, block) in self.single_transformer_blocks.iter().enumerate() {
            stream = block.forward(&stream, &vec, input.pe)?;
            probe.see(&format!("single_transformer_blocks.{idx}.txt"), &stream.narrow(1, 0, n_txt)?);
            probe.see(&format!("single_transformer_blocks.{idx}.img"), &stream.narrow(1, n_txt, n_img)?);
        }

        let img = stream.narrow(1, n_txt, n_img)?.contiguous()?;
        // Here the scale comes first, unlike in the blocks.
        let modulation = self.norm_out.forward(&silu(&vec)?)?.chunk(2, 1)?;
        let img = modulated_layer_norm(&img, NORM_EPS, &modulation[0], &modulation[1])?;
        probe.see("norm_out", &img);
        self.proj_out.forward(&img)
    }
}

/// SiLU of the embedding that modulates every block.
fn silu(vec: &Tensor) -> Result<Tensor> {
    nn::activate(Activation::Silu, vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Blind;
    use crate::testing::Fixture;
    use serde_json::json;

    fn off(case: &str) -> f32 {
        let fixture = Fixture::open("towers.safetensors", &format!("flux.{case}"));
        let config = json!({
            "in_channels": 8, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
            "num_attention_heads": 2, "joint_attention_dim": 6, "pooled_projection_dim": 5, "guidance_embeds": true,
            "axes_dims_rope": [2, 2, 4],
        });
        let flux = Flux::new(&serde_json::from_value(config).unwrap(), &fixture.weights).unwrap();
        let mut positions = text_positions(3);
        positions.extend(image_positions(0, 2, 2));
        let pe = flux.rope(&positions).unwrap();
        let (img, txt, pooled) = (fixture.tensor("img"), fixture.tensor("txt"), fixture.tensor("pooled"));
        let input = Input { img, txt, pooled, timestep: 0.5, guidance: Some(3.5), pe: &pe };
        fixture.off("output", &flux.forward(&input, &mut Blind).unwrap())
    }

    /// With another epsilon in any of the norms the first case is off by more; with the exact GELU the second.
    #[test]
    fn its_norms_have_their_epsilon_and_its_gelu_is_the_tanh_one() {
        for case in ["norms", "gelu"] {
            let worst = off(case);
            assert!(worst < 1e-5, "{case} is off by {worst:e}");
        }
    }
}
