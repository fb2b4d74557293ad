//! The contract between those who want pictures and those who paint them.
//!
//! Deliberately absent: tensors, files, async. An engine is `Send`, not `Sync`, and owned by one thread.

use domain::catalogue::{Mode, Scheduler};
use domain::id::ModelId;
use domain::quantity::Size;
use imaging::Picture;
use std::fmt;
use std::ops::{AddAssign, ControlFlow};
use std::time::Duration;

#[cfg(feature = "testing")]
pub mod fake;

/// Turns a plan into pictures. Blocking; owned by one thread.
pub trait Engine: Send {
    /// The weights that it paints with.
    fn model(&self) -> &ModelId;

    /// Paints, telling the observer of each step.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] within one picture's part of a step, or one stage, of the observer's asking; [`EngineError::Refused`] for a plan that
    /// this engine cannot paint, whatever is tried again.
    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Output, EngineError>;
}

/// Told of each step; answers whether to go on.
pub trait Observer {
    fn step(&mut self, report: StepReport) -> ControlFlow<()>;

    /// Whether to go on, asked between stages, between a batch's pictures, and while an engine waits for somebody else.
    fn go_on(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Everything that decides the pictures: the same plan with the same weights gives the same bytes.
#[derive(Clone)]
pub struct Plan {
    /// The reference picture, upright, RGB. `None` paints from noise alone; then `size` must be given.
    pub source: Option<Picture>,
    /// How the reference conditions the painting; a model that cannot is refused by name.
    pub mode: Mode,
    /// A ready-made control map (edges, depth) in the place of the one that would be made of `source`. Modes without
    /// one report it as ignored.
    pub control_image: Option<Picture>,
    pub prompt: String,
    /// The second encoder's own prompt (T5, or SDXL's second CLIP); `None`: the same.
    pub prompt_2: Option<String>,
    /// `None` differs from an empty one: what to avoid is then not computed at all (FLUX), or is zeros (SDXL).
    pub negative_prompt: Option<String>,
    /// The second encoder's own negative prompt; `None`: the same.
    pub negative_prompt_2: Option<String>,
    /// The distilled guidance that the model embeds (FLUX), or classifier-free guidance, above 1 (SDXL); `None`: the
    /// model's default.
    pub guidance_scale: Option<f64>,
    /// True classifier-free guidance; `None`: the model's default. Has an effect above 1 with a negative prompt.
    pub true_cfg_scale: Option<f64>,
    /// 0 to 1; 0 returns the reference, resized, untouched. `None`: the model's default.
    pub strength: Option<f64>,
    /// Steps of the whole schedule; `None`: the model's default.
    pub steps: Option<u32>,
    /// `None`: the one that the model's folder names.
    pub scheduler: Option<Scheduler>,
    /// `None`: the reference's own.
    pub size: Option<Size>,
    pub fit: Fit,
    pub seed: u64,
    pub batch: u32,
    /// T5 tokens; `None`: the model's default.
    pub max_sequence_length: Option<u32>,
}

/// Never prints prompts: one in a log is a leak.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Plan");
        shown.field("source", &self.source).field("size", &self.size).field("strength", &self.strength);
        shown.field("steps", &self.steps).field("seed", &self.seed).field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// How a reference of another aspect ratio meets the size asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Fill the size, cutting off what hangs over.
    Cover,
    /// Change the aspect ratio (what the reference implementation does).
    Stretch,
}

/// What was painted, and by what.
#[derive(Clone, Debug)]
pub struct Output {
    pub images: Vec<Picture>,
    /// For each picture, whether who painted it withheld it as unsafe; it is black then. Empty: nobody looked.
    pub withheld: Vec<bool>,
    pub model: ModelId,
    pub effective: Effective,
    pub timings: Timings,
    /// Parameters of the plan that had no effect, by their wire names.
    pub ignored: Vec<String>,
}

/// The parameters that were used, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    pub size: Size,
    pub strength: f64,
    pub steps: u32,
    /// Steps that `strength` let run.
    pub steps_run: u32,
    pub guidance_scale: f64,
    pub true_cfg_scale: f64,
    pub max_sequence_length: u32,
}

/// Where the time went. Stages that did not run are zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings {
    pub text: Duration,
    pub vae_encode: Duration,
    /// One entry per denoising step.
    pub steps: Vec<Duration>,
    pub vae_decode: Duration,
    pub total: Duration,
    pub operations: StageOperations,
}

/// The arithmetic of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageOperations {
    pub text: Operations,
    pub vae_encode: Operations,
    /// Of all steps together.
    pub steps: Operations,
    pub vae_decode: Operations,
}

/// Multiplications and additions of matrix products, convolutions and attention, by number format. None are counted of
/// what somebody else computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    pub f32: u64,
    pub bf16: u64,
    pub int8: u64,
}

impl AddAssign for Operations {
    fn add_assign(&mut self, more: Self) {
        self.f32 += more.f32;
        self.bf16 += more.bf16;
        self.int8 += more.int8;
    }
}

/// A step that has just ended: `step` of `n_steps`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepReport {
    pub step: u32,
    pub n_steps: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The plan cannot be painted by this engine; trying again is in vain.
    #[error("{0}")]
    Refused(String),
    /// The weights cannot be used.
    #[error("the weights cannot be used: {0}")]
    Weights(String),
    /// The computation failed; trying again may help.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// Who paints will not, because of what is asked for or of what came out; trying again is in vain.
    #[error("refused as unsafe: {0}")]
    Unsafe(String),
    /// Somebody else has painted, or may have, and wants to be paid for it, but the result is lost: trying again could
    /// pay twice.
    #[error("the result is lost: {0}")]
    Lost(String),
    /// Somebody else's service does not take us as a customer; for the operator to mend.
    #[error("the service does not let us in: {0}")]
    Denied(String),
}

/// An observer that lets everything pass.
pub struct Unobserved;

impl Observer for Unobserved {
    fn step(&mut self, _report: StepReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Where a model does its work, and with what it shares its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// On this machine's device, one picture after the other.
    Device,
    /// On somebody else's machine, which does many at a time.
    Remote,
}

/// Where engines come from: the weights that are installed here.
pub trait EngineSource: Send + Sync {
    /// The model that will serve an app that lists these, best first; `None`: no weights of any are installed.
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId>;

    /// Loads an engine; slow. Called on the thread that will own it.
    fn load(&self, model: &ModelId) -> Result<Box<dyn Engine>, EngineError>;

    /// Where a model that [`EngineSource::model_for`] named does its work.
    fn lane_of(&self, _model: &ModelId) -> Lane {
        Lane::Device
    }
}
