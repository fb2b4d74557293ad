//! DINOv2's vision transformer (Oquab et al., arXiv:2304.07193; transformers 5.23.0, `models/dinov2/modeling_dinov2.py`),
//! as a backbone: what some of its layers leave is what others build on.

use crate::probe::Probe;
use candle_core::Tensor;
use nn::attention::{Heads, attend};
use nn::conv::{Conv2d, Extent, Form, Padding};
use nn::interpolate::{Interpolation, interpolate};
use nn::linear::{Linear, forward_each};
use nn::norm::{LayerNorm, gated_residual};
use nn::{Activation, Error, Result, Weights};
use serde::Deserialize;

/// Fields that a checkpoint leaves out have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub mlp_ratio: f64,
    pub hidden_act: HiddenAct,
    pub layer_norm_eps: f64,
    /// Side of the square that the positions were trained on, pixels.
    pub image_size: usize,
    pub patch_size: usize,
    pub num_channels: usize,
    pub qkv_bias: bool,
    pub use_swiglu_ffn: bool,
    pub apply_layernorm: bool,
    /// Stages whose tokens are wanted, by index; 0 is the embeddings. The last stage, if neither field is there.
    pub out_indices: Option<Vec<i64>>,
    /// The same by name: `stem`, `stage1`, …
    pub out_features: Option<Vec<String>>,
}

/// The activations that checkpoints name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    Gelu,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-6,
            image_size: 224,
            patch_size: 14,
            num_channels: 3,
            qkv_bias: true,
            use_swiglu_ffn: false,
            apply_layernorm: true,
            out_indices: None,
            out_features: None,
        }
    }
}

impl Config {
    /// The stages whose tokens are wanted, in rising order.
    fn stages(&self) -> Result<Vec<usize>> {
        let n_layers = self.num_hidden_layers;
        let unknown = |stage: &str| Error::Shape(format!("stage {stage} of {n_layers} layers"));
        let of_index = |idx: &i64| {
            // A negative index counts from the end.
            let from_start = if *idx < 0 { idx + n_layers as i64 + 1 } else { *idx };
            usize::try_from(from_start).map_err(|_| unknown(&idx.to_string()))
        };
        let of_name = |name: &String| match name.strip_prefix("stage") {
            Some(number) => number.parse().map_err(|_| unknown(name)),
            None if name == "stem" => Ok(0),
            None => Err(unknown(name)),
        };
        let mut stages: Vec<usize> = match (&self.out_features, &self.out_indices) {
            (Some(names), _) => names.iter().map(of_name).collect::<Result<_>>()?,
            (None, Some(indices)) => indices.iter().map(of_index).collect::<Result<_>>()?,
            (None, None) => vec![n_layers],
        };
        stages.sort_unstable();
        stages.dedup();
        match stages.last() {
            Some(last) if *last <= n_layers => Ok(stages),
            last => Err(unknown(&last.map_or_else(|| "none".to_owned(), usize::to_string))),
        }
    }

    fn check(&self) -> Result<()> {
        let n_heads = self.num_attention_heads;
        if n_heads == 0 || !self.hidden_size.is_multiple_of(n_heads) {
            return Err(Error::Shape(format!("{} hidden elements do not make {n_heads} heads", self.hidden_size)));
        }
        if self.patch_size == 0 || self.image_size < self.patch_size {
            return Err(Error::Shape(format!("patches of {} in {} pixels", self.patch_size, self.image_size)));
        }
        Ok(())
    }
}

pub struct Dinov2 {
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    layernorm: LayerNorm,
    apply_layernorm: bool,
    stages: Vec<usize>,
}

impl Dinov2 {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.check()?;
        let layers = weights.at("encoder.layer");
        Ok(Self {
            embeddings: Embeddings::new(config, &weights.at("embeddings"))?,
            layers: (0..config.num_hidden_layers)
                .map(|idx| EncoderLayer::new(config, &layers.at(idx)))
                .collect::<Result<_>>()?,
            layernorm: LayerNorm::new(&weights.at("layernorm"), config.hidden_size, config.layer_norm_eps)?,
            apply_layernorm: config.apply_layernorm,
            stages: config.stages()?,
        })
    }

    pub fn n_stages(&self) -> usize {
        self.stages.len()
    }

    /// The tokens of every wanted stage: the class token, then the patches, row by row.
    ///
    /// # Shapes
    /// - image: `(b, channels, h, w)`, normalized, both sides multiples of the patch
    /// - output: `(b, 1 + patches, hidden)` each
    pub fn forward(&self, image: &Tensor, probe: &mut dyn Probe) -> Result<Vec<Tensor>> {
        let mut hidden = self.embeddings.forward(image)?;
        probe.see("embeddings", &hidden);
        let mut feature_maps = Vec::with_capacity(self.stages.len());
        // No stage beyond the last wanted one is computed.
        for stage in 0..=self.stages.last().copied().unwrap_or_default() {
            if let Some(idx) = stage.checked_sub(1) {
                hidden = self.layers[idx].forward(&hidden)?;
                probe.see(&format!("layer_{idx}"), &hidden);
            }
            if self.stages.contains(&stage) {
                let map = if self.apply_layernorm { self.layernorm.forward(&hidden)? } else { hidden.clone() };
                feature_maps.push(map);
            }
        }
        Ok(feature_maps)
    }
}

