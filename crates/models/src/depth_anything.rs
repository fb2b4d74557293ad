//! Depth Anything (Yang et al., arXiv:2406.09414; transformers 5.23.0, `models/depth_anything`): how far away each pixel
//! is, from a DINOv2 backbone, a neck that fuses four of its stages, and a head (Ranftl et al., arXiv:2103.13413).

use crate::dinov2::{self, Dinov2};
use crate::probe::Probe;
use candle_core::Tensor;
use nn::conv::{Conv2d, ConvTranspose2d, Extent, Form, Squares};
use nn::interpolate::{Interpolation, interpolate};
use nn::{Error, Result, Weights};
use serde::Deserialize;

/// Fields that a checkpoint leaves out have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub backbone_config: dinov2::Config,
    #[serde(default = "patch_size")]
    pub patch_size: usize,
    #[serde(default = "reassemble_hidden_size")]
    pub reassemble_hidden_size: usize,
    /// How much larger than the grid of patches each stage's map becomes.
    #[serde(default = "reassemble_factors")]
    pub reassemble_factors: Vec<f64>,
    #[serde(default = "neck_hidden_sizes")]
    pub neck_hidden_sizes: Vec<usize>,
    #[serde(default = "fusion_hidden_size")]
    pub fusion_hidden_size: usize,
    /// Which fused map the head takes; negative ones count from the end.
    #[serde(default = "head_in_index")]
    pub head_in_index: i64,
    #[serde(default = "head_hidden_size")]
    pub head_hidden_size: usize,
    #[serde(default)]
    pub depth_estimation_type: DepthEstimationType,
    pub max_depth: Option<f64>,
}

/// What the numbers mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthEstimationType {
    /// The larger, the nearer; no unit.
    #[default]
    Relative,
    /// Meters, up to `max_depth`.
    Metric,
}

fn patch_size() -> usize {
    14
}

fn reassemble_hidden_size() -> usize {
    384
}

fn reassemble_factors() -> Vec<f64> {
    vec![4.0, 2.0, 1.0, 0.5]
}

fn neck_hidden_sizes() -> Vec<usize> {
    vec![48, 96, 192, 384]
}

fn fusion_hidden_size() -> usize {
    64
}

fn head_in_index() -> i64 {
    -1
}

fn head_hidden_size() -> usize {
    32
}

pub struct DepthAnything {
    backbone: Dinov2,
    neck: Neck,
    head: Head,
    patch_size: usize,
}

impl DepthAnything {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let backbone = Dinov2::new(&config.backbone_config, &weights.at("backbone"))?;
        let n_maps = config.neck_hidden_sizes.len();
        if backbone.n_stages() != n_maps || config.reassemble_factors.len() != n_maps {
            let n_factors = config.reassemble_factors.len();
            let stages = backbone.n_stages();
            return Err(Error::Shape(format!("{stages} stages, {n_factors} factors and {n_maps} maps in a neck")));
        }
        if config.backbone_config.hidden_size != config.reassemble_hidden_size || config.patch_size == 0 {
            let (tokens, maps) = (config.backbone_config.hidden_size, config.reassemble_hidden_size);
            return Err(Error::Shape(format!("maps of {maps} channels from tokens of {tokens}")));
        }
        Ok(Self {
            backbone,
            neck: Neck::new(config, &weights.at("neck"))?,
            head: Head::new(config, &weights.at("head"))?,
            patch_size: config.patch_size,
        })
    }

    /// # Shapes
    /// - image: `(b, 3, h, w)`, normalized, both sides multiples of the patch
    /// - output: `(b, h, w)`, at least 0; see [`DepthEstimationType`]
    pub fn forward(&self, image: &Tensor, probe: &mut dyn Probe) -> Result<Tensor> {
        let (_, _, height, width) = image.dims4()?;
        let patches = Extent { height: height / self.patch_size, width: width / self.patch_size };
        let feature_maps = self.backbone.forward(image, probe)?;
        let fused = self.neck.forward(&feature_maps, patches, probe)?;
        let size = Extent { height: patches.height * self.patch_size, width: patches.width * self.patch_size };
        let depth = self.head.forward(&fused, size)?;
        probe.see("predicted_depth", &depth);
        Ok(depth)
    }
}

struct Neck {
    reassemble: Vec<Reassemble>,
    convs: Vec<Conv2d>,
    /// From the last stage to the first.
    fusion: Vec<Fusion>,
}

