//! How published files lay a model out: which model a file holds, told from names and shapes alone, and how its names
//! become the ones that the architectures ask for (those of diffusers and transformers).

mod flux;
mod rules;
mod text;
mod unet;
mod vae;
mod vision;

pub use rules::{Rule, translate, translate_flat};

use nn::view::View;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Names and shapes of tensors.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// A component that a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    FluxTransformer,
    SdxlUnet,
    Vae,
    ClipL,
    ClipG,
    T5,
    ReduxEmbedder,
    Siglip,
}

/// One tensor of a file, and what the model calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    pub name: String,
    pub stored: String,
    pub view: View,
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// One or several components.
    Parts(BTreeMap<Part, Vec<Renamed>>),
    /// Low-rank changes to some model.
    Lora,
}

impl Part {
    pub const ALL: [Self; 8] = [
        Self::FluxTransformer,
        Self::SdxlUnet,
        Self::Vae,
        Self::ClipL,
        Self::ClipG,
        Self::T5,
        Self::ReduxEmbedder,
        Self::Siglip,
    ];

    /// The folder that holds it in the diffusers layout.
    pub const fn component(self) -> &'static str {
        match self {
            Self::FluxTransformer => "transformer",
            Self::SdxlUnet => "unet",
            Self::Vae => "vae",
            Self::ClipL => "text_encoder",
            Self::ClipG | Self::T5 => "text_encoder_2",
            Self::ReduxEmbedder => "image_embedder",
            Self::Siglip => "image_encoder",
        }
    }

    /// What people call it, with the name of a file that has it.
    pub const fn described(self) -> &'static str {
        match self {
            Self::FluxTransformer => "a FLUX transformer (as in flux1-dev.safetensors)",
            Self::SdxlUnet => "an SDXL UNet (as in sd_xl_base_1.0.safetensors)",
            Self::Vae => "an autoencoder (as in ae.safetensors)",
            Self::ClipL => "the CLIP-L text encoder (as in clip_l.safetensors)",
            Self::ClipG => "the OpenCLIP-G text encoder (as in clip_g.safetensors)",
            Self::T5 => "the T5 text encoder (as in t5xxl_fp16.safetensors)",
            Self::ReduxEmbedder => "a Redux embedder (as in flux1-redux-dev.safetensors)",
            Self::Siglip => "a SigLIP vision tower (as in sigclip_vision_patch14_384.safetensors)",
        }
    }

    /// The component's configuration, from the shapes of its tensors by their new names.
    pub fn config(self, shapes: &Shapes) -> Result<Value, String> {
        match self {
            Self::FluxTransformer => flux::config(shapes),
            Self::SdxlUnet => unet::config(shapes),
            Self::Vae => vae::config(shapes),
            Self::ClipL | Self::ClipG => text::clip_config(shapes),
            Self::T5 => text::t5_config(shapes),
            Self::ReduxEmbedder => vision::redux_config(shapes),
            Self::Siglip => vision::siglip_config(shapes),
        }
    }

    /// The schedule that models of this denoiser are run with, unless a folder says otherwise.
    pub fn scheduler(self, shapes: &Shapes) -> Option<Value> {
        match self {
            Self::FluxTransformer => Some(flux::scheduler(shapes)),
            Self::SdxlUnet => Some(unet::scheduler()),
            _ => None,
        }
    }

    /// The key map by which LoRA files may spell this component's layers, beside its own names.
    pub fn foreign_rules(self) -> Vec<Rule> {
        match self {
            Self::FluxTransformer => flux::rules(),
            Self::SdxlUnet => unet::rules(),
            _ => Vec::new(),
        }
    }
}

/// A layout of one component, known by one of its names.
struct Layout {
    part: Part,
    /// What published files have before the names; the first under which the marker is there counts.
    prefixes: &'static [&'static str],
    marker: &'static str,
    rules: fn() -> Vec<Rule>,
}

