//! Text encoders as others write them: OpenCLIP's (`open_clip/transformer.py`) and llama.cpp's T5 (`gguf-py/constants.py`).

use super::{Rule, Shapes, count, side};
use serde_json::{Value, json};

/// Of every published CLIP.
const CLIP_HEAD_DIM: usize = 64;
/// OpenAI's ViT-L, the one encoder whose activation is the quick one.
const CLIP_L_HIDDEN: usize = 768;

pub(super) fn open_clip_rules() -> Vec<Rule> {
    let layer = "text_model.encoder.layers.{}";
    let projections = ["q_proj", "k_proj", "v_proj"].map(|name| format!("{layer}.self_attn.{name}"));
    let named = |suffix: &str| projections.each_ref().map(|name| format!("{name}.{suffix}"));
    let (weights, biases) = (named("weight"), named("bias"));
    let block = "transformer.resblocks.{}";
    let mut rules = vec![
        Rule::split(&format!("{block}.attn.in_proj_weight"), &[1, 1, 1], &weights.each_ref().map(String::as_str)),
        Rule::split(&format!("{block}.attn.in_proj_bias"), &[1, 1, 1], &biases.each_ref().map(String::as_str)),
        // Theirs multiplies from the other side.
        Rule::transpose("text_projection", "text_projection.weight"),
        Rule::whole("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        Rule::whole("token_embedding", "text_model.embeddings.token_embedding"),
        Rule::whole("ln_final", "text_model.final_layer_norm"),
    ];
    let parts = [
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    ];
    rules.extend(parts.map(|(from, to)| Rule::whole(format!("{block}.{from}"), format!("{layer}.{to}"))));
    rules
}

pub(super) fn llama_t5_rules() -> Vec<Rule> {
    let parts = [
        ("attn_q", "layer.0.SelfAttention.q"),
        ("attn_k", "layer.0.SelfAttention.k"),
        ("attn_v", "layer.0.SelfAttention.v"),
        ("attn_o", "layer.0.SelfAttention.o"),
        ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
        ("attn_norm", "layer.0.layer_norm"),
        ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
        ("ffn_up", "layer.1.DenseReluDense.wi_1"),
        ("ffn_down", "layer.1.DenseReluDense.wo"),
        ("ffn_norm", "layer.1.layer_norm"),
    ];
    let mut rules =
        vec![Rule::whole("token_embd", "shared"), Rule::whole("enc.output_norm", "encoder.final_layer_norm")];
    rules.extend(
        parts.map(|(from, to)| Rule::whole(format!("enc.blk.{{}}.{from}"), format!("encoder.block.{{}}.{to}"))),
    );
    rules
}

/// `text_encoder/config.json` of a CLIP, from the shapes.
pub(super) fn clip_config(shapes: &Shapes) -> Result<Value, String> {
    // Newer exporters leave out the prefix.
    let prefix = if shapes.keys().any(|name| name.starts_with("text_model.")) { "text_model." } else { "" };
    let of = |name: &str, at: usize| side(shapes, &format!("{prefix}{name}"), at);
    let hidden = of("embeddings.token_embedding.weight", 1)?;
    let projection = shapes.get("text_projection.weight").and_then(|shape| shape.first().copied());
    Ok(json!({
        "architectures": [if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "vocab_size": of("embeddings.token_embedding.weight", 0)?,
        "hidden_size": hidden,
        "intermediate_size": of("encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": count(shapes, &format!("{prefix}encoder.layers")),
        "num_attention_heads": hidden / CLIP_HEAD_DIM,
        "max_position_embeddings": of("embeddings.position_embedding.weight", 0)?,
        "hidden_act": if hidden == CLIP_L_HIDDEN { "quick_gelu" } else { "gelu" },
        "layer_norm_eps": 1e-5,
        "projection_dim": projection.unwrap_or(hidden),
        // The ends of texts are found as published configurations have them found.
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }))
}

/// `text_encoder_2/config.json` of a T5 encoder, from the shapes.
pub(super) fn t5_config(shapes: &Shapes) -> Result<Value, String> {
    let block = "encoder.block.0.layer";
    let table = if shapes.contains_key("shared.weight") { "shared.weight" } else { "encoder.embed_tokens.weight" };
    let bias = format!("{block}.0.SelfAttention.relative_attention_bias.weight");
    let (buckets, heads) = (side(shapes, &bias, 0)?, side(shapes, &bias, 1)?);
    let inner = side(shapes, &format!("{block}.0.SelfAttention.q.weight"), 0)?;
    Ok(json!({
        "architectures": ["T5EncoderModel"],
        "vocab_size": side(shapes, table, 0)?,
        "d_model": side(shapes, table, 1)?,
        "d_kv": inner.checked_div(heads).ok_or("attention without heads")?,
        "d_ff": side(shapes, &format!("{block}.1.DenseReluDense.wi_0.weight"), 0)?,
        "num_layers": count(shapes, "encoder.block"),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    }))
}