#[expect(clippy::struct_field_names, reason = "the fields are named as the checkpoint names them")]
struct Embeddings {
    projection: Conv2d,
    /// `(1, 1, hidden)`
    cls_token: Tensor,
    /// `(1, 1 + positions, hidden)`; the positions are those of a square.
    position_embeddings: Tensor,
    patch_size: usize,
    /// Positions on a side of the square.
    n_side: usize,
}

impl Embeddings {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (n, patch_size) = (config.hidden_size, config.patch_size);
        // Stands in for hidden patches in training alone.
        weights.skip("mask_token");
        let patches = Form {
            side: patch_size,
            stride: patch_size,
            padding: Padding { before: 0, after: 0 },
            ..Form::same(config.num_channels, n)
        };
        let n_side = config.image_size / patch_size;
        Ok(Self {
            projection: Conv2d::new(&weights.at("patch_embeddings.projection").with_exact_inputs(), patches)?,
            cls_token: weights.tensor("cls_token", &[1, 1, n])?,
            position_embeddings: weights.tensor("position_embeddings", &[1, 1 + n_side * n_side, n])?,
            patch_size,
            n_side,
        })
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let (b, _, height, width) = image.dims4()?;
        let side = self.patch_size;
        if height == 0 || width == 0 || !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            return Err(Error::Shape(format!("patches of {side} pixels do not fill {width}x{height}")));
        }
        let patches = self.projection.forward(image)?.flatten_from(2)?.transpose(1, 2)?; // (b, patches, hidden)
        let n = patches.dim(2)?;
        let tokens = Tensor::cat(&[&self.cls_token.expand((b, 1, n))?, &patches], 1)?;
        let positions = self.positions(Extent { height: height / side, width: width / side })?;
        Ok(tokens.broadcast_add(&positions)?)
    }

    /// The positions stretched over a picture of this many patches; the class token keeps its own.
    ///
    /// # Shapes
    /// - output: `(1, 1 + patches, hidden)`
    fn positions(&self, patches: Extent) -> Result<Tensor> {
        let (n_side, n) = (self.n_side, self.position_embeddings.dim(2)?);
        let class = self.position_embeddings.narrow(1, 0, 1)?;
        let square = self.position_embeddings.narrow(1, 1, n_side * n_side)?;
        let square = square.reshape((1, n_side, n_side, n))?.permute((0, 3, 1, 2))?; // (1, hidden, rows, columns)
        let stretched = interpolate(&square, patches, Interpolation::Bicubic)?;
        Ok(Tensor::cat(&[&class, &stretched.flatten_from(2)?.transpose(1, 2)?], 1)?)
    }
}

struct EncoderLayer {
    norm1: LayerNorm,
    attention: SelfAttention,
    layer_scale1: LayerScale,
    norm2: LayerNorm,
    mlp: FeedForward,
    layer_scale2: LayerScale,
}

impl EncoderLayer {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(&weights.at(name), config.hidden_size, config.layer_norm_eps);
        let scale = |name: &str| LayerScale::new(&weights.at(name), config.hidden_size);
        Ok(Self {
            norm1: norm("norm1")?,
            attention: SelfAttention::new(config, &weights.at("attention"))?,
            layer_scale1: scale("layer_scale1")?,
            norm2: norm("norm2")?,
            mlp: FeedForward::new(config, &weights.at("mlp"))?,
            layer_scale2: scale("layer_scale2")?,
        })
    }

    /// # Shapes
    /// - x, output: `(b, tokens, hidden)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.layer_scale1.residual(x, &self.attention.forward(&self.norm1.forward(x)?)?)?;
        self.layer_scale2.residual(&x, &self.mlp.forward(&self.norm2.forward(&x)?)?)
    }
}

/// One learned factor per channel on what a branch adds (Touvron et al., arXiv:2103.17239).
struct LayerScale {
    /// `(hidden)`
    lambda1: Tensor,
}

impl LayerScale {
    fn new(weights: &Weights, n: usize) -> Result<Self> {
        Ok(Self { lambda1: weights.tensor("lambda1", &[n])? })
    }

    /// `x + lambda1 * update`
    fn residual(&self, x: &Tensor, update: &Tensor) -> Result<Tensor> {
        let (b, _, n) = x.dims3()?;
        gated_residual(x, &self.lambda1.expand((b, n))?, update)
    }
}

struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    n_heads: usize,
    head_dim: usize,
}