const LAYOUTS: [Layout; 13] = [
    Layout {
        part: Part::FluxTransformer,
        prefixes: &["model.diffusion_model.", "diffusion_model.", ""],
        marker: "double_blocks.0.img_attn.qkv.weight",
        rules: flux::rules,
    },
    Layout {
        part: Part::FluxTransformer,
        prefixes: &["model.diffusion_model.", "transformer.", ""],
        marker: "transformer_blocks.0.norm1_context.linear.weight",
        rules: Vec::new,
    },
    Layout {
        part: Part::SdxlUnet,
        prefixes: &["model.diffusion_model.", "diffusion_model.", ""],
        marker: "input_blocks.0.0.weight",
        rules: unet::rules,
    },
    Layout {
        part: Part::SdxlUnet,
        prefixes: &["unet.", ""],
        marker: "down_blocks.0.resnets.0.time_emb_proj.weight",
        rules: Vec::new,
    },
    Layout {
        part: Part::Vae,
        prefixes: &["first_stage_model.", "vae.", ""],
        marker: "decoder.mid.block_1.conv1.weight",
        rules: vae::rules,
    },
    Layout {
        part: Part::Vae,
        prefixes: &["vae.", ""],
        marker: "decoder.mid_block.resnets.0.conv1.weight",
        rules: Vec::new,
    },
    Layout {
        part: Part::ClipL,
        prefixes: &[
            "conditioner.embedders.0.transformer.",
            "text_encoders.clip_l.transformer.",
            "text_encoders.clip_l.",
            "",
        ],
        marker: "text_model.embeddings.token_embedding.weight",
        rules: Vec::new,
    },
    Layout { part: Part::ClipL, prefixes: &[""], marker: "embeddings.token_embedding.weight", rules: Vec::new },
    Layout {
        part: Part::ClipG,
        prefixes: &["text_encoders.clip_g.transformer."],
        marker: "text_model.embeddings.token_embedding.weight",
        rules: Vec::new,
    },
    Layout {
        part: Part::ClipG,
        prefixes: &["conditioner.embedders.1.model.", "text_encoders.clip_g.", ""],
        marker: "transformer.resblocks.0.attn.in_proj_weight",
        rules: text::open_clip_rules,
    },
    Layout {
        part: Part::T5,
        prefixes: &["text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", ""],
        marker: "encoder.block.0.layer.0.SelfAttention.q.weight",
        rules: Vec::new,
    },
    Layout { part: Part::T5, prefixes: &[""], marker: "enc.blk.0.attn_q.weight", rules: text::llama_t5_rules },
    Layout { part: Part::ReduxEmbedder, prefixes: &[""], marker: "redux_up.weight", rules: Vec::new },
];

/// What training leaves in published files, and no model takes: whole names, and beginnings that end in a dot.
const LEFTOVERS: [&str; 31] = [
    "model_ema.",
    "first_stage_model.model_ema.",
    "first_stage_model.loss.",
    "loss.",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "betas",
    "denoiser.sigmas",
    "global_step",
    "log_one_minus_alphas_cumprod",
    "logvar",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_variance",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "logit_scale",
    "conditioner.embedders.0.logit_scale",
    "conditioner.embedders.1.logit_scale",
    "conditioner.embedders.1.model.logit_scale",
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    "text_encoders.clip_l.logit_scale",
    "text_encoders.clip_g.logit_scale",
    "text_encoders.t5xxl.logit_scale",
    "text_encoders.clip_l.text_projection",
    "attn_mask",
    // The other half of a CLIP that was saved whole.
    "visual_projection.",
    "visual.",
];

/// Wide enough to be OpenCLIP's, whichever way its tensors are named.
const CLIP_G_HIDDEN: usize = 1280;

