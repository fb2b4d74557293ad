//! Stable Diffusion XL: one engine for base, turbo and every checkpoint of their shape.
//!
//! Stages: [`encode`] makes text embeddings, [`prepare`] the latents and the schedule, [`denoise`] runs it; the
//! autoencoder's [`Codec`] makes pictures. [`schedule`] reads how the folder wants noise to be taken away.

mod denoise;
mod encode;
mod prepare;
mod schedule;
mod stage;

use crate::canvas::{Canvas, Frame};
use crate::codec::Codec;
use crate::folder::ModelIndex;
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::run::{Asked, Ended, Watch, clocked, placed};
use crate::settings::Settings;
use crate::tokenizer::ClipTokenizer;
use crate::trace::{Trace, Untraced};
use domain::catalogue::Mode;
use domain::id::ModelId;
use engine::{Effective, Engine, EngineError, Observer, Output, Plan, Timings};
use imaging::Picture;
use models::clip::{self, ClipTextModel};
use models::config;
use models::unet::{self, UNet};
use nn::files::ModelFiles;
use nn::{Error, Result};
use samplers::diffusion::DiffusionConfig;
use schedule::FolderSchedule;
use std::sync::Arc;
use std::time::Instant;

/// One loaded model.
pub struct SdxlEngine {
    model: ModelId,
    settings: Settings,
    /// Whether no negative prompt at all is zeros, and not an empty text.
    zeros_without_negative: bool,
    tokenizer: ClipTokenizer,
    tokenizer_2: ClipTokenizer,
    text_encoder: Resident<ClipTextModel>,
    text_encoder_2: Resident<ClipTextModel>,
    unet: Resident<UNet>,
    unet_config: unet::Config,
    codec: Codec,
    schedule: FolderSchedule,
}

/// What a plan means for this model, every default filled in and every value checked.
struct Job<'a> {
    plan: &'a Plan,
    asked: Asked,
    guidance_scale: f64,
    /// What to avoid, if guidance runs.
    negative: Option<Negative<'a>>,
    schedule: DiffusionConfig,
    ignored: Vec<String>,
}

/// What guidance leads away from.
#[derive(Clone, Copy)]
enum Negative<'a> {
    /// Embeddings of zero, which no text has.
    Zeros,
    Text(encode::Prompt<'a>),
}

impl SdxlEngine {
    /// Loads a folder in the diffusers layout; an error lists every tensor that does not fit.
    pub fn load(model: ModelId, files: &ModelFiles, residency: &Arc<Residency>) -> Result<Self> {
        let index = ModelIndex::read(files)?;
        if index.requires_aesthetics_score {
            let reason = "requires_aesthetics_score: the refiner cannot be run, only what it refines".to_owned();
            return Err(Error::Malformed { path: ModelIndex::display(files), reason });
        }
        let clip_config: clip::Config = config::read(files, "text_encoder", "config.json")?;
        let clip_2_config: clip::Config = config::read(files, "text_encoder_2", "config.json")?;
        let unet_config: unet::Config = config::read(files, "unet", "config.json")?;
        check_fit(files, [&clip_config, &clip_2_config], &unet_config)?;
        let schedule = FolderSchedule::read(files)?;
        let its_config = unet_config.clone();
        let settings = if schedule.is_distilled() { Settings::of_sdxl_turbo() } else { Settings::of_sdxl() };
        let engine = Self {
            model,
            settings: settings.overridden_by(files)?,
            zeros_without_negative: index.force_zeros_for_empty_prompt,
            tokenizer: ClipTokenizer::open(files, "tokenizer")?,
            tokenizer_2: ClipTokenizer::open(files, "tokenizer_2")?,
            text_encoder: residency.component(files, "text_encoder", Role::Encoder, move |weights| {
                ClipTextModel::new(&clip_config, weights)
            })?,
            text_encoder_2: residency.component(files, "text_encoder_2", Role::Encoder, move |weights| {
                ClipTextModel::with_projection(&clip_2_config, weights)
            })?,
            unet: residency.component(files, "unet", Role::Denoiser, move |weights| UNet::new(&its_config, weights))?,
            unet_config,
            codec: Codec::load(files, residency)?,
            schedule,
        };
        residency.warm_up(&engine.components())?;
        Ok(engine)
    }