impl SelfAttention {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let n = config.hidden_size;
        // Published checkpoints have the longer names; newer exporters may write those of their own classes.
        let (parts, names) = if weights.has("attention") {
            (weights.at("attention"), ["query", "key", "value"])
        } else {
            (weights.clone(), ["q_proj", "k_proj", "v_proj"])
        };
        let out = if weights.has("output") { weights.at("output.dense") } else { weights.at("o_proj") };
        let projection = |name: &str| {
            let weights = parts.at(name);
            if config.qkv_bias { Linear::new(&weights, n, n) } else { Linear::without_bias(&weights, n, n) }
        };
        Ok(Self {
            query: projection(names[0])?,
            key: projection(names[1])?,
            value: projection(names[2])?,
            dense: Linear::new(&out, n, n)?,
            n_heads: config.num_attention_heads,
            head_dim: n / config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [q, k, v] = forward_each([&self.query, &self.key, &self.value], x)?;
        self.dense.forward(&attend(&q, &k, &v, Heads::plain(self.n_heads, self.head_dim))?)
    }
}

enum FeedForward {
    Mlp {
        fc1: Linear,
        fc2: Linear,
    },
    /// Shazeer, arXiv:2002.05202.
    SwiGlu {
        gate: Gate,
        down: Linear,
    },
}

/// The two inner projections of a gated feed-forward, in one matrix or in two.
enum Gate {
    Joined(Linear),
    Apart { gate: Linear, up: Linear },
}

impl FeedForward {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let HiddenAct::Gelu = config.hidden_act;
        let n = config.hidden_size;
        let inner = (n as f64 * config.mlp_ratio) as usize;
        if !config.use_swiglu_ffn {
            return Ok(Self::Mlp {
                fc1: Linear::new(&weights.at("fc1"), n, inner)?,
                fc2: Linear::new(&weights.at("fc2"), inner, n)?,
            });
        }
        // Two thirds, since there are three matrices in place of two.
        let inner = (inner * 2 / 3).next_multiple_of(8);
        if weights.has("weights_in") {
            let gate = Gate::Joined(Linear::new(&weights.at("weights_in"), n, 2 * inner)?);
            return Ok(Self::SwiGlu { gate, down: Linear::new(&weights.at("weights_out"), inner, n)? });
        }
        let gate = Linear::new(&weights.at("gate_proj"), n, inner)?;
        let gate = Gate::Apart { gate, up: Linear::new(&weights.at("up_proj"), n, inner)? };
        Ok(Self::SwiGlu { gate, down: Linear::new(&weights.at("down_proj"), inner, n)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Mlp { fc1, fc2 } => fc2.forward(&fc1.forward_activated(x, Activation::GeluErf)?),
            Self::SwiGlu { gate, down } => down.forward(&gate.forward(x)?),
        }
    }
}

impl Gate {
    /// `silu(gate(x)) * up(x)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Joined(linear) => {
                let parts = linear.forward(x)?.chunk(2, 2)?;
                Ok((nn::activate(Activation::Silu, &parts[0])? * &parts[1])?)
            }
            Self::Apart { gate, up } => Ok((gate.forward_activated(x, Activation::Silu)? * up.forward(x)?)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use nn::files::ModelFiles;
    use std::sync::Arc;

    /// One layer against the recorded one, on rows that bring out the norms' epsilon and the flavor of GELU.
    #[track_caller]
    fn check_layer(case: &str, config: Config) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/depth/layers.safetensors");
        let bytes: &'static [u8] = std::fs::read(path).unwrap().leak();
        let files = ModelFiles::Embedded(Arc::from([("layers/model.safetensors", bytes)]));
        let weights = Weights::open(&files, "layers").unwrap().at(case);
        let recorded = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
        let layer = EncoderLayer::new(&config, &weights).unwrap();
        let ours = layer.forward(&recorded[&format!("{case}.input")]).unwrap();
        let difference = (ours - &recorded[&format!("{case}.output")]).unwrap().abs().unwrap();
        let worst = difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-5, "off by {worst:e}");
    }

    fn small() -> Config {
        Config { hidden_size: 32, num_attention_heads: 2, ..Config::default() }
    }

    #[test]
    fn a_layer_has_its_epsilon_its_gelu_and_its_scales() {
        check_layer("layer", small());
    }

    #[test]
    fn a_layer_may_have_a_gated_feed_forward() {
        check_layer("layer_swiglu", Config { use_swiglu_ffn: true, ..small() });
    }

    #[test]
    fn stages_are_named_or_counted_from_either_end() {
        let stages = |features: Option<&[&str]>, indices: Option<&[i64]>| {
            let out_features = features.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            Config { out_features, out_indices: indices.map(<[i64]>::to_vec), ..Config::default() }.stages()
        };
        assert_eq!(stages(Some(&["stem", "stage3", "stage12"]), None).unwrap(), [0, 3, 12]);
        assert_eq!(stages(Some(&["stage3"]), Some(&[1])).unwrap(), [3]);
        assert_eq!(stages(None, Some(&[-1, 4])).unwrap(), [4, 12]);
        assert_eq!(stages(None, None).unwrap(), [12]);
        for wrong in ["stage13", "stage", "layer1"] {
            assert!(stages(Some(&[wrong]), None).is_err(), "{wrong}");
        }
        assert!(stages(None, Some(&[-14])).is_err());
        assert!(stages(None, Some(&[])).is_err());
    }
}
