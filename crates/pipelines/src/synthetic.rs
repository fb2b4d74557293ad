//! Models of random numbers in the shapes of published ones: what a model costs can be measured without its weights.
//!
//! Nothing lies in a file. An architecture is walked for the names and shapes of its tensors, and their numbers are made
//! as they are read, so that loading is as if from a folder.

use crate::flux::FluxEngine;
use crate::residency::Residency;
use crate::sdxl::SdxlEngine;
use crate::stage::Staged;
use crate::{Parts, run};
use domain::id::ModelId;
use engine::EngineError;
use models::clip::ClipTextModel;
use models::config;
use models::flux::Flux;
use models::t5::T5Encoder;
use models::unet::UNet;
use models::vae::Autoencoder;
use nn::Result;
use nn::assembly::{Assembly, Piece};
use nn::checkpoint::Checkpoint;
use nn::files::ModelFiles;
use nn::survey::{Shapes, survey};
use nn::view::View;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whose shape a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// FLUX.1 dev: 12 thousand million parameters, T5-XXL, CLIP-L.
    FluxDev,
    /// FLUX.1 schnell: the same without guidance.
    FluxSchnell,
    /// Stable Diffusion XL base 1.0.
    Sdxl,
    /// FLUX.1 with a hidden size of 1024, 4 double and 8 single blocks, its own autoencoder and small text encoders.
    Medium,
    /// FLUX.1's own width, 1 double and 2 single blocks, its own autoencoder and small text encoders.
    Wide,
}

impl Preset {
    pub const ALL: [Self; 5] = [Self::FluxDev, Self::FluxSchnell, Self::Sdxl, Self::Medium, Self::Wide];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FluxDev => "flux-dev",
            Self::FluxSchnell => "flux-schnell",
            Self::Sdxl => "sdxl",
            Self::Medium => "medium",
            Self::Wide => "wide",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == text)
    }
}

/// An engine for a model of a preset's shape.
pub fn load(preset: Preset, residency: &Arc<Residency>) -> std::result::Result<Box<dyn Staged>, EngineError> {
    let model = ModelId::parse(&format!("synthetic-{}", preset.as_str())).expect("a valid id, this is a bug");
    let load = || -> Result<Box<dyn Staged>> {
        let own = files(preset)?;
        Ok(match preset {
            Preset::Sdxl => Box::new(SdxlEngine::load(model, &own, residency)?),
            _ => Box::new(FluxEngine::load(model, &Parts { own, base: None, companion: None }, residency)?),
        })
    };
    load().map_err(|error| run::failed(&error))
}

/// What answers as the model's folder would.
pub fn files(preset: Preset) -> Result<ModelFiles> {
    match preset {
        Preset::FluxDev => FluxShape::published(true).files(),
        Preset::FluxSchnell => FluxShape::published(false).files(),
        Preset::Medium => FluxShape { n_heads: 8, n_double: 4, n_single: 8, ..FluxShape::small() }.files(),
        Preset::Wide => FluxShape { n_heads: 24, n_double: 1, n_single: 2, ..FluxShape::small() }.files(),
        Preset::Sdxl => sdxl_files(),
    }
}

/// What FLUX.1's presets differ in.
#[derive(Clone, Copy)]
struct FluxShape {
    n_heads: usize,
    /// Elements of a head.
    head_dim: usize,
    n_double: usize,
    n_single: usize,
    guidance_embeds: bool,
    clip: ClipShape,
    t5: T5Shape,
    /// Channels of the autoencoder's blocks.
    vae: [usize; 4],
}

#[derive(Clone, Copy)]
struct ClipShape {
    vocabulary: usize,
    hidden: usize,
    n_layers: usize,
    n_heads: usize,
    act: &'static str,
}

#[derive(Clone, Copy)]
struct T5Shape {
    vocabulary: usize,
    d_model: usize,
    d_ff: usize,
    n_layers: usize,
    n_heads: usize,
}

/// Of CLIP-L, FLUX.1's and SDXL's first.
const CLIP_L: ClipShape = ClipShape { vocabulary: 49_408, hidden: 768, n_layers: 12, n_heads: 12, act: "quick_gelu" };
/// Of OpenCLIP bigG, SDXL's second.
const CLIP_G: ClipShape = ClipShape { vocabulary: 49_408, hidden: 1280, n_layers: 32, n_heads: 20, act: "gelu" };
const T5_XXL: T5Shape = T5Shape { vocabulary: 32_128, d_model: 4096, d_ff: 10_240, n_layers: 24, n_heads: 64 };
/// Of every published autoencoder.
const VAE_CHANNELS: [usize; 4] = [128, 256, 512, 512];

