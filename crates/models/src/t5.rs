//! T5's encoder, version 1.1 (Raffel et al., arXiv:1910.10683; transformers 5.23.0, `models/t5/modeling_t5.py`).
//!
//! FLUX gives it no attention mask: padding is attended to, so the length of the padded text changes the result.

use candle_core::Tensor;
use nn::attention::{Heads, Mask, attend};
use nn::embedding::Embedding;
use nn::linear::{Input, Linear, forward_each};
use nn::norm::RmsNorm;
use nn::values::to_vec;
use nn::{Activation, Error, Precision, Result, Weights};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    #[serde(default = "relative_attention_max_distance")]
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    pub feed_forward_proj: FeedForwardProj,
}

/// The feed-forward forms that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum FeedForwardProj {
    #[serde(rename = "gated-gelu")]
    GatedGelu,
}

fn relative_attention_max_distance() -> usize {
    128
}

pub struct T5Encoder {
    shared: Embedding,
    blocks: Vec<Block>,
    final_layer_norm: RmsNorm,
    relative_attention_bias: RelativeBias,
}

struct Block {
    attention_norm: RmsNorm,
    attention: SelfAttention,
    feed_forward_norm: RmsNorm,
    feed_forward: GatedFeedForward,
}

struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    n_heads: usize,
}

struct GatedFeedForward {
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
}

/// Learned per head and bucket of distance; block 0's serves all blocks.
struct RelativeBias {
    /// `(buckets, heads)`
    table: Vec<f32>,
    n_buckets: usize,
    n_heads: usize,
    max_distance: usize,
}

impl T5Encoder {
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let encoder = weights.at("encoder");
        let blocks = encoder.at("block");
        // The token table is tied; exporters write it under one of two names, or both.
        let shared = if weights.has("shared") { weights.at("shared") } else { encoder.at("embed_tokens") };
        encoder.skip("embed_tokens");
        let bias_weights = blocks.at("0.layer.0.SelfAttention.relative_attention_bias");
        Ok(Self {
            shared: Embedding::new(&shared, config.vocab_size, config.d_model)?,
            blocks: (0..config.num_layers).map(|idx| Block::new(config, &blocks.at(idx))).collect::<Result<_>>()?,
            final_layer_norm: RmsNorm::new(&encoder.at("final_layer_norm"), config.d_model, config.layer_norm_epsilon)?,
            relative_attention_bias: RelativeBias::new(config, &bias_weights)?,
        })
    }

    /// Encodes one padded text.
    ///
    /// # Shapes
    /// - output: `(1, tokens, d_model)`
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let bias = self.relative_attention_bias.between(tokens.len());
        let mut hidden = self.shared.forward(tokens)?;
        for block in &self.blocks {
            hidden = block.forward(&hidden, &bias)?;
        }
        self.final_layer_norm.forward(&hidden)
    }
}

impl Block {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (attention, feed_forward) = (weights.at("layer.0"), weights.at("layer.1"));
        let norm = |weights: &Weights| RmsNorm::new(weights, config.d_model, config.layer_norm_epsilon);
        Ok(Self {
            attention_norm: norm(&attention.at("layer_norm"))?,
            attention: SelfAttention::new(config, &attention.at("SelfAttention"))?,
            feed_forward_norm: norm(&feed_forward.at("layer_norm"))?,
            feed_forward: GatedFeedForward::new(config, &feed_forward.at("DenseReluDense"))?,
        })
    }

    /// # Shapes
    /// - x, output: `(1, tokens, d_model)`; bias: `(heads, tokens, tokens)`
    fn forward(&self, x: &Tensor, bias: &[f32]) -> Result<Tensor> {
        let x = nn::add(x, &self.attention.forward(&self.attention_norm.forward(x)?, bias)?)?;
        nn::add(&x, &self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?)
    }
}

impl SelfAttention {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (n, inner) = (config.d_model, config.num_heads * config.d_kv);
        Ok(Self {
            q: Linear::without_bias(&weights.at("q"), n, inner)?,
            k: Linear::without_bias(&weights.at("k"), n, inner)?,
            v: Linear::without_bias(&weights.at("v"), n, inner)?,
            o: Linear::without_bias(&weights.at("o"), inner, n)?,
            n_heads: config.num_heads,
        })
    }

    fn forward(&self, x: &Tensor, bias: &[f32]) -> Result<Tensor> {
        // T5 does not scale its scores.
        let heads = Heads { n_heads: self.n_heads, scale: 1.0, mask: Mask::Bias(bias), precision: Precision::F32 };
        let [q, k, v] = forward_each([&self.q, &self.k, &self.v], x)?;
        let attended = attend(&q, &k, &v, heads)?;
        self.o.forward(&attended)
    }
}

