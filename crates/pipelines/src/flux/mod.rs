//! FLUX.1: one engine for dev, schnell, Kontext, the control models, Redux and everything of their shape.
//!
//! Stages: [`encode`] makes text embeddings (and [`redux`] tokens beside them), [`prepare`] the latents, positions and conditioning, [`denoise`] runs the
//! schedule; the autoencoder's [`Codec`] makes pictures.

mod denoise;
mod encode;
mod kontext;
mod prepare;
mod redux;
mod stage;

use crate::canvas::{Canvas, Frame};
use crate::codec::Codec;
use crate::control::{Control, Edges, Preprocessor};
use crate::depth::DepthEstimator;
use crate::engines::Parts;
use crate::folder::Pipeline;
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::run::{Asked, Ended, Watch, clocked, in_range, placed};
use crate::settings::Settings;
use crate::tokenizer::{ClipTokenizer, T5Tokenizer};
use crate::trace::{Trace, Untraced};
use domain::catalogue::Mode;
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Effective, Engine, EngineError, Observer, Output, Plan, Timings};
use imaging::Picture;
use models::clip::ClipTextModel;
use models::config;
use models::flux::Flux;
use models::t5::T5Encoder;
use nn::files::ModelFiles;
use nn::{Error, Result};
use redux::Redux;
use samplers::flow_match::FlowMatchConfig;
use std::sync::Arc;
use std::time::Instant;

/// T5 tokens that FLUX was trained with at most.
pub const SEQUENCE_LENGTH_MAX: u32 = 512;
/// Latents per token, on each side.
const PATCH: usize = 2;

/// One loaded model.
pub struct FluxEngine {
    model: ModelId,
    pipeline: Pipeline,
    settings: Settings,
    clip_tokenizer: ClipTokenizer,
    t5_tokenizer: T5Tokenizer,
    clip: Resident<ClipTextModel>,
    t5: Resident<T5Encoder>,
    transformer: Resident<Flux>,
    flux_config: models::flux::Config,
    codec: Codec,
    schedule_config: FlowMatchConfig,
    /// Makes control pictures of edges.
    edges: Edges,
    /// Makes control pictures of depth.
    depth: Option<Box<dyn Preprocessor>>,
    redux: Option<Redux>,
}

/// How a reference conditions a run.
#[derive(Clone, Copy)]
enum Guide<'a> {
    /// The run starts from it, noised; without one, from noise.
    Start,
    /// A control picture lies on channels beside the noise; below strength 1 the run starts from the reference too.
    Channels(Control<'a>),
    /// It stands beside the picture in the sequence.
    Sequence(&'a Picture),
    /// Redux's tokens of it, times `weight`, stand after the text's.
    Tokens { redux: &'a Redux, reference: &'a Picture, weight: f64 },
}

/// What a plan means for this model, every default filled in and every value checked.
struct Job<'a> {
    plan: &'a Plan,
    /// Of the result.
    size: Size,
    strength: f64,
    guide: Guide<'a>,
    steps: u32,
    guidance_scale: f64,
    true_cfg_scale: f64,
    /// What to avoid, if true guidance runs.
    negative: Option<encode::Prompt<'a>>,
    max_sequence_length: u32,
    ignored: Vec<String>,
}

impl Job<'_> {
    fn starts_from_reference(&self) -> bool {
        match self.guide {
            Guide::Start => self.plan.source.is_some(),
            Guide::Channels(_) => self.plan.source.is_some() && self.strength < 1.0,
            Guide::Sequence(_) | Guide::Tokens { .. } => false,
        }
    }
}

impl FluxEngine {
    /// Loads folders in the diffusers layout; an error lists every tensor that does not fit.
    pub fn load(model: ModelId, parts: &Parts, residency: &Arc<Residency>) -> Result<Self> {
        let (files, is_redux) = match (Pipeline::of(&parts.own)?, &parts.base) {
            (Pipeline::FluxRedux, Some(base)) => (base, true),
            (Pipeline::FluxRedux, None) => return Err(without_base(&parts.own)),
            _ => (&parts.own, false),
        };
        let pipeline = Pipeline::of(files)?;
        if is_redux && pipeline != Pipeline::Flux {
            return Err(without_base(&parts.own));
        }
        let clip_config: models::clip::Config = config::read(files, "text_encoder", "config.json")?;
        let t5_config: models::t5::Config = config::read(files, "text_encoder_2", "config.json")?;
        let flux_config: models::flux::Config = config::read(files, "transformer", "config.json")?;
        check_channels(pipeline, &flux_config, files)?;
        let redux = is_redux.then(|| Redux::load(&parts.own, flux_config.joint_attention_dim, residency));
        let settings = match pipeline {
            Pipeline::FluxControl => Settings::of_flux_control(),
            _ => Settings::of_flux(flux_config.guidance_embeds),
        };
        // Without a strength Redux's tokens have their full weight.
        let settings = if is_redux { Settings { strength: 0.0, ..settings } } else { settings };
        let transformer_config = flux_config.clone();
        let engine = Self {
            model,
            pipeline,
            settings: settings.overridden_by(&parts.own)?,
            clip_tokenizer: ClipTokenizer::open(files, "tokenizer")?,
            t5_tokenizer: T5Tokenizer::open(files, "tokenizer_2")?,
            clip: residency.component(files, "text_encoder", Role::Encoder, move |weights| {
                ClipTextModel::new(&clip_config, weights)
            })?,
            t5: residency.component(files, "text_encoder_2", Role::Encoder, move |weights| {
                T5Encoder::new(&t5_config, weights)
            })?,
            transformer: residency.component(files, "transformer", Role::Denoiser, move |weights| {
                Flux::new(&transformer_config, weights)
            })?,
            flux_config,
            codec: Codec::load(files, residency)?,
            schedule_config: prepare::schedule_config(files)?,
            edges: Edges::new(residency),
            depth: parts.companion.as_ref().map(|files| depth_estimator(files, residency)).transpose()?,
            redux: redux.transpose()?,
        };
        residency.warm_up(&engine.components())?;
        Ok(engine)
    }

