//! LoRA files: which layers each tensor pair changes, in any of the spellings that trainers write.
//!
//! - diffusers and PEFT: `transformer.transformer_blocks.0.attn.to_q.lora_A.weight`, `unet.…`, `text_encoder.…`
//! - kohya: `lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight` with an `.alpha`, `lora_te1_…`, `lora_te2_…`
//! - ComfyUI and Black Forest Labs: `diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight`

use super::{open_checkpoint, shapes_of};
use models::layout::{self, Content, Part, Shapes, translate_flat};
use nn::assembly::{Assembly, Delta};
use nn::checkpoint::{Checkpoint, Value as Field};
use nn::files::ModelFiles;
use nn::view::View;
use nn::{Error, Result, Weights};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Changes to a model, and how strongly they count: 1 as they were trained, 0 not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    pub file: PathBuf,
    pub scale: f64,
}

/// What precedes a layer's name, and the component that it then belongs to. The first that fits counts.
const PREFIXES: [(&str, &[Part]); 12] = [
    ("base_model.model.", DENOISERS),
    ("diffusion_model.", DENOISERS),
    ("model.diffusion_model.", DENOISERS),
    ("transformer.", &[Part::FluxTransformer]),
    ("unet.", &[Part::SdxlUnet]),
    ("text_encoder_2.", &[Part::ClipG]),
    ("text_encoder.", &[Part::ClipL]),
    ("lora_transformer_", &[Part::FluxTransformer]),
    ("lora_unet_", DENOISERS),
    ("lora_te2_", &[Part::ClipG]),
    ("lora_te1_", &[Part::ClipL]),
    ("lora_te_", &[Part::ClipL]),
];
const DENOISERS: &[Part] = &[Part::FluxTransformer, Part::SdxlUnet];

/// Names that an error lists; a LoRA of another model would otherwise print thousands.
const N_NAMED: usize = 12;

/// How the two matrices of a layer are called: up first.
const PAIRS: [(&str, &str); 4] = [
    ("lora_B.weight", "lora_A.weight"),
    ("lora_B.default.weight", "lora_A.default.weight"),
    ("lora_up.weight", "lora_down.weight"),
    ("lora.up.weight", "lora.down.weight"),
];

/// The same files, with these changes made to the weights while they are read.
pub fn with_loras(files: ModelFiles, loras: &[Lora]) -> Result<ModelFiles> {
    if loras.is_empty() {
        return Ok(files);
    }
    let mut deltas: BTreeMap<String, Vec<Delta>> = BTreeMap::new();
    let mut texts = BTreeMap::new();
    let mut pieces = BTreeMap::new();
    let mut below = files.clone();
    if let ModelFiles::Assembled(assembly) = &files {
        (texts, pieces) = (assembly.texts.clone(), assembly.pieces.clone());
        (deltas, below) = (assembly.deltas.clone(), assembly.below.clone());
    }
    let targets = Targets::of(&files)?;
    for lora in loras {
        for (component, change) in changes(lora, &targets)? {
            deltas.entry(component.to_owned()).or_default().push(change);
        }
    }
    Ok(ModelFiles::Assembled(Arc::new(Assembly { texts, pieces, deltas, below })))
}

/// The layers of a model, by component and by their names with underscores for dots.
struct Targets(BTreeMap<Part, BTreeMap<String, Target>>);

struct Target {
    /// Of the weight.
    name: String,
    shape: Vec<usize>,
}

impl Targets {
    fn of(files: &ModelFiles) -> Result<Self> {
        let mut components = BTreeMap::new();
        for part in [Part::FluxTransformer, Part::SdxlUnet, Part::ClipL, Part::ClipG] {
            let config = format!("{}/config.json", part.component());
            if files.optional_text(&config)?.is_some() {
                let weights = Weights::open(files, part.component())?;
                components.insert(part, weights.shapes().filter_map(target).collect());
            }
        }
        Ok(Self(components))
    }

    /// The layer of this name in one of these components.
    fn find(&self, parts: &[Part], flat: &str) -> Option<(Part, &Target)> {
        let flat = without_text_model(flat);
        parts.iter().find_map(|part| Some((*part, self.0.get(part)?.get(flat)?)))
    }
}

fn target((name, shape): (&str, &[usize])) -> Option<(String, Target)> {
    let flat = name.strip_suffix(".weight")?.replace('.', "_");
    let target = Target { name: name.to_owned(), shape: shape.to_vec() };
    Some((without_text_model(&flat).to_owned(), target))
}

/// Newer exporters leave out the prefix.
fn without_text_model(flat: &str) -> &str {
    flat.strip_prefix("text_model_").unwrap_or(flat)
}

