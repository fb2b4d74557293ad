//! The FLUX.1 transformer as Black Forest Labs publish it (`flux/model.py`), in single files and GGUF.

use super::{Rule, Shapes, count, side};
use serde_json::{Value, json};

/// Channels of a token that Fill models take: latent, masked picture, and mask.
const FILL_CHANNELS: usize = 384;

pub(super) fn rules() -> Vec<Rule> {
    let renamed = [
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
        ("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
        ("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
        ("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
        ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
        ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
        ("final_layer.linear", "proj_out"),
        ("double_blocks.{}.img_mod.lin", "transformer_blocks.{}.norm1.linear"),
        ("double_blocks.{}.txt_mod.lin", "transformer_blocks.{}.norm1_context.linear"),
        ("double_blocks.{}.img_attn.norm.query_norm.scale", "transformer_blocks.{}.attn.norm_q.weight"),
        ("double_blocks.{}.img_attn.norm.key_norm.scale", "transformer_blocks.{}.attn.norm_k.weight"),
        ("double_blocks.{}.txt_attn.norm.query_norm.scale", "transformer_blocks.{}.attn.norm_added_q.weight"),
        ("double_blocks.{}.txt_attn.norm.key_norm.scale", "transformer_blocks.{}.attn.norm_added_k.weight"),
        ("double_blocks.{}.img_attn.proj", "transformer_blocks.{}.attn.to_out.0"),
        ("double_blocks.{}.txt_attn.proj", "transformer_blocks.{}.attn.to_add_out"),
        ("double_blocks.{}.img_mlp.0", "transformer_blocks.{}.ff.net.0.proj"),
        ("double_blocks.{}.img_mlp.2", "transformer_blocks.{}.ff.net.2"),
        ("double_blocks.{}.txt_mlp.0", "transformer_blocks.{}.ff_context.net.0.proj"),
        ("double_blocks.{}.txt_mlp.2", "transformer_blocks.{}.ff_context.net.2"),
        ("single_blocks.{}.modulation.lin", "single_transformer_blocks.{}.norm.linear"),
        ("single_blocks.{}.norm.query_norm.scale", "single_transformer_blocks.{}.attn.norm_q.weight"),
        ("single_blocks.{}.norm.key_norm.scale", "single_transformer_blocks.{}.attn.norm_k.weight"),
        ("single_blocks.{}.linear2", "single_transformer_blocks.{}.proj_out"),
    ];
    let attention = "transformer_blocks.{}.attn";
    let of_attention = |names: [&str; 3]| names.map(|name| format!("{attention}.{name}"));
    let img = of_attention(["to_q", "to_k", "to_v"]);
    let txt = of_attention(["add_q_proj", "add_k_proj", "add_v_proj"]);
    let single = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"];
    let single = single.map(|name| format!("single_transformer_blocks.{{}}.{name}"));
    let mut rules = vec![
        Rule::split("double_blocks.{}.img_attn.qkv", &[1, 1, 1], &img.each_ref().map(String::as_str)),
        Rule::split("double_blocks.{}.txt_attn.qkv", &[1, 1, 1], &txt.each_ref().map(String::as_str)),
        Rule::split("single_blocks.{}.linear1", &[1, 1, 1, 4], &single.each_ref().map(String::as_str)),
        // Theirs is shift before scale, here and only here.
        Rule::swap_halves("final_layer.adaLN_modulation.1", "norm_out.linear"),
    ];
    rules.extend(renamed.map(|(from, to)| Rule::whole(from, to)));
    rules
}

/// `transformer/config.json`, from the shapes.
pub(super) fn config(shapes: &Shapes) -> Result<Value, String> {
    let (hidden, in_channels) = (side(shapes, "x_embedder.weight", 0)?, side(shapes, "x_embedder.weight", 1)?);
    if in_channels == FILL_CHANNELS {
        return Err("a FLUX.1 Fill model, which paints masked parts; this version cannot run it".to_owned());
    }
    let head_dim = side(shapes, "transformer_blocks.0.attn.norm_q.weight", 0)?;
    let eighth = head_dim / 8;
    Ok(json!({
        "_class_name": "FluxTransformer2DModel",
        "in_channels": in_channels,
        "out_channels": side(shapes, "proj_out.weight", 0)?,
        "num_layers": count(shapes, "transformer_blocks"),
        "num_single_layers": count(shapes, "single_transformer_blocks"),
        "attention_head_dim": head_dim,
        "num_attention_heads": hidden.checked_div(head_dim).ok_or("attention heads of no width")?,
        "joint_attention_dim": side(shapes, "context_embedder.weight", 1)?,
        "pooled_projection_dim": side(shapes, "time_text_embed.text_embedder.linear_1.weight", 1)?,
        "guidance_embeds": shapes.contains_key("time_text_embed.guidance_embedder.linear_1.weight"),
        // 16, 56 and 56 of the 128 that every published model has.
        "axes_dims_rope": [eighth, (head_dim - eighth) / 2, (head_dim - eighth) / 2],
    }))
}

/// `scheduler/scheduler_config.json`, from the transformer's shapes: those that embed guidance (dev) shift by the
/// picture's size, those that do not (schnell) not at all.
pub(super) fn scheduler(shapes: &Shapes) -> Value {
    let is_distilled = shapes.contains_key("time_text_embed.guidance_embedder.linear_1.weight");
    json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": if is_distilled { 3.0 } else { 1.0 },
        "use_dynamic_shifting": is_distilled,
    })
}