    fn components(&self) -> Vec<&dyn Component> {
        let mut components: Vec<&dyn Component> = vec![&self.clip, &self.t5, &self.transformer, self.codec.component()];
        components.extend(self.redux.iter().flat_map(Redux::components));
        components.extend(self.depth.as_ref().and_then(|depth| depth.component()));
        components
    }

    /// [`Engine::run`], with a look at every tensor on the way.
    pub fn run_traced(
        &mut self,
        plan: &Plan,
        observer: &mut dyn Observer,
        trace: &mut dyn Trace,
    ) -> std::result::Result<Output, EngineError> {
        let job = self.check(plan)?;
        let started = Instant::now();
        let mut timings = Timings::default();
        let (images, steps_run) = match &plan.source {
            Some(source) if plan.strength == Some(0.0) && self.pipeline != Pipeline::FluxKontext => {
                (vec![placed(source, job.size, plan.fit); plan.batch as usize], 0)
            }
            _ => self.paint(&job, &mut timings, observer, trace)?,
        };
        timings.total = started.elapsed();
        Ok(Output {
            images,
            withheld: Vec::new(),
            model: self.model.clone(),
            effective: Effective {
                size: job.size,
                strength: job.strength,
                steps: job.steps,
                steps_run,
                guidance_scale: job.guidance_scale,
                true_cfg_scale: job.true_cfg_scale,
                max_sequence_length: job.max_sequence_length,
            },
            timings,
            ignored: job.ignored,
        })
    }

    fn paint(
        &self,
        job: &Job<'_>,
        timings: &mut Timings,
        observer: &mut dyn Observer,
        trace: &mut dyn Trace,
    ) -> std::result::Result<(Vec<Picture>, u32), EngineError> {
        let strength = if job.starts_from_reference() { job.strength } else { 1.0 };
        let frame = Frame { size: job.size, strength };
        let canvas = Canvas::new(job.plan, frame, &self.settings, self.multiple());
        let texts = clocked((&mut timings.text, &mut timings.operations.text), || self.encode_texts(job, trace))?;
        Ended::unless_wanted(observer)?;
        let prepared = clocked((&mut timings.vae_encode, &mut timings.operations.vae_encode), || {
            self.prepare(job, &canvas, &texts, trace)
        })?;
        let steps_run = prepared.n_steps() as u32;
        let latents = self.denoise(prepared, &texts, Watch { timings, observer: &mut *observer, trace })?;
        let decoded = clocked((&mut timings.vae_decode, &mut timings.operations.vae_decode), || {
            self.codec.decode(&latents, observer, trace)
        })?;
        Ok((canvas.finish(&decoded), steps_run))
    }

    /// Pixels that both sides of a painted picture must be a multiple of.
    fn multiple(&self) -> u32 {
        (self.codec.factor() * PATCH) as u32
    }

    fn check<'a>(&'a self, plan: &'a Plan) -> std::result::Result<Job<'a>, EngineError> {
        let settings = &self.settings;
        let Asked { size, strength, steps } = Asked::of(plan, settings)?;
        let max_sequence_length = plan.max_sequence_length.unwrap_or(settings.max_sequence_length);
        in_range("max_sequence_length", max_sequence_length.into(), 1, SEQUENCE_LENGTH_MAX.into())?;
        let true_cfg_scale = plan.true_cfg_scale.unwrap_or(settings.true_cfg_scale);
        let guidance_scale = plan.guidance_scale.unwrap_or(settings.guidance_scale);
        let negative = self.negative_prompt(plan, true_cfg_scale);
        Ok(Job {
            plan,
            size,
            strength,
            guide: self.guide(plan, strength)?,
            steps,
            guidance_scale,
            true_cfg_scale: if negative.is_some() { true_cfg_scale } else { 1.0 },
            ignored: self.ignored(plan, negative.is_some()),
            negative,
            max_sequence_length,
        })
    }