/// Every change that a file makes, with its component.
fn changes(lora: &Lora, targets: &Targets) -> Result<Vec<(&'static str, Delta)>> {
    let checkpoint = Arc::new(open_checkpoint(&lora.file)?);
    let malformed = |reason: String| Error::Malformed { path: checkpoint.path().to_owned(), reason };
    let shapes = shapes_of(checkpoint.shapes());
    match layout::recognize(&shapes).map_err(malformed)? {
        Content::Lora => {}
        Content::Parts(_) => return Err(malformed("a model, not a LoRA".to_owned())),
    }
    let mut unmatched: BTreeSet<&str> = shapes.keys().map(String::as_str).collect();
    let mut changes = Vec::new();
    let layers = shapes.keys().filter_map(|name| layer_of(name));
    for (layer, up, down) in layers {
        let pair = Pair { layer, up: format!("{layer}.{up}"), down: format!("{layer}.{down}"), shapes: &shapes };
        let Some(found) = pair.deltas(lora.scale, &checkpoint, targets)? else { continue };
        changes.extend(found);
        let alpha = format!("{layer}.alpha");
        unmatched.retain(|name| ![&pair.up, &pair.down, &alpha].iter().any(|used| used == name));
    }
    if unmatched.is_empty() {
        return Ok(changes);
    }
    let named: Vec<&str> = unmatched.iter().copied().take(N_NAMED).collect();
    let (n, named) = (unmatched.len(), named.join(", "));
    Err(malformed(format!("{n} of its tensors change nothing that this model has: {named}")))
}

/// The layer that a tensor is the up matrix of, with what both matrices are called.
fn layer_of(name: &str) -> Option<(&str, &'static str, &'static str)> {
    PAIRS.iter().find_map(|(up, down)| Some((name.strip_suffix(up)?.strip_suffix('.')?, *up, *down)))
}

/// The two matrices of one layer of a file.
struct Pair<'a> {
    layer: &'a str,
    up: String,
    down: String,
    shapes: &'a Shapes,
}

impl Pair<'_> {
    /// `None`: the model has no such layer, or not in this shape.
    fn deltas(
        &self,
        scale: f64,
        checkpoint: &Arc<Checkpoint>,
        targets: &Targets,
    ) -> Result<Option<Vec<(&'static str, Delta)>>> {
        let (Some(up), Some(down)) = (self.shapes.get(&self.up), self.shapes.get(&self.down)) else { return Ok(None) };
        let Some(rank) = down.first().filter(|rank| up.get(1) == Some(rank) && **rank > 0) else { return Ok(None) };
        let Some(changed) = self.changed(up, targets) else { return Ok(None) };
        let fits = |target: &Target, view: &View| {
            let inputs: usize = target.shape.iter().skip(1).product();
            target.shape.first() == view.shape().first() && inputs == down.iter().skip(1).product::<usize>()
        };
        if !changed.iter().all(|(_, target, view)| fits(target, view)) {
            return Ok(None);
        }
        let factor = scale * self.alpha(checkpoint)?.unwrap_or(*rank as f64) / *rank as f64;
        let delta = |(part, target, view): (Part, &Target, View)| {
            let (name, checkpoint) = (target.name.clone(), Arc::clone(checkpoint));
            (part.component(), Delta { name, checkpoint, up: (self.up.clone(), view), down: self.down.clone(), factor })
        };
        Ok(Some(changed.into_iter().map(delta).collect()))
    }

    /// The weights that change, each with its rows of the up matrix.
    fn changed<'a>(&self, up: &[usize], targets: &'a Targets) -> Option<Vec<(Part, &'a Target, View)>> {
        let bare = (self.layer, DENOISERS);
        let prefixed = PREFIXES.iter().find_map(|(prefix, parts)| Some((self.layer.strip_prefix(prefix)?, *parts)));
        let (name, parts) = prefixed.unwrap_or(bare);
        let flat = name.replace('.', "_");
        if let Some((part, target)) = targets.find(parts, &flat) {
            return Some(vec![(part, target, View::whole(up))]);
        }
        parts.iter().find_map(|part| {
            let views = translate_flat(&part.foreign_rules(), &flat, up)?;
            let found = views.into_iter().map(|(flat, view)| {
                let (part, target) = targets.find(&[*part], &flat)?;
                Some((part, target, view))
            });
            found.collect()
        })
    }

    /// What the factor is divided by the rank from: a tensor of its own, or what PEFT writes into the header.
    fn alpha(&self, checkpoint: &Checkpoint) -> Result<Option<f64>> {
        let name = format!("{}.alpha", self.layer);
        if let Some(shape) = self.shapes.get(&name) {
            let values = checkpoint.read(&name, &View::whole(shape))?;
            let wrong =
                || Error::Malformed { path: checkpoint.path().to_owned(), reason: format!("{name} is no number") };
            return Ok(Some(values.first().copied().filter(|_| values.len() == 1).ok_or_else(wrong)?.into()));
        }
        let Some(Field::Text(text)) = checkpoint.field("lora_adapter_metadata") else { return Ok(None) };
        Ok(alpha_of_metadata(text, self.layer))
    }
}

/// diffusers writes PEFT's configuration, a component's name before each of its keys.
fn alpha_of_metadata(text: &str, layer: &str) -> Option<f64> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let (component, layer) = layer.split_once('.')?;
    let own = &config[format!("{component}.alpha_pattern")][layer];
    own.as_f64().or_else(|| config[format!("{component}.lora_alpha")].as_f64())
}