impl FluxShape {
    fn published(guidance_embeds: bool) -> Self {
        Self {
            n_heads: 24,
            head_dim: 128,
            n_double: 19,
            n_single: 38,
            guidance_embeds,
            clip: CLIP_L,
            t5: T5_XXL,
            vae: VAE_CHANNELS,
        }
    }

    /// With the text encoders that `parity/bench` measures the reference implementation with.
    fn small() -> Self {
        Self {
            clip: ClipShape { vocabulary: 1514, n_layers: 4, ..CLIP_L },
            t5: T5Shape { vocabulary: 1052, d_model: 1024, d_ff: 2816, n_layers: 4, n_heads: 16 },
            ..Self::published(true)
        }
    }

    fn files(&self) -> Result<ModelFiles> {
        let dim = self.head_dim;
        // A quarter of a head for time, the rest for rows and columns, in pairs.
        let axes = [dim / 8, dim / 16 * 7, dim - dim / 8 - dim / 16 * 7];
        let dynamic = if self.guidance_embeds { (true, 3.0) } else { (false, 1.0) };
        let mut model = Model::begin(&json!({ "_class_name": "FluxPipeline" }));
        model.text(
            "scheduler/scheduler_config.json",
            &json!({
                "_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": dynamic.0, "shift": dynamic.1,
                "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
            }),
        );
        model.clip_tokenizer("tokenizer", self.clip);
        model.text("tokenizer_2/tokenizer.json", &t5_tokenizer());
        model.text("text_encoder/config.json", &clip_config(self.clip));
        model.text("text_encoder_2/config.json", &t5_config(self.t5));
        model.text("transformer/config.json", &json!({
            "in_channels": 64, "num_layers": self.n_double, "num_single_layers": self.n_single,
            "attention_head_dim": dim, "num_attention_heads": self.n_heads, "joint_attention_dim": self.t5.d_model,
            "pooled_projection_dim": self.clip.hidden, "guidance_embeds": self.guidance_embeds, "axes_dims_rope": axes,
        }));
        model.text(
            "vae/config.json",
            &json!({
                "in_channels": 3, "out_channels": 3, "latent_channels": 16, "block_out_channels": self.vae,
                "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.3611, "shift_factor": 0.1159,
                "use_quant_conv": false, "use_post_quant_conv": false,
            }),
        );
        let files = model.files();
        let (clip, t5) = (config::read(&files, "text_encoder", FILE)?, config::read(&files, "text_encoder_2", FILE)?);
        let (flux, vae) = (config::read(&files, "transformer", FILE)?, config::read(&files, "vae", FILE)?);
        model.component("text_encoder", survey(|weights| ClipTextModel::new(&clip, weights))?);
        model.component("text_encoder_2", survey(|weights| T5Encoder::new(&t5, weights))?);
        model.component("transformer", survey(|weights| Flux::new(&flux, weights))?);
        model.component("vae", survey(|weights| Autoencoder::new(&vae, weights))?);
        Ok(model.files())
    }
}

