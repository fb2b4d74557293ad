//! The UNet's `config.json`, and what of it this version runs.

use nn::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Blocks on either side that a UNet has at most; halving more often leaves no picture.
const BLOCKS_MAX: usize = 8;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub in_channels: usize,
    pub out_channels: usize,
    pub block_out_channels: Vec<usize>,
    pub down_block_types: Vec<DownBlockType>,
    pub up_block_types: Vec<UpBlockType>,
    layers_per_block: PerBlock,
    #[serde(default = "norm_num_groups")]
    pub norm_num_groups: usize,
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    /// Elements of a token of text.
    pub cross_attention_dim: usize,
    #[serde(default = "one")]
    transformer_layers_per_block: PerBlock,
    /// The number of heads, whatever its name says.
    attention_head_dim: PerBlock,
    /// Elements of the sinusoidal embedding of each of the six sizes.
    pub addition_time_embed_dim: usize,
    /// Elements of pooled text and embedded sizes.
    pub projection_class_embeddings_input_dim: usize,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum DownBlockType {
    #[serde(rename = "DownBlock2D")]
    Plain,
    #[serde(rename = "CrossAttnDownBlock2D")]
    CrossAttn,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum UpBlockType {
    #[serde(rename = "UpBlock2D")]
    Plain,
    #[serde(rename = "CrossAttnUpBlock2D")]
    CrossAttn,
}

/// One number for all blocks, or one for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum PerBlock {
    All(usize),
    Each(Vec<usize>),
}

impl PerBlock {
    fn of(&self, block: usize) -> usize {
        match self {
            Self::All(n) => *n,
            Self::Each(each) => each.get(block).copied().unwrap_or_default(),
        }
    }

    fn fits(&self, n_blocks: usize) -> bool {
        match self {
            Self::All(_) => true,
            Self::Each(each) => each.len() == n_blocks,
        }
    }
}

fn norm_num_groups() -> usize {
    32
}

fn norm_eps() -> f64 {
    1e-5
}

fn one() -> PerBlock {
    PerBlock::All(1)
}

impl Config {
    /// Sizes that the model is told of: the original's, where it was cropped, and the target's.
    pub const N_SIZES: usize = 6;

    /// Blocks on either side.
    pub fn n_blocks(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Residual blocks of a down block; an up block has one more.
    pub(super) fn n_resnets(&self, block: usize) -> usize {
        self.layers_per_block.of(block)
    }

    /// Layers of each transformer of a block.
    pub(super) fn n_transformer_layers(&self, block: usize) -> usize {
        self.transformer_layers_per_block.of(block)
    }

    pub(super) fn n_heads(&self, block: usize) -> usize {
        self.attention_head_dim.of(block)
    }

    /// Elements of the embedding of time and sizes.
    pub(super) fn time_dim(&self) -> usize {
        4 * self.block_out_channels[0]
    }

    /// Elements of the pooled text.
    pub fn pooled_dim(&self) -> usize {
        self.projection_class_embeddings_input_dim.saturating_sub(Self::N_SIZES * self.addition_time_embed_dim)
    }

    pub(super) fn check(&self) -> Result<()> {
        let n = self.n_blocks();
        let fits = (1..=BLOCKS_MAX).contains(&n) && self.down_block_types.len() == n && self.up_block_types.len() == n;
        let per_block = [&self.layers_per_block, &self.transformer_layers_per_block, &self.attention_head_dim];
        if !fits || !per_block.iter().all(|values| values.fits(n)) {
            return Err(Error::Shape(format!("a UNet's lists are not of one length: block_out_channels has {n}")));
        }
        for (block, channels) in self.block_out_channels.iter().enumerate() {
            let n_heads = self.n_heads(block);
            if n_heads == 0 || !channels.is_multiple_of(n_heads) {
                return Err(Error::Shape(format!("attention_head_dim: {channels} channels make no {n_heads} heads")));
            }
        }
        self.check_others()
    }

    /// What the reference's class can also be, and this one cannot: an option it does not know would be passed over.
    fn check_others(&self) -> Result<()> {
        // Each with what it has to be where it is given, and whether it has to be given.
        let fixed = [
            ("addition_embed_type", json!("text_time"), true),
            ("use_linear_projection", json!(true), true),
            ("act_fn", json!("silu"), false),
            ("attention_type", json!("default"), false),
            ("center_input_sample", json!(false), false),
            ("class_embed_type", Value::Null, false),
            ("class_embeddings_concat", json!(false), false),
            ("conv_in_kernel", json!(3), false),
            ("conv_out_kernel", json!(3), false),
            ("cross_attention_norm", Value::Null, false),
            ("downsample_padding", json!(1), false),
            ("dual_cross_attention", json!(false), false),
            ("encoder_hid_dim_type", Value::Null, false),
            ("flip_sin_to_cos", json!(true), false),
            ("freq_shift", json!(0), false),
            ("mid_block_scale_factor", json!(1), false),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), false),
            ("num_attention_heads", Value::Null, false),
            ("num_class_embeds", Value::Null, false),
            ("only_cross_attention", json!(false), false),
            ("resnet_out_scale_factor", json!(1), false),
            ("resnet_skip_time_act", json!(false), false),
            ("resnet_time_scale_shift", json!("default"), false),
            ("reverse_transformer_layers_per_block", Value::Null, false),
            ("time_cond_proj_dim", Value::Null, false),
            ("time_embedding_act_fn", Value::Null, false),
            ("time_embedding_dim", Value::Null, false),
            ("time_embedding_type", json!("positional"), false),
            ("timestep_post_act", Value::Null, false),
        ];
        for (field, allowed, required) in fixed {
            let given = self.others.get(field).filter(|value| !value.is_null());
            let is_allowed = given.map_or(!required, |given| same(given, &allowed));
            if !is_allowed {
                let got = given.map_or("nothing".to_owned(), Value::to_string);
                return Err(Error::Shape(format!("{field}: got {got}; allowed: {allowed}")));
            }
        }
        Ok(())
    }
}

/// Equal, and 1 and 1.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < f64::EPSILON,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration of Stable Diffusion XL 1.0, as published.
    fn base(changes: &Value) -> Config {
        let mut config = json!({
            "act_fn": "silu", "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "center_input_sample": false,
            "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": 2048, "downsample_padding": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
            "mid_block_scale_factor": 1.0, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
            "projection_class_embeddings_input_dim": 2816, "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "upcast_attention": null, "use_linear_projection": true,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn the_published_configuration_is_run() {
        let config = base(&json!({}));
        config.check().unwrap();
        assert_eq!((config.pooled_dim(), config.time_dim(), config.n_heads(2)), (1280, 1280, 20));
        assert_eq!((config.n_transformer_layers(2), config.n_resnets(0)), (10, 2));
    }

    #[test]
    fn what_is_not_run_is_refused_by_name() {
        #[track_caller]
        fn check(changes: &Value, field: &str) {
            let error = base(changes).check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        check(&json!({ "use_linear_projection": false }), "use_linear_projection: got false; allowed: true");
        check(&json!({ "addition_embed_type": null }), "addition_embed_type: got nothing");
        check(&json!({ "time_cond_proj_dim": 256 }), "time_cond_proj_dim");
        check(&json!({ "attention_head_dim": [5, 10] }), "not of one length");
        check(&json!({ "attention_head_dim": 7 }), "attention_head_dim");
        check(&json!({ "block_out_channels": [] }), "not of one length");
    }
}