    fn components(&self) -> [&dyn Component; 4] {
        [&self.text_encoder, &self.text_encoder_2, &self.unet, self.codec.component()]
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
        let Asked { size, strength, steps } = job.asked;
        let (images, steps_run) = match &plan.source {
            Some(source) if strength == 0.0 => (vec![placed(source, size, plan.fit); plan.batch as usize], 0),
            _ => self.paint(&job, &mut timings, observer, trace)?,
        };
        timings.total = started.elapsed();
        Ok(Output {
            images,
            withheld: Vec::new(),
            model: self.model.clone(),
            effective: Effective {
                size,
                strength,
                steps,
                steps_run,
                guidance_scale: job.guidance_scale,
                true_cfg_scale: 1.0,
                max_sequence_length: ClipTokenizer::N_TOKENS as u32,
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
        let frame = Frame { size: job.asked.size, strength: job.asked.strength };
        let canvas = Canvas::new(job.plan, frame, &self.settings, self.codec.factor() as u32);
        let texts = clocked((&mut timings.text, &mut timings.operations.text), || self.encode_texts(job, trace))?;
        Ended::unless_wanted(observer)?;
        let prepared = clocked((&mut timings.vae_encode, &mut timings.operations.vae_encode), || {
            self.prepare(job, &canvas, trace)
        })?;
        let steps_run = prepared.steps.len() as u32;
        let latents = self.denoise(prepared, &texts, Watch { timings, observer: &mut *observer, trace })?;
        let decoded = clocked((&mut timings.vae_decode, &mut timings.operations.vae_decode), || {
            self.codec.decode(&latents, observer, trace)
        })?;
        Ok((canvas.finish(&decoded), steps_run))
    }

    fn check<'a>(&self, plan: &'a Plan) -> std::result::Result<Job<'a>, EngineError> {
        if plan.mode != Mode::Plain {
            let (got, allowed) = (plan.mode.as_str(), Mode::Plain.as_str());
            return Err(EngineError::Refused(format!("mode: got {got}; allowed with {}: {allowed}", self.model)));
        }
        let guidance_scale = plan.guidance_scale.unwrap_or(self.settings.guidance_scale);
        // Guidance runs above 1; at 1 it would change nothing.
        let negative = (guidance_scale > 1.0).then(|| self.negative_prompt(plan));
        Ok(Job {
            plan,
            asked: Asked::of(plan, &self.settings)?,
            guidance_scale,
            ignored: ignored(plan, negative),
            negative,
            schedule: self.schedule.config(plan.scheduler).map_err(EngineError::Refused)?,
        })
    }

    fn negative_prompt<'a>(&self, plan: &'a Plan) -> Negative<'a> {
        match plan.negative_prompt.as_deref() {
            None if self.zeros_without_negative => Negative::Zeros,
            given => Negative::Text(encode::Prompt::of(given.unwrap_or(""), plan.negative_prompt_2.as_deref())),
        }
    }
}

impl Engine for SdxlEngine {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> std::result::Result<Output, EngineError> {
        self.run_traced(plan, observer, &mut Untraced)
    }
}

/// Parameters that the plan gives and that have no effect here, by their wire names.
fn ignored(plan: &Plan, negative: Option<Negative<'_>>) -> Vec<String> {
    let says = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let reads_negative = matches!(negative, Some(Negative::Text(_)));
    let given_and_unused = [
        ("negative_prompt", says(&plan.negative_prompt) && !reads_negative),
        ("negative_prompt_2", says(&plan.negative_prompt_2) && !reads_negative),
        ("true_cfg_scale", plan.true_cfg_scale.is_some_and(|scale| scale > 1.0)),
        ("strength", plan.strength.is_some() && plan.source.is_none()),
        ("control_image", plan.control_image.is_some()),
        ("max_sequence_length", plan.max_sequence_length.is_some_and(|n| n as usize != ClipTokenizer::N_TOKENS)),
    ];
    let names = given_and_unused.into_iter().filter(|(_, unused)| *unused);
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The UNet reads both encoders' tokens side by side, and the second one's pooled output.
fn check_fit(files: &ModelFiles, encoders: [&clip::Config; 2], unet: &unet::Config) -> Result<()> {
    let n_hidden: usize = encoders.iter().map(|config| config.hidden_size).sum();
    let n_pooled = encoders[1].projection_dim;
    let checks = [
        ("cross_attention_dim", unet.cross_attention_dim, n_hidden),
        ("projection_class_embeddings_input_dim, without sizes", unet.pooled_dim(), n_pooled),
    ];
    match checks.iter().find(|(_, taken, given)| taken != given) {
        None => Ok(()),
        Some((name, taken, given)) => {
            let reason = format!("{name}: got {taken}; the text encoders give {given}");
            Err(Error::Malformed { path: files.display("unet/config.json"), reason })
        }
    }
}
