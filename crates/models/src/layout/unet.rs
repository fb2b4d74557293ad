//! SDXL's UNet as Stability AI publish it (`sgm/modules/diffusionmodules/openaimodel.py`), in single-file checkpoints.

use super::{Rule, Shapes, count, side};
use serde_json::{Value, json};

/// Of every published SDXL model.
const HEAD_DIM: usize = 64;
/// Channels of a latent.
const LATENT_CHANNELS: usize = 4;
const RESNETS_PER_BLOCK: usize = 2;
/// Sides of the picture and of the crop that conditions the UNet, and of the target.
const N_TIME_IDS: usize = 6;

/// Three levels: two residual blocks each on the way down, three on the way up, attention on the two lower levels.
pub(super) fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for level in 0..3usize {
        for at in 0..RESNETS_PER_BLOCK {
            let input = 1 + 3 * level + at;
            resnet(&mut rules, &format!("input_blocks.{input}.0"), &format!("down_blocks.{level}.resnets.{at}"));
            if level > 0 {
                let to = format!("down_blocks.{level}.attentions.{at}");
                rules.push(Rule::whole(format!("input_blocks.{input}.1"), to));
            }
        }
        for at in 0..=RESNETS_PER_BLOCK {
            let output = 3 * level + at;
            resnet(&mut rules, &format!("output_blocks.{output}.0"), &format!("up_blocks.{level}.resnets.{at}"));
            if level < 2 {
                let to = format!("up_blocks.{level}.attentions.{at}");
                rules.push(Rule::whole(format!("output_blocks.{output}.1"), to));
            }
        }
    }
    for level in 0..2 {
        let (input, output) = (3 + 3 * level, 2 + 3 * level);
        let down = format!("down_blocks.{level}.downsamplers.0.conv");
        rules.push(Rule::whole(format!("input_blocks.{input}.0.op"), down));
        rules.push(Rule::whole(
            format!("output_blocks.{output}.2.conv"),
            format!("up_blocks.{level}.upsamplers.0.conv"),
        ));
    }
    resnet(&mut rules, "middle_block.0", "mid_block.resnets.0");
    resnet(&mut rules, "middle_block.2", "mid_block.resnets.1");
    let renamed = [
        ("middle_block.1", "mid_block.attentions.0"),
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("label_emb.0.0", "add_embedding.linear_1"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ];
    rules.extend(renamed.map(|(from, to)| Rule::whole(from, to)));
    rules
}

fn resnet(rules: &mut Vec<Rule>, from: &str, to: &str) {
    let parts = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ];
    rules.extend(parts.map(|(theirs, ours)| Rule::whole(format!("{from}.{theirs}"), format!("{to}.{ours}"))));
}

/// `unet/config.json`, from the shapes.
pub(super) fn config(shapes: &Shapes) -> Result<Value, String> {
    let in_channels = side(shapes, "conv_in.weight", 1)?;
    if in_channels != LATENT_CHANNELS {
        return Err(format!(
            "a UNet of {in_channels} input channels; allowed: {LATENT_CHANNELS} (no inpainting models)"
        ));
    }
    if !shapes.contains_key("add_embedding.linear_1.weight") {
        return Err("a UNet without size conditioning, so not SDXL; this version cannot run it".to_owned());
    }
    let levels: Vec<String> = (0..count(shapes, "down_blocks")).map(|idx| format!("down_blocks.{idx}")).collect();
    let channels: Vec<usize> = levels
        .iter()
        .map(|level| side(shapes, &format!("{level}.resnets.0.conv1.weight"), 0))
        .collect::<Result<_, _>>()?;
    let depth = |level: &String| count(shapes, &format!("{level}.attentions.0.transformer_blocks"));
    let depths: Vec<usize> = levels.iter().map(depth).collect();
    let kinds = |attended: &str, plain: &str, depths: &mut dyn Iterator<Item = &usize>| -> Vec<String> {
        depths.map(|depth| if *depth > 0 { attended } else { plain }.to_owned()).collect()
    };
    let attended = depths.iter().position(|depth| *depth > 0).ok_or("a UNet without attention")?;
    let context = format!("{}.attentions.0.transformer_blocks.0.attn2.to_k.weight", levels[attended]);
    let (added, pooled) = (side(shapes, "add_embedding.linear_1.weight", 1)?, 1280);
    Ok(json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": added.saturating_sub(pooled) / N_TIME_IDS,
        "attention_head_dim": channels.iter().map(|n| n / HEAD_DIM).collect::<Vec<_>>(),
        "block_out_channels": channels,
        "center_input_sample": false,
        "cross_attention_dim": side(shapes, &context, 1)?,
        "down_block_types": kinds("CrossAttnDownBlock2D", "DownBlock2D", &mut depths.iter()),
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": in_channels,
        "layers_per_block": RESNETS_PER_BLOCK,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": side(shapes, "conv_out.weight", 0)?,
        "projection_class_embeddings_input_dim": added,
        "sample_size": 128,
        // A level without attention counts as one of depth one.
        "transformer_layers_per_block": depths.iter().map(|depth| (*depth).max(1)).collect::<Vec<_>>(),
        "up_block_types": kinds("CrossAttnUpBlock2D", "UpBlock2D", &mut depths.iter().rev()),
        "use_linear_projection": true,
    }))
}

/// `scheduler/scheduler_config.json` of SDXL base.
pub(super) fn scheduler() -> Value {
    json!({
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": false,
    })
}
