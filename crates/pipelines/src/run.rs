//! What every family's runs have in common: limits, loading, noise, clocks.

use crate::settings::Settings;
use crate::trace::Trace;
use candle_core::Tensor;
use domain::quantity::Size;
use engine::{EngineError, Fit, Observer, Operations, Plan, Timings};
use imaging::Picture;
use nn::work::Work;
use nn::{Error, Result, values};
use samplers::noise::TorchGenerator;
use std::time::{Duration, Instant};

/// Pixels of a picture that an engine agrees to paint; above it memory, not patience, would run out.
const PIXELS_MAX: u64 = 4096 * 4096;
/// Steps of a schedule that an engine agrees to run.
const STEPS_MAX: u32 = 1000;
/// Pictures of a batch that an engine agrees to paint.
const BATCH_MAX: u32 = 64;

/// What every plan asks for, defaults filled in and checked.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Of the result.
    pub(crate) size: Size,
    pub(crate) strength: f64,
    /// Of the whole schedule.
    pub(crate) steps: u32,
}

impl Asked {
    pub(crate) fn of(plan: &Plan, settings: &Settings) -> std::result::Result<Self, EngineError> {
        let size = plan.size.or(plan.source.as_ref().map(Picture::size));
        let size = size.ok_or_else(|| EngineError::Refused("size: without a picture a size is needed".to_owned()))?;
        let steps = plan.steps.unwrap_or(settings.steps);
        in_range("num_inference_steps", steps.into(), 1, STEPS_MAX.into())?;
        in_range("batch", plan.batch.into(), 1, BATCH_MAX.into())?;
        in_range("width x height in pixels", size.pixels(), 1, PIXELS_MAX)?;
        let strength = plan.strength.unwrap_or(settings.strength);
        if !(0.0..=1.0).contains(&strength) {
            return Err(EngineError::Refused(format!("strength: got {strength}; allowed: 0 to 1")));
        }
        Ok(Self { size, strength, steps })
    }
}

/// Everybody who follows a run.
pub(crate) struct Watch<'a> {
    pub(crate) timings: &'a mut Timings,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) trace: &'a mut dyn Trace,
}

/// Random numbers, in the reference's order.
pub(crate) struct Draws {
    generator: TorchGenerator,
    n_drawn: usize,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self { generator: TorchGenerator::new(seed), n_drawn: 0 }
    }

    pub(crate) fn draw(&mut self, shape: &[usize], trace: &mut dyn Trace) -> Result<Tensor> {
        let n = shape.iter().product();
        let noise = values::tensor(self.generator.randn_f32(n), shape)?;
        trace.see(&format!("rng_draw_{}", self.n_drawn), &noise);
        self.n_drawn += 1;
        Ok(noise)
    }
}

/// The reference picture in the size of the result.
pub(crate) fn placed(source: &Picture, size: Size, fit: Fit) -> Picture {
    match fit {
        Fit::Cover => imaging::fit_cover(source, size),
        Fit::Stretch => imaging::resize(source, size),
    }
}

/// What a stage takes: time, and arithmetic.
pub(crate) struct Clock {
    begin: Instant,
    done: Work,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { begin: Instant::now(), done: nn::work::done() }
    }

    pub(crate) fn stop(self) -> (Duration, Operations) {
        let Work { f32, bf16, int8 } = nn::work::done() - self.done;
        (self.begin.elapsed(), Operations { f32, bf16, int8 })
    }
}

/// A whole stage; `spent` and `operations` are where its clock is written down.
pub(crate) fn clocked<T, E: Into<Ended>>(
    (spent, operations): (&mut Duration, &mut Operations),
    stage: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, EngineError> {
    let clock = Clock::start();
    let result = stage().map_err(|error| error.into().into());
    (*spent, *operations) = clock.stop();
    result
}

/// Why a part of a run has no result.
pub(crate) enum Ended {
    Cancelled,
    Failed(Error),
}

impl Ended {
    /// To ask between a run's stages and between the pictures of a batch, which may each take minutes.
    pub(crate) fn unless_wanted(observer: &mut dyn Observer) -> std::result::Result<(), Self> {
        if observer.go_on().is_break() { Err(Self::Cancelled) } else { Ok(()) }
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<candle_core::Error> for Ended {
    fn from(error: candle_core::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Ended> for EngineError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Cancelled => Self::Cancelled,
            Ended::Failed(error) => failed(&error),
        }
    }
}

pub(crate) fn failed(error: &nn::Error) -> EngineError {
    match error {
        Error::File { .. } | Error::Malformed { .. } | Error::DoNotFit { .. } | Error::OverBudget { .. } => {
            EngineError::Weights(error.to_string())
        }
        Error::Shape(_) | Error::NotFinite | Error::Tensor(_) => EngineError::Failed(error.to_string()),
    }
}

pub(crate) fn in_range(field: &str, value: u64, min: u64, max: u64) -> std::result::Result<(), EngineError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(EngineError::Refused(format!("{field}: got {value}; allowed: {min} to {max}")))
}