/// Tells what a file holds. An error names what keeps it from being anything that we know.
pub fn recognize(shapes: &Shapes) -> Result<Content, String> {
    let found: Vec<(&Layout, &str)> =
        LAYOUTS.iter().filter_map(|layout| Some((layout, prefix_in(layout, shapes)?))).collect();
    if let Some(named) = shapes.keys().find(|name| is_adapter(name))
        && found.is_empty()
    {
        return refusal_of_adapter(named).map_or(Ok(Content::Lora), Err);
    }
    let siglip = "vision_model.embeddings.patch_embedding.bias";
    if found.is_empty() && shapes.contains_key(siglip) {
        return Ok(Content::Parts(BTreeMap::from([(Part::Siglip, shapes.iter().map(unchanged).collect())])));
    }
    let mut parts: BTreeMap<Part, Vec<Renamed>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let rules: Vec<Vec<Rule>> = found.iter().map(|(layout, _)| (layout.rules)()).collect();
    for (stored, shape) in shapes.iter().filter(|(name, _)| !is_leftover(name)) {
        // The longest prefix owns a name; the empty one owns what no other does.
        let owners = found.iter().zip(&rules).filter(|((_, prefix), _)| stored.starts_with(prefix));
        let Some(((layout, prefix), rules)) = owners.max_by_key(|((_, prefix), _)| prefix.len()) else {
            unknown.push(stored.as_str());
            continue;
        };
        let name = &stored[prefix.len()..];
        let is_vision = layout.part == Part::ClipL && name.starts_with("vision_model.");
        let renamed = |(name, view)| Renamed { name, stored: stored.clone(), view };
        // What no rule knows keeps its name, so that the model lists it as unused.
        let same = || vec![(name.to_owned(), View::whole(shape))];
        let views = translate(rules, name, shape).unwrap_or_else(same);
        parts.entry(layout.part).or_default().extend(views.into_iter().filter(|_| !is_vision).map(renamed));
    }
    if parts.is_empty() || !unknown.is_empty() {
        return Err(not_known(shapes, &unknown));
    }
    check_once(&parts)?;
    Ok(Content::Parts(widest_clip_is_g(parts)))
}

fn unchanged((stored, shape): (&String, &Vec<usize>)) -> Renamed {
    Renamed { name: stored.clone(), stored: stored.clone(), view: View::whole(shape) }
}

fn prefix_in(layout: &Layout, shapes: &Shapes) -> Option<&'static str> {
    layout.prefixes.iter().copied().find(|prefix| shapes.contains_key(&format!("{prefix}{}", layout.marker)))
}

fn is_leftover(name: &str) -> bool {
    LEFTOVERS.iter().any(|leftover| name == *leftover || leftover.ends_with('.') && name.starts_with(leftover))
}

/// Two layouts in one file, or two tensors that become the same, would hide each other.
fn check_once(parts: &BTreeMap<Part, Vec<Renamed>>) -> Result<(), String> {
    for tensors in parts.values() {
        let mut seen = BTreeSet::new();
        if let Some(twice) = tensors.iter().find(|tensor| !seen.insert(&tensor.name)) {
            return Err(format!("{} is there twice, as {} too", twice.name, twice.stored));
        }
    }
    Ok(())
}

/// A CLIP that comes alone does not say which one it is.
fn widest_clip_is_g(mut parts: BTreeMap<Part, Vec<Renamed>>) -> BTreeMap<Part, Vec<Renamed>> {
    let hidden = |tensors: &Vec<Renamed>| {
        let table = tensors.iter().find(|tensor| tensor.name.ends_with("embeddings.token_embedding.weight"));
        table.and_then(|table| table.view.shape().get(1).copied())
    };
    if parts.len() == 1 && parts.get(&Part::ClipL).and_then(hidden) >= Some(CLIP_G_HIDDEN) {
        let tensors = parts.remove(&Part::ClipL).unwrap_or_default();
        parts.insert(Part::ClipG, tensors);
    }
    parts
}

fn is_adapter(name: &str) -> bool {
    [".lora_", ".lora.", ".hada_", ".lokr_", ".dora_scale"].iter().any(|mark| name.contains(mark))
}

/// The kinds of adapters that are no plain LoRA, by what gives them away.
fn refusal_of_adapter(name: &str) -> Option<String> {
    let kinds = [(".hada_", "LoHa"), (".lokr_", "LoKr"), (".dora_scale", "DoRA"), (".lora_magnitude_vector", "DoRA")];
    let (_, kind) = kinds.iter().find(|(mark, _)| name.contains(mark))?;
    Some(format!("a {kind} adapter ({name}); allowed: LoRA"))
}

