//! The autoencoder as CompVis and Black Forest Labs publish it (`autoencoder.py`): `ae.safetensors`, `first_stage_model`.

use super::{Rule, Shapes, count, side};
use serde_json::{Value, json};

/// Of every published model.
const N_LEVELS: usize = 4;
const FLUX_CHANNELS: usize = 16;

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = vec![Rule::whole("quant_conv", "quant_conv"), Rule::whole("post_quant_conv", "post_quant_conv")];
    for half in ["encoder", "decoder"] {
        let renamed = [
            ("conv_in", "conv_in"),
            ("conv_out", "conv_out"),
            ("norm_out", "conv_norm_out"),
            ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
        ];
        rules.extend(renamed.map(|(from, to)| Rule::whole(format!("{half}.{from}"), format!("{half}.{to}"))));
        for (from, to) in [("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")] {
            let to = format!("{half}.mid_block.attentions.0.{to}");
            rules.push(Rule::pointwise(format!("{half}.mid.attn_1.{from}"), to));
        }
        resnet(&mut rules, &format!("{half}.mid.block_1"), &format!("{half}.mid_block.resnets.0"));
        resnet(&mut rules, &format!("{half}.mid.block_2"), &format!("{half}.mid_block.resnets.1"));
    }
    for level in 0..N_LEVELS {
        // Theirs counts levels from the largest on both ways.
        let up = N_LEVELS - 1 - level;
        resnet(
            &mut rules,
            &format!("encoder.down.{level}.block.{{}}"),
            &format!("encoder.down_blocks.{level}.resnets.{{}}"),
        );
        resnet(&mut rules, &format!("decoder.up.{level}.block.{{}}"), &format!("decoder.up_blocks.{up}.resnets.{{}}"));
        rules.push(Rule::whole(
            format!("encoder.down.{level}.downsample.conv"),
            format!("encoder.down_blocks.{level}.downsamplers.0.conv"),
        ));
        rules.push(Rule::whole(
            format!("decoder.up.{level}.upsample.conv"),
            format!("decoder.up_blocks.{up}.upsamplers.0.conv"),
        ));
    }
    rules
}

fn resnet(rules: &mut Vec<Rule>, from: &str, to: &str) {
    let kept = ["norm1", "conv1", "norm2", "conv2"];
    rules.extend(kept.map(|part| Rule::whole(format!("{from}.{part}"), format!("{to}.{part}"))));
    rules.push(Rule::whole(format!("{from}.nin_shortcut"), format!("{to}.conv_shortcut")));
}

/// `vae/config.json`, from the shapes: 16 latent channels are FLUX's, 4 SDXL's.
pub(super) fn config(shapes: &Shapes) -> Result<Value, String> {
    let latent_channels = side(shapes, "decoder.conv_in.weight", 1)?;
    let n_levels = count(shapes, "encoder.down_blocks");
    let channels: Vec<usize> = (0..n_levels)
        .map(|idx| side(shapes, &format!("encoder.down_blocks.{idx}.resnets.0.conv1.weight"), 0))
        .collect::<Result<_, _>>()?;
    let (scaling_factor, shift_factor) = match latent_channels {
        FLUX_CHANNELS => (0.3611, Some(0.1159)),
        4 => (0.13025, None),
        other => return Err(format!("an autoencoder of {other} latent channels; allowed: 4 and {FLUX_CHANNELS}")),
    };
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "in_channels": side(shapes, "encoder.conv_in.weight", 1)?,
        "out_channels": side(shapes, "decoder.conv_out.weight", 0)?,
        "latent_channels": latent_channels,
        "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; n_levels],
        "up_block_types": vec!["UpDecoderBlock2D"; n_levels],
        "layers_per_block": count(shapes, "encoder.down_blocks.0.resnets"),
        "norm_num_groups": 32,
        "scaling_factor": scaling_factor,
        "shift_factor": shift_factor,
        "use_quant_conv": shapes.contains_key("quant_conv.weight"),
        "use_post_quant_conv": shapes.contains_key("post_quant_conv.weight"),
        "mid_block_add_attention": shapes.contains_key("encoder.mid_block.attentions.0.to_q.weight"),
        "force_upcast": true,
    }))
}