    /// How the plan's reference conditions the run; a mode that this model cannot take is refused.
    fn guide<'a>(&'a self, plan: &'a Plan, strength: f64) -> std::result::Result<Guide<'a>, EngineError> {
        let allowed = match (self.pipeline, &self.redux, &plan.source) {
            (Pipeline::FluxControl, ..) => {
                return Control::of(plan, &self.edges, self.depth.as_deref()).map(Guide::Channels);
            }
            (_, Some(redux), Some(reference)) if plan.mode == Mode::Redux => {
                return Ok(Guide::Tokens { redux, reference, weight: 1.0 - strength });
            }
            (_, Some(_), None) => {
                return Err(EngineError::Refused("image: Redux needs a reference picture".to_owned()));
            }
            (_, Some(_), Some(_)) => Mode::Redux,
            (Pipeline::FluxKontext, None, Some(reference)) if plan.mode == Mode::Plain => {
                return Ok(Guide::Sequence(reference));
            }
            (_, None, _) if plan.mode == Mode::Plain => return Ok(Guide::Start),
            (_, None, _) => Mode::Plain,
        };
        let (got, allowed) = (plan.mode.as_str(), allowed.as_str());
        Err(EngineError::Refused(format!("mode: got {got}; allowed with {}: {allowed}", self.model)))
    }

    /// What to avoid. As in the reference, true guidance runs above 1 and with a negative prompt; a model that wants it
    /// by default gets an empty one where the plan has none.
    fn negative_prompt<'a>(&self, plan: &'a Plan, true_cfg_scale: f64) -> Option<encode::Prompt<'a>> {
        if true_cfg_scale <= 1.0 {
            return None;
        }
        let wanted_by_model = (self.settings.true_cfg_scale > 1.0).then_some("");
        let clip = plan.negative_prompt.as_deref().or(wanted_by_model)?;
        Some(encode::Prompt { clip, t5: plan.negative_prompt_2.as_deref().unwrap_or(clip) })
    }

    /// Parameters that the plan gives and that have no effect here, by their wire names.
    fn ignored(&self, plan: &Plan, has_negative: bool) -> Vec<String> {
        let embeds_guidance = self.flux_config.guidance_embeds;
        let uses_strength = self.pipeline != Pipeline::FluxKontext && plan.source.is_some();
        let uses_control = self.pipeline == Pipeline::FluxControl;
        let given_and_unused = [
            ("guidance_scale", plan.guidance_scale.is_some() && !embeds_guidance),
            ("negative_prompt", plan.negative_prompt.as_deref().is_some_and(|text| !text.is_empty()) && !has_negative),
            ("true_cfg_scale", plan.true_cfg_scale.is_some_and(|scale| scale > 1.0) && !has_negative),
            ("strength", plan.strength.is_some() && !uses_strength),
            ("control_image", plan.control_image.is_some() && !uses_control),
            // There is one way to take FLUX's noise away.
            ("scheduler", plan.scheduler.is_some()),
        ];
        let names = given_and_unused.into_iter().filter(|(_, unused)| *unused);
        names.map(|(name, _)| name.to_owned()).collect()
    }
}

impl Engine for FluxEngine {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> std::result::Result<Output, EngineError> {
        self.run_traced(plan, observer, &mut Untraced)
    }
}

fn without_base(files: &ModelFiles) -> Error {
    let reason = "Redux adds to a FLUX.1 model, which is not beside it; give a folder that has both, each named by its \
                  model (flux-redux, flux-dev)";
    Error::Malformed { path: files.display("model_index.json"), reason: reason.to_owned() }
}

fn depth_estimator(files: &ModelFiles, residency: &Arc<Residency>) -> Result<Box<dyn Preprocessor>> {
    Ok(Box::new(DepthEstimator::load(files, residency)?))
}

/// A control model takes as many channels again as it gives.
fn check_channels(pipeline: Pipeline, config: &models::flux::Config, files: &ModelFiles) -> Result<()> {
    let taken = if pipeline == Pipeline::FluxControl { 2 * config.outputs() } else { config.outputs() };
    if config.in_channels == taken {
        return Ok(());
    }
    let path = files.display("transformer/config.json");
    Err(Error::Malformed {
        path,
        reason: format!("in_channels: got {}; this pipeline takes {taken}", config.in_channels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_control_model_takes_twice_the_channels_that_it_gives() {
        let config = |in_channels: usize| -> models::flux::Config {
            let shape =
                r#""num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2"#;
            let text = r#""joint_attention_dim": 8, "pooled_projection_dim": 8, "guidance_embeds": true"#;
            let json = format!(r#"{{"in_channels": {in_channels}, "out_channels": 64, {shape}, {text}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        let files = ModelFiles::Folder(PathBuf::from("folder"));
        let check = |pipeline: Pipeline, in_channels: usize| check_channels(pipeline, &config(in_channels), &files);
        assert!(check(Pipeline::FluxControl, 128).is_ok() && check(Pipeline::Flux, 64).is_ok());
        let error = check(Pipeline::FluxControl, 64).unwrap_err().to_string();
        assert_eq!(error, "folder/transformer/config.json: in_channels: got 64; this pipeline takes 128");
        assert!(check(Pipeline::Flux, 128).is_err());
    }
}