impl GatedFeedForward {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let FeedForwardProj::GatedGelu = config.feed_forward_proj;
        Ok(Self {
            wi_0: Linear::without_bias(&weights.at("wi_0"), config.d_model, config.d_ff)?,
            wi_1: Linear::without_bias(&weights.at("wi_1"), config.d_model, config.d_ff)?,
            wo: Linear::without_bias(&weights.at("wo"), config.d_ff, config.d_model)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, inner) =
            Input::read(&[x], |x| Ok((self.wi_0.apply_activated(x, Activation::GeluTanh)?, self.wi_1.apply(x)?)))?;
        self.wo.forward(&nn::multiply(&gate, &inner)?)
    }
}

impl RelativeBias {
    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let (n_buckets, n_heads) = (config.relative_attention_num_buckets, config.num_heads);
        if n_buckets < 4 || !n_buckets.is_multiple_of(4) || config.relative_attention_max_distance <= n_buckets / 4 {
            return Err(Error::Shape(format!("{n_buckets} buckets of relative attention")));
        }
        let table = to_vec(&weights.tensor("weight", &[n_buckets, n_heads])?)?;
        Ok(Self { table, n_buckets, n_heads, max_distance: config.relative_attention_max_distance })
    }

    /// `(heads, queries, keys)` for a text of this length.
    fn between(&self, n_tokens: usize) -> Vec<f32> {
        let mut bias = Vec::with_capacity(self.n_heads * n_tokens * n_tokens);
        for head in 0..self.n_heads {
            for query in 0..n_tokens as i64 {
                for key in 0..n_tokens as i64 {
                    bias.push(self.table[self.bucket(key - query) * self.n_heads + head]);
                }
            }
        }
        bias
    }

    /// Half the buckets look back, half ahead; of each half, the first half holds exact distances, the rest grow with
    /// the logarithm. In f32, as the reference computes it: the borders of buckets depend on it.
    fn bucket(&self, distance: i64) -> usize {
        let half = self.n_buckets / 2;
        let ahead = if distance > 0 { half } else { 0 };
        let distance = distance.unsigned_abs() as usize;
        let n_exact = half / 2;
        if distance < n_exact {
            return ahead + distance;
        }
        let growth = (distance as f32 / n_exact as f32).ln() / (self.max_distance as f64 / n_exact as f64).ln() as f32;
        let bucket = n_exact + (growth * (half - n_exact) as f32) as usize;
        ahead + bucket.min(half - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use serde_json::{Value, json};

    fn off(case: &str, changes: &[(&str, Value)]) -> f32 {
        let fixture = Fixture::open("towers.safetensors", &format!("t5.{case}"));
        let mut config = json!({
            "vocab_size": 12, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 2, "num_layers": 1,
            "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu",
        });
        for (field, value) in changes {
            config[*field] = value.clone();
        }
        let encoder = T5Encoder::new(&serde_json::from_value(config).unwrap(), &fixture.weights).unwrap();
        fixture.off("output", &encoder.forward(&[3, 7, 5, 1, 11, 4]).unwrap())
    }

    #[test]
    fn its_norms_have_their_epsilon_and_its_gelu_is_the_tanh_one() {
        for case in ["norms", "gelu"] {
            let worst = off(case, &[]);
            assert!(worst < 1e-5, "{case} is off by {worst:e}");
        }
        assert!(off("norms", &[("layer_norm_epsilon", json!(1e-5))]) > 1e-3, "the fixture shows no epsilon");
    }

    /// The recorded layers of the reference.
    fn recorded() -> std::collections::HashMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/layers.safetensors");
        candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap()
    }

    #[test]
    fn every_distance_falls_into_the_references_bucket() {
        let bias = RelativeBias { table: vec![0.0; 32], n_buckets: 32, n_heads: 1, max_distance: 128 };
        let recorded = recorded();
        let whole = |name: &str| recorded[name].to_vec1::<i64>().unwrap();
        let pairs = whole("t5_bias.buckets.input").into_iter().zip(whole("t5_bias.buckets.output"));
        for (distance, bucket) in pairs {
            assert_eq!(bias.bucket(distance) as i64, bucket, "distance {distance}");
        }
    }

    #[test]
    fn the_table_is_read_by_bucket_and_head() {
        let recorded = recorded();
        let table = to_vec(&recorded["t5_bias.table.weight"]).unwrap();
        let bias = RelativeBias { table, n_buckets: 32, n_heads: 4, max_distance: 128 };
        assert_eq!(bias.between(150), to_vec(&recorded["t5_bias.table.output"]).unwrap());
    }

    #[test]
    fn buckets_are_exact_near_and_logarithmic_far() {
        let bias = RelativeBias { table: vec![0.0; 32], n_buckets: 32, n_heads: 1, max_distance: 128 };
        let expected =
            [(0, 0), (-1, 1), (1, 17), (-7, 7), (7, 23), (-8, 8), (-16, 10), (-32, 12), (-64, 14), (-127, 15)];
        for (distance, bucket) in expected {
            assert_eq!(bias.bucket(distance), bucket, "distance {distance}");
        }
        assert_eq!((bias.bucket(-5000), bias.bucket(5000)), (15, 31));
    }
}