impl Neck {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let n = config.fusion_hidden_size;
        let mut neck = Self { reassemble: Vec::new(), convs: Vec::new(), fusion: Vec::new() };
        for (idx, channels) in config.neck_hidden_sizes.iter().copied().enumerate() {
            let stage = weights.at("reassemble_stage.layers").at(idx);
            neck.reassemble.push(Reassemble::new(config, idx, &stage)?);
            neck.convs.push(Conv2d::without_bias(&weights.at("convs").at(idx), Form::same(channels, n))?);
            // The first one has nothing to add to, and a residual layer for it all the same.
            neck.fusion.push(Fusion::new(n, &weights.at("fusion_stage.layers").at(idx))?);
        }
        Ok(neck)
    }

    /// The fused maps, each with all stages from the last one down to its own.
    ///
    /// # Shapes
    /// - feature_maps: `(b, 1 + patches, hidden)` each
    /// - output: `(b, fusion_hidden, h, w)` each, twice as large from one to the next
    fn forward(&self, feature_maps: &[Tensor], patches: Extent, probe: &mut dyn Probe) -> Result<Vec<Tensor>> {
        let mut maps = Vec::with_capacity(feature_maps.len());
        for (idx, ((tokens, reassemble), conv)) in
            feature_maps.iter().zip(&self.reassemble).zip(&self.convs).enumerate()
        {
            let map = reassemble.forward(tokens, patches)?;
            probe.see(&format!("reassemble_{idx}"), &map);
            maps.push(conv.forward(&map)?);
            probe.see(&format!("conv_{idx}"), &maps[idx]);
        }
        maps.reverse();

        let mut fused: Vec<Tensor> = Vec::with_capacity(maps.len());
        for (idx, (map, fusion)) in maps.iter().zip(&self.fusion).enumerate() {
            // As large as the next map, and twice as large after the last one.
            let size = match maps.get(idx + 1) {
                Some(next) => extent(next)?,
                None => Extent { height: 2 * extent(map)?.height, width: 2 * extent(map)?.width },
            };
            let out = match fused.last() {
                None => fusion.forward(map, size)?,
                Some(coarser) => fusion.forward(&fusion.joined(coarser, map)?, size)?,
            };
            probe.see(&format!("fusion_{idx}"), &out);
            fused.push(out);
        }
        Ok(fused)
    }
}

/// Makes a picture of a stage's tokens, in the stage's own size.
struct Reassemble {
    projection: Conv2d,
    resize: Resize,
}

enum Resize {
    Enlarge(ConvTranspose2d),
    Keep,
    Shrink(Conv2d),
}

impl Reassemble {
    fn new(config: &Config, idx: usize, weights: &Weights) -> Result<Self> {
        let (channels, factor) = (config.neck_hidden_sizes[idx], config.reassemble_factors[idx]);
        let projection = Form::pointwise(config.reassemble_hidden_size, channels);
        Ok(Self {
            projection: Conv2d::new(&weights.at("projection"), projection)?,
            resize: Resize::new(channels, factor, &weights.at("resize"))?,
        })
    }

    /// # Shapes
    /// - tokens: `(b, 1 + patches, hidden)`; output: `(b, channels, h, w)`
    fn forward(&self, tokens: &Tensor, patches: Extent) -> Result<Tensor> {
        let (b, n_tokens, n) = tokens.dims3()?;
        // The class token is left out.
        let map = tokens.narrow(1, 1, n_tokens - 1)?.transpose(1, 2)?.contiguous()?; // (b, hidden, patches)
        let map = self.projection.forward(&map.reshape((b, n, patches.height, patches.width))?)?;
        match &self.resize {
            Resize::Enlarge(conv) => conv.forward(&map),
            Resize::Keep => Ok(map),
            Resize::Shrink(conv) => conv.forward(&map),
        }
    }
}

impl Resize {
    fn new(channels: usize, factor: f64, weights: &Weights) -> Result<Self> {
        const FACTOR_MAX: f64 = 16.0;
        if !(1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&factor) || (factor > 1.0 && factor.fract() != 0.0) {
            return Err(Error::Shape(format!("a map {factor} times as large as the grid of patches")));
        }
        if factor > 1.0 {
            let form = Squares { inputs: channels, outputs: channels, side: factor as usize };
            return Ok(Self::Enlarge(ConvTranspose2d::new(weights, form)?));
        }
        if factor < 1.0 {
            let form = Form { stride: (1.0 / factor) as usize, ..Form::same(channels, channels) };
            return Ok(Self::Shrink(Conv2d::new(weights, form)?));
        }
        Ok(Self::Keep)
    }
}

/// Adds a stage's map to what is coarser, refines and enlarges.
struct Fusion {
    residual_layer1: ResidualLayer,
    residual_layer2: ResidualLayer,
    projection: Conv2d,
}

impl Fusion {
    fn new(n: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            residual_layer1: ResidualLayer::new(n, &weights.at("residual_layer1"))?,
            residual_layer2: ResidualLayer::new(n, &weights.at("residual_layer2"))?,
            projection: Conv2d::new(&weights.at("projection"), Form::pointwise(n, n))?,
        })
    }

    /// The coarser map, which has been enlarged to this stage's size, with this stage's.
    fn joined(&self, coarser: &Tensor, map: &Tensor) -> Result<Tensor> {
        Ok((coarser + self.residual_layer1.forward(map)?)?)
    }

    /// # Shapes
    /// - x: `(b, n, h, w)`; output: `(b, n, size.height, size.width)`
    fn forward(&self, x: &Tensor, size: Extent) -> Result<Tensor> {
        let refined = self.residual_layer2.forward(x)?;
        self.projection.forward(&interpolate(&refined, size, Interpolation::BilinearCorners)?)
    }
}