fn not_known(shapes: &Shapes, unknown: &[&str]) -> String {
    const N_NAMED: usize = 12;
    let list = |names: &mut dyn Iterator<Item = &str>| names.take(N_NAMED).collect::<Vec<_>>().join(", ");
    if unknown.is_empty() || unknown.len() == shapes.len() {
        return format!(
            "no model that we know; its first tensors are {}",
            list(&mut shapes.keys().map(String::as_str))
        );
    }
    format!("{} tensors that belong to no model that we know: {}", unknown.len(), list(&mut unknown.iter().copied()))
}

/// How many numbered things lie below a name: 1 more than the highest number.
fn count(shapes: &Shapes, below: &str) -> usize {
    let number = |name: &String| name.strip_prefix(below)?.strip_prefix('.')?.split('.').next()?.parse::<usize>().ok();
    // A hostile number must not make a model of that size.
    shapes.keys().filter_map(number).map(|number| number.saturating_add(1)).max().unwrap_or(0).min(shapes.len())
}

/// One side of a tensor that must be there.
fn side(shapes: &Shapes, name: &str, at: usize) -> Result<usize, String> {
    let shape = shapes.get(name).ok_or_else(|| format!("no tensor {name}"))?;
    shape.get(at).copied().ok_or_else(|| format!("{name} has only {} sides", shape.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(names: &[(&str, &[usize])]) -> Shapes {
        names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    fn parts(names: &[(&str, &[usize])]) -> Vec<Part> {
        match recognize(&shapes(names)).unwrap() {
            Content::Parts(parts) => parts.into_keys().collect(),
            Content::Lora => panic!("a LoRA"),
        }
    }

    #[test]
    fn a_prefix_belongs_to_the_part_whose_marker_it_precedes() {
        let all_in_one = [
            ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", &[9, 3][..]),
            ("vae.decoder.mid.block_1.conv1.weight", &[1, 1, 3, 3]),
            ("text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight", &[10, 1280]),
            ("text_encoders.clip_l.logit_scale", &[]),
            ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight", &[1, 1]),
        ];
        assert_eq!(parts(&all_in_one), [Part::FluxTransformer, Part::Vae, Part::ClipL, Part::T5]);
        let bare = [("double_blocks.0.img_attn.qkv.weight", &[9, 3][..]), ("img_in.weight", &[3, 64])];
        assert_eq!(parts(&bare), [Part::FluxTransformer]);
        assert_eq!(parts(&[("text_model.embeddings.token_embedding.weight", &[10, 1280])]), [Part::ClipG]);
        assert_eq!(parts(&[("text_model.embeddings.token_embedding.weight", &[10, 768])]), [Part::ClipL]);
    }

    #[test]
    fn what_is_unknown_is_listed_and_leftovers_are_not() {
        let with = |name: &str| {
            let vae = ("first_stage_model.decoder.mid.block_1.conv1.weight", &[1, 1, 3, 3][..]);
            recognize(&shapes(&[vae, (name, &[1])])).map(|_| ())
        };
        assert_eq!(with("model_ema.decay"), Ok(()));
        assert_eq!(with("betas"), Ok(()));
        assert_eq!(with("v_pred"), Err("1 tensors that belong to no model that we know: v_pred".to_owned()));
        assert_eq!(with("first_stage_model.something.new"), Ok(()), "the model itself lists it as unused");
        assert!(recognize(&Shapes::new()).is_err());
    }

    #[test]
    fn adapters_of_other_kinds_are_refused_by_name() {
        let kind = |name: &str| recognize(&shapes(&[(name, &[1, 1])]));
        assert_eq!(kind("lora_unet_a.lora_down.weight"), Ok(Content::Lora));
        assert_eq!(kind("transformer.a.lora_A.weight"), Ok(Content::Lora));
        assert!(kind("lora_unet_a.hada_w1_a").unwrap_err().starts_with("a LoHa adapter"));
        assert!(kind("lora_unet_a.lokr_w1").unwrap_err().starts_with("a LoKr adapter"));
        assert!(kind("lora_unet_a.dora_scale").unwrap_err().starts_with("a DoRA adapter"));
    }

    #[test]
    fn a_hostile_number_makes_no_large_model() {
        let shapes = shapes(&[("blocks.99999999999999.weight", &[1]), ("blocks.x.weight", &[1]), ("blocks", &[1])]);
        assert_eq!(count(&shapes, "blocks"), 3);
    }
}
