//! SigLIP's vision tower (Zhai et al., arXiv:2303.15343; transformers 5.23.0, `models/siglip/modeling_siglip.py`).
//!
//! Deliberately absent: the pooling head. Redux reads the last hidden state; a checkpoint's head is known and skipped.

use crate::encoder::{EncoderLayer, LayerForm};
use crate::probe::Probe;
use candle_core::Tensor;
use nn::attention::Mask;
use nn::conv::{Conv2d, Form, Padding};
use nn::norm::LayerNorm;
use nn::{Activation, Error, Result, Weights};
use serde::Deserialize;

/// What a configuration leaves out has the value that transformers gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    #[serde(default = "three")]
    pub num_channels: usize,
    #[serde(default = "HiddenAct::of_siglip")]
    pub hidden_act: HiddenAct,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
}

/// The activations that SigLIP checkpoints name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    GeluPytorchTanh,
    Gelu,
}

fn three() -> usize {
    3
}

fn layer_norm_eps() -> f64 {
    1e-6
}

impl HiddenAct {
    fn of_siglip() -> Self {
        Self::GeluPytorchTanh
    }

    fn activation(self) -> Activation {
        match self {
            Self::GeluPytorchTanh => Activation::GeluTanh,
            Self::Gelu => Activation::GeluErf,
        }
    }
}

impl Config {
    /// Whole patches along a side; what is left over at the right and below is not looked at.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }

    /// Tokens of a picture.
    pub fn n_tokens(&self) -> usize {
        self.patches_per_side() * self.patches_per_side()
    }

    fn check(&self) -> Result<()> {
        if self.patch_size == 0 || self.n_tokens() == 0 {
            return Err(Error::Shape(format!("patches of {} in pictures of {}", self.patch_size, self.image_size)));
        }
        Ok(())
    }
}

pub struct SiglipVisionModel {
    config: Config,
    patch_embedding: Conv2d,
    /// `(1, tokens, hidden)`
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
}

impl SiglipVisionModel {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.check()?;
        // Newer exporters leave out the prefix; buffers of positions come from older ones.
        let vision_model = if weights.has("vision_model") { weights.at("vision_model") } else { weights.clone() };
        let embeddings = vision_model.at("embeddings");
        embeddings.skip("position_ids");
        vision_model.skip("head");
        let (n, n_tokens) = (config.hidden_size, config.n_tokens());
        let patches = Form {
            side: config.patch_size,
            stride: config.patch_size,
            padding: Padding { before: 0, after: 0 },
            ..Form::same(config.num_channels, n)
        };
        let form = LayerForm {
            hidden: n,
            inner: config.intermediate_size,
            n_heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: config.hidden_act.activation(),
            mask: Mask::None,
        };
        Ok(Self {
            patch_embedding: Conv2d::new(&embeddings.at("patch_embedding").with_exact_inputs(), patches)?,
            position_embedding: embeddings.at("position_embedding").tensor("weight", &[n_tokens, n])?.unsqueeze(0)?,
            layers: EncoderLayer::stack(form, config.num_hidden_layers, &vision_model.at("encoder.layers"))?,
            post_layernorm: LayerNorm::new(&vision_model.at("post_layernorm"), n, config.layer_norm_eps)?,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last hidden state, after the final norm.
    ///
    /// # Shapes
    /// - pixels: `(1, channels, image_size, image_size)`, normalized; output: `(1, tokens, hidden)`
    pub fn forward(&self, pixels: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let side = self.config.image_size;
        if pixels.dims() != [1, self.config.num_channels, side, side] {
            return Err(Error::Shape(format!("a vision tower of pictures of {side} got {:?}", pixels.dims())));
        }
        let patches = self.patch_embedding.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let mut hidden = (patches + &self.position_embedding)?;
        probe.see("embeddings", &hidden);
        for (idx, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(&hidden)?;
            probe.see(&format!("layers.{idx}"), &hidden);
        }
        self.post_layernorm.forward(&hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Blind;
    use candle_core::Device;
    use nn::files::ModelFiles;
    use std::sync::Arc;

    /// A tower of one layer. `changes` follow the fields that a configuration cannot do without.
    fn config(changes: &str) -> Config {
        let fields = r#""hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1"#;
        let sides = r#""num_attention_heads": 4, "image_size": 6, "patch_size": 2"#;
        serde_json::from_str(&format!("{{{fields}, {sides}{changes}}}")).unwrap()
    }

    /// How far a tower is from the recorded one.
    fn off(case: &str, config: &Config) -> f32 {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/siglip_layers.safetensors");
        let bytes: &'static [u8] = std::fs::read(path).unwrap().leak();
        let files = ModelFiles::Embedded(Arc::from([("siglip/model.safetensors", bytes)]));
        let weights = Weights::open(&files, "siglip").unwrap().at(case);
        let recorded = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
        let tower = SiglipVisionModel::new(config, &weights).unwrap();
        let ours = tower.forward(&recorded[&format!("{case}.pixel_values")], &mut Blind).unwrap();
        let difference = (ours - &recorded[&format!("{case}.output")]).unwrap().abs().unwrap();
        difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    #[test]
    fn its_norms_have_their_epsilon_and_its_gelu_is_the_tanh_one() {
        for case in ["norms", "gelu"] {
            let worst = off(case, &config(""));
            assert!(worst < 1e-5, "{case} is off by {worst:e}");
        }
        assert!(off("norms", &config(r#", "layer_norm_eps": 1e-5"#)) > 0.1, "the fixture shows no epsilon");
        assert!(off("gelu", &config(r#", "hidden_act": "gelu""#)) > 1e-4, "the fixture shows no GELU");
    }

    #[test]
    fn only_whole_patches_are_looked_at() {
        let of_redux = Config { image_size: 384, patch_size: 14, ..config("") };
        assert_eq!(of_redux.n_tokens(), 729);
        assert!(Config { patch_size: 0, ..config("") }.check().is_err());
        assert!(Config { patch_size: 7, ..config("") }.check().is_err());
    }
}