/// Two convolutions, each behind its activation, beside a residual.
struct ResidualLayer {
    convolution1: Conv2d,
    convolution2: Conv2d,
}

impl ResidualLayer {
    fn new(n: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            convolution1: Conv2d::new(&weights.at("convolution1"), Form::same(n, n))?,
            convolution2: Conv2d::new(&weights.at("convolution2"), Form::same(n, n))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.convolution1.forward(&x.relu()?)?;
        let hidden = self.convolution2.forward(&hidden.relu()?)?;
        Ok((hidden + x)?)
    }
}

struct Head {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
    in_index: usize,
    depth_estimation_type: DepthEstimationType,
    max_depth: f64,
}

impl Head {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (n, n_maps) = (config.fusion_hidden_size, config.neck_hidden_sizes.len() as i64);
        let in_index = if config.head_in_index < 0 { config.head_in_index + n_maps } else { config.head_in_index };
        if !(0..n_maps).contains(&in_index) {
            return Err(Error::Shape(format!("a head on map {} of {n_maps}", config.head_in_index)));
        }
        Ok(Self {
            conv1: Conv2d::new(&weights.at("conv1"), Form::same(n, n / 2))?,
            conv2: Conv2d::new(&weights.at("conv2"), Form::same(n / 2, config.head_hidden_size))?,
            conv3: Conv2d::new(&weights.at("conv3").with_exact_inputs(), Form::pointwise(config.head_hidden_size, 1))?,
            in_index: in_index as usize,
            depth_estimation_type: config.depth_estimation_type,
            max_depth: config.max_depth.unwrap_or(1.0),
        })
    }

    /// # Shapes
    /// - output: `(b, size.height, size.width)`
    fn forward(&self, fused: &[Tensor], size: Extent) -> Result<Tensor> {
        let depth = self.conv1.forward(&fused[self.in_index])?;
        let depth = interpolate(&depth, size, Interpolation::BilinearCorners)?;
        let depth = self.conv3.forward(&self.conv2.forward(&depth)?.relu()?)?;
        let depth = match self.depth_estimation_type {
            DepthEstimationType::Relative => depth.relu()?,
            // The logistic function.
            DepthEstimationType::Metric => (depth.neg()?.exp()? + 1.0)?.recip()?,
        };
        Ok((depth * self.max_depth)?.squeeze(1)?)
    }
}

fn extent(map: &Tensor) -> Result<Extent> {
    let (_, _, height, width) = map.dims4()?;
    Ok(Extent { height, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What published checkpoints write, and what they leave to the defaults.
    #[test]
    fn published_configurations_are_understood() {
        let small = r#"{
            "architectures": ["DepthAnythingForDepthEstimation"], "backbone": null, "backbone_config": {
                "architectures": ["Dinov2Model"], "hidden_size": 384, "image_size": 518, "model_type": "dinov2",
                "num_attention_heads": 6, "out_features": ["stage3", "stage6", "stage9", "stage12"],
                "out_indices": [3, 6, 9, 12], "patch_size": 14, "reshape_hidden_states": false
            }, "fusion_hidden_size": 64, "head_hidden_size": 32, "head_in_index": -1, "model_type": "depth_anything",
            "neck_hidden_sizes": [48, 96, 192, 384], "patch_size": 14, "reassemble_factors": [4, 2, 1, 0.5],
            "reassemble_hidden_size": 384, "use_pretrained_backbone": false
        }"#;
        let small: Config = serde_json::from_str(small).unwrap();
        let bare = r#"{"backbone_config": {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518,
            "out_indices": [3, 6, 9, 12]}, "max_depth": null}"#;
        for config in [&small, &serde_json::from_str(bare).unwrap()] {
            assert_eq!(config.depth_estimation_type, DepthEstimationType::Relative);
            assert_eq!((config.max_depth, config.head_in_index, config.patch_size), (None, -1, 14));
            assert_eq!(config.neck_hidden_sizes, [48, 96, 192, 384]);
            assert_eq!(config.reassemble_factors, [4.0, 2.0, 1.0, 0.5]);
            let backbone = &config.backbone_config;
            assert_eq!((backbone.num_hidden_layers, backbone.layer_norm_eps), (12, 1e-6));
            assert!(backbone.qkv_bias && backbone.apply_layernorm && !backbone.use_swiglu_ffn);
        }
        let metric = bare.replace(r#""max_depth": null"#, r#""max_depth": 80, "depth_estimation_type": "metric""#);
        let metric: Config = serde_json::from_str(&metric).unwrap();
        assert_eq!((metric.depth_estimation_type, metric.max_depth), (DepthEstimationType::Metric, Some(80.0)));
        assert!(serde_json::from_str::<Config>(&bare.replace("384,", r#"384, "hidden_act": "relu","#)).is_err());
    }
}