fn sdxl_files() -> Result<ModelFiles> {
    let index = json!({ "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true });
    let mut model = Model::begin(&index);
    model.text("scheduler/scheduler_config.json", &json!({
        "_class_name": "EulerDiscreteScheduler", "beta_start": 0.000_85, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
    }));
    model.clip_tokenizer("tokenizer", CLIP_L);
    model.clip_tokenizer("tokenizer_2", CLIP_G);
    model.text("text_encoder/config.json", &clip_config(CLIP_L));
    model.text("text_encoder_2/config.json", &clip_config(CLIP_G));
    model.text("unet/config.json", &json!({
        "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 2048,
        "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20], "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816, "addition_embed_type": "text_time",
        "use_linear_projection": true, "norm_num_groups": 32, "norm_eps": 1e-5,
    }));
    model.text(
        "vae/config.json",
        &json!({
            "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": VAE_CHANNELS,
            "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.13025,
        }),
    );
    let files = model.files();
    let (clip, clip_2) = (config::read(&files, "text_encoder", FILE)?, config::read(&files, "text_encoder_2", FILE)?);
    let (unet, vae) = (config::read(&files, "unet", FILE)?, config::read(&files, "vae", FILE)?);
    model.component("text_encoder", survey(|weights| ClipTextModel::new(&clip, weights))?);
    model.component("text_encoder_2", survey(|weights| ClipTextModel::with_projection(&clip_2, weights))?);
    model.component("unet", survey(|weights| UNet::new(&unet, weights))?);
    model.component("vae", survey(|weights| Autoencoder::new(&vae, weights))?);
    Ok(model.files())
}

const FILE: &str = "config.json";

fn clip_config(clip: ClipShape) -> Value {
    json!({
        "vocab_size": clip.vocabulary, "hidden_size": clip.hidden, "intermediate_size": 4 * clip.hidden,
        "num_hidden_layers": clip.n_layers, "num_attention_heads": clip.n_heads, "max_position_embeddings": 77,
        "hidden_act": clip.act, "layer_norm_eps": 1e-5, "projection_dim": clip.hidden, "eos_token_id": 2,
    })
}

fn t5_config(t5: T5Shape) -> Value {
    json!({
        "vocab_size": t5.vocabulary, "d_model": t5.d_model, "d_kv": 64, "d_ff": t5.d_ff, "num_layers": t5.n_layers,
        "num_heads": t5.n_heads, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu",
    })
}

/// One that knows no word: what a text encoder costs does not depend on what it reads.
fn t5_tokenizer() -> Value {
    let vocabulary = json!([["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]);
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocabulary },
    })
}

/// A model under way.
struct Model {
    assembly: Assembly,
}

impl Model {
    fn begin(index: &Value) -> Self {
        let below = ModelFiles::Embedded(Arc::from([]));
        let (texts, pieces, deltas) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut model = Self { assembly: Assembly { texts, pieces, deltas, below } };
        model.text("model_index.json", index);
        model
    }

    fn text(&mut self, path: &str, text: &Value) {
        self.assembly.texts.insert(path.to_owned(), text.to_string());
    }

    /// One that knows no word but the marks, whose numbers are the highest, as in CLIP's own.
    fn clip_tokenizer(&mut self, component: &str, clip: ClipShape) {
        let (start, end) = (clip.vocabulary - 2, clip.vocabulary - 1);
        let vocabulary = json!({ "<|startoftext|>": start, "<|endoftext|>": end });
        self.text(&format!("{component}/vocab.json"), &vocabulary);
        self.assembly.texts.insert(format!("{component}/merges.txt"), String::new());
    }

    fn component(&mut self, name: &str, shapes: Shapes) {
        let checkpoint = Arc::new(Checkpoint::synthetic(format!("synthetic {name}"), shapes));
        let piece = |(stored, shape): (&str, &[usize])| Piece {
            name: stored.to_owned(),
            checkpoint: Arc::clone(&checkpoint),
            stored: stored.to_owned(),
            view: View::whole(shape),
        };
        let pieces = checkpoint.shapes().map(piece).collect();
        self.assembly.pieces.insert(name.to_owned(), pieces);
    }

    fn files(&self) -> ModelFiles {
        ModelFiles::Assembled(Arc::new(self.assembly.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;
    use crate::stage::Stage;
    use domain::catalogue::Mode;
    use domain::quantity::Size;
    use engine::{Engine, Fit, Plan, Unobserved};
    use imaging::Picture;
    use nn::Weights;

    fn n_parameters(preset: Preset, component: &str) -> usize {
        let weights = Weights::open(&files(preset).unwrap(), component).unwrap();
        weights.shapes().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The sizes of what is published, but that T5's embeddings are counted once.
    #[test]
    fn presets_have_the_parameters_of_what_they_are_called_after() {
        let check = |preset, component: &str, n| assert_eq!(n_parameters(preset, component), n, "{component}");
        check(Preset::FluxDev, "transformer", 11_901_408_320);
        check(Preset::FluxDev, "text_encoder", 123_060_480);
        check(Preset::FluxDev, "text_encoder_2", 4_762_310_656);
        check(Preset::FluxDev, "vae", 83_819_683);
        check(Preset::FluxSchnell, "transformer", 11_891_178_560);
        check(Preset::Sdxl, "unet", 2_567_463_684);
        check(Preset::Sdxl, "text_encoder_2", 694_659_840);
    }

    /// FLUX.1 as small as it gets.
    fn tiny() -> ModelFiles {
        let shape = FluxShape {
            n_heads: 2,
            head_dim: 32,
            n_double: 1,
            n_single: 1,
            clip: ClipShape { vocabulary: 100, hidden: 32, n_layers: 1, n_heads: 2, act: "quick_gelu" },
            t5: T5Shape { vocabulary: 100, d_model: 48, d_ff: 64, n_layers: 1, n_heads: 2 },
            vae: [32; 4],
            ..FluxShape::published(true)
        };
        shape.files().unwrap()
    }

    fn engine(residency: &Arc<Residency>) -> Result<FluxEngine> {
        let parts = Parts { own: tiny(), base: None, companion: None };
        FluxEngine::load(ModelId::parse("tiny").unwrap(), &parts, residency)
    }

    fn plan() -> Plan {
        let size = Size::new(32, 48);
        Plan {
            source: Some(Picture::filled(size, [10, 200, 90])),
            mode: Mode::Plain,
            control_image: None,
            prompt: "a lighthouse".to_owned(),
            prompt_2: None,
            negative_prompt: None,
            negative_prompt_2: None,
            guidance_scale: None,
            true_cfg_scale: None,
            strength: Some(1.0),
            steps: Some(2),
            scheduler: None,
            size: Some(size),
            fit: Fit::Stretch,
            seed: 0,
            batch: 1,
            max_sequence_length: Some(16),
        }
    }

    #[test]
    fn a_model_of_random_numbers_paints_and_always_the_same() {
        let painted =
            || engine(&Residency::unlimited(Precision::F32)).unwrap().run(&plan(), &mut Unobserved).unwrap().images;
        let pictures = painted();
        let (lowest, highest) =
            pictures[0].pixels().iter().fold((255, 0), |(low, high), x| ((*x).min(low), (*x).max(high)));
        assert!(highest > lowest, "one color");
        assert_eq!(pictures, painted());
    }

    #[test]
    fn each_part_runs_alone() {
        let bytes = |component: &str| Weights::open(&tiny(), component).unwrap().bytes_in_memory();
        for (stage, components) in [
            (Stage::Text, &["text_encoder", "text_encoder_2"][..]),
            (Stage::Transformer, &["transformer"]),
            (Stage::Vae, &["vae"]),
        ] {
            // Room for this part and for no other.
            let budget = components.iter().copied().map(bytes).sum();
            let residency = Residency::new(budget, Precision::F32).reading_late();
            let mut engine = engine(&residency).unwrap();
            let timings = engine.run_stage(&plan(), stage).unwrap();
            assert_eq!(residency.bytes_loaded(), budget);
            let operations = timings.operations;
            let ran = [operations.text, operations.steps, operations.vae_encode, operations.vae_decode]
                .map(|operations| operations.f32 > 0);
            let expected =
                [stage == Stage::Text, stage == Stage::Transformer, stage == Stage::Vae, stage == Stage::Vae];
            assert_eq!(ran, expected, "{stage:?}");
            assert_eq!(timings.steps.len(), if stage == Stage::Transformer { 2 } else { 0 });
        }
        let smallest = Residency::new(1, Precision::F32);
        assert!(matches!(engine(&smallest), Err(nn::Error::OverBudget { .. })));
        let refused = engine(&smallest.reading_late()).unwrap().run_stage(&plan(), Stage::Transformer).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("the weights of transformer take ") && said.contains("may take 0 MiB"), "{said}");
    }

    #[test]
    fn a_part_alone_does_what_it_does_in_a_run() {
        let mut engine = engine(&Residency::unlimited(Precision::F32)).unwrap();
        let whole = engine.run(&plan(), &mut Unobserved).unwrap().timings.operations;
        let mut alone = |stage| engine.run_stage(&plan(), stage).unwrap().operations;
        assert_eq!(alone(Stage::Text).text, whole.text);
        assert_eq!(alone(Stage::Transformer).steps, whole.steps);
        let vae = alone(Stage::Vae);
        assert_eq!((vae.vae_encode, vae.vae_decode), (whole.vae_encode, whole.vae_decode));
    }
}
