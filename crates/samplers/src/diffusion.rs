//! The schedules of SDXL: Euler, Euler ancestral and DPM++ 2M, as factors of what a run has at hand in a step.
//!
//! All three are linear in the latent, the model's output, the last step's estimate and fresh noise, so a step is its
//! [`Step`], and a sampler is how the factors come about. Noise levels and timesteps are rounded as the reference rounds
//! them; the factors, which it computes in f32, are f64.

use crate::ScheduleError;
use crate::flow_match::NoiseMix;
use crate::spacing::{Spread, TimestepSpacing, karras, sigma_at, timestep_of};
use crate::training::TrainingConfig;

/// The ways to get from one noise level to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// Along the tangent (Karras et al., arXiv:2206.00364, algorithm 2 without churn).
    Euler,
    /// Along the tangent, too far down, and up again with fresh noise; drawn in the last step, too, where it weighs nothing.
    EulerAncestral,
    /// With the estimate of the step before (Lu et al., arXiv:2211.01095, algorithm 2: order 2, midpoint).
    DpmMultistep(MultistepConfig),
}

/// When the multistep solver does without the estimate of the step before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultistepConfig {
    /// In the last step of a schedule of less than 15.
    pub lower_order_final: bool,
    /// In the last step.
    pub euler_at_final: bool,
}

/// What a model was trained to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity (Salimans and Ho, arXiv:2202.00512).
    Velocity,
}

/// The noise level that a run ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalSigma {
    Zero,
    /// The training's least.
    Least,
}

/// `scheduler_config.json` of a diffusion model.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusionConfig {
    pub sampler: Sampler,
    pub training: TrainingConfig,
    pub prediction: Prediction,
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: u32,
    /// Without effect on the ancestral sampler, as in the reference.
    pub use_karras_sigmas: bool,
    /// Without effect on the ancestral sampler, as in the reference.
    pub final_sigma: FinalSigma,
}

/// The noise levels of one run. Invariant: one more level than timesteps, all finite, none but the last below or at 0.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusionSchedule {
    sampler: Sampler,
    prediction: Prediction,
    timestep_spacing: TimestepSpacing,
    final_sigma: FinalSigma,
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    /// Steps that were asked for; trailing spacing may make one more.
    n_asked: usize,
}

/// One step: factors of what a run has at hand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What the model is told.
    pub timestep: f32,
    /// Of the latent that the model sees.
    pub input_scale: f64,
    /// The estimate of the clean latent.
    pub denoised: Estimate,
    /// The next latent.
    pub next: Update,
}

/// `latent * sample + output * model_output`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub sample: f64,
    pub output: f64,
}

/// `sample * latent + denoised * estimate + previous * estimate_before + noise * fresh_noise`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub sample: f64,
    pub denoised: f64,
    /// 0 in the first step of a run.
    pub previous: f64,
    /// `None`: none is drawn.
    pub noise: Option<f64>,
}

impl DiffusionSchedule {
    /// The whole schedule of `n_steps`.
    pub fn new(config: &DiffusionConfig, n_steps: usize) -> Result<Self, ScheduleError> {
        let train_sigmas = config.training.sigmas()?;
        let n_train = config.training.num_train_timesteps;
        let spread = Spread { spacing: config.timestep_spacing, n_train, offset: config.steps_offset, n_steps };
        spread.check()?;
        let (timesteps, mut sigmas) = match config.sampler {
            Sampler::Euler | Sampler::EulerAncestral => {
                let timesteps = spread.euler();
                let sigmas: Vec<f64> = timesteps.iter().map(|timestep| sigma_at(*timestep, &train_sigmas)).collect();
                match (config.sampler, config.use_karras_sigmas) {
                    (Sampler::Euler, true) => {
                        let sigmas = karras(sigmas[sigmas.len() - 1], sigmas[0], n_steps);
                        (sigmas.iter().map(|sigma| timestep_of(*sigma, &train_sigmas)).collect(), sigmas)
                    }
                    _ => (timesteps, sigmas),
                }
            }
            Sampler::DpmMultistep(_) if config.use_karras_sigmas => {
                let (least, most) = (train_sigmas[0], train_sigmas[train_sigmas.len() - 1]);
                let sigmas = karras(f64::from(least), f64::from(most), n_steps);
                let timestep = |sigma: &f64| timestep_of(*sigma, &train_sigmas).round_ties_even();
                (sigmas.iter().map(timestep).collect(), sigmas)
            }
            Sampler::DpmMultistep(_) => {
                let timesteps = spread.multistep();
                let sigmas = timesteps.iter().map(|timestep| sigma_at(*timestep, &train_sigmas)).collect();
                (timesteps, sigmas)
            }
        };
        sigmas.push(match (config.sampler, config.final_sigma) {
            (Sampler::EulerAncestral, _) | (_, FinalSigma::Zero) => 0.0,
            (_, FinalSigma::Least) => f64::from(train_sigmas[0]),
        });
        Ok(Self {
            sampler: config.sampler,
            prediction: config.prediction,
            timestep_spacing: config.timestep_spacing,
            final_sigma: config.final_sigma,
            sigmas: sigmas.into_iter().map(|sigma| sigma as f32).collect(),
            timesteps: timesteps.into_iter().map(|timestep: f64| timestep as f32).collect(),
            n_asked: n_steps,
        })
    }

    /// Steps of the whole schedule.
    pub fn n_steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Noise levels before each step, and after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// What the model is told before each step.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The first step that runs at a `strength` within `0..=1`. Equals [`Self::n_steps`] where none does: the caller
    /// decides what that means.
    pub fn first_step(&self, strength: f64) -> usize {
        let n_noised = ((self.n_asked as f64 * strength) as usize).min(self.n_asked);
        self.n_asked - n_noised
    }

    /// What a run that begins with `step` starts from: `noise * noise_draw + latent * clean_latent`.
    ///
    /// # Panics
    /// If the schedule has no such step.
    pub fn noise_mix(&self, step: usize) -> NoiseMix {
        let sigma = f64::from(self.sigmas[..self.n_steps()][step]);
        let alpha = self.alpha(sigma);
        NoiseMix { noise: (sigma * alpha) as f32, latent: alpha as f32 }
    }

    /// The factor of the noise that a run without a picture starts from.
    pub fn noise_scale(&self) -> f64 {
        let max = self.sigmas.iter().fold(0.0, |max, sigma| f64::max(max, f64::from(*sigma)));
        match (self.sampler, self.timestep_spacing) {
            (Sampler::DpmMultistep(_), _) => 1.0,
            (_, TimestepSpacing::Leading) => (max * max + 1.0).sqrt(),
            (_, TimestepSpacing::Linspace | TimestepSpacing::Trailing) => max,
        }
    }

    /// The steps of a run that begins with `first_step`; none where the schedule ends before it.
    pub fn steps(&self, first_step: usize) -> Result<Vec<Step>, ScheduleError> {
        let steps: Vec<Step> = (first_step..self.n_steps()).map(|step| self.step(step, first_step)).collect();
        let is_finite = |step: &Step| {
            let Step { input_scale, denoised, next, .. } = step;
            let factors =
                [input_scale, &denoised.sample, &denoised.output, &next.sample, &next.denoised, &next.previous];
            factors.iter().all(|factor| factor.is_finite())
        };
        match steps.iter().position(|step| !is_finite(step)) {
            None => Ok(steps),
            Some(idx) => Err(ScheduleError::Stuck { n_steps: self.n_asked, sigma: self.sigmas[first_step + idx] }),
        }
    }

    fn step(&self, step: usize, first_step: usize) -> Step {
        let level = |idx: usize| f64::from(self.sigmas[idx]);
        let (from, to) = (level(step), level(step + 1));
        let next = match self.sampler {
            Sampler::Euler => Update { sample: to / from, denoised: 1.0 - to / from, previous: 0.0, noise: None },
            Sampler::EulerAncestral => {
                let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
                let down = (to * to - up * up).sqrt();
                Update { sample: down / from, denoised: 1.0 - down / from, previous: 0.0, noise: Some(up) }
            }
            Sampler::DpmMultistep(config) => {
                let has_previous = step > first_step && !self.is_plain(step, config);
                let before = has_previous.then(|| level(step - 1));
                self.multistep(from, to, before)
            }
        };
        let input_scale = match self.sampler {
            Sampler::DpmMultistep(_) => 1.0,
            Sampler::Euler | Sampler::EulerAncestral => 1.0 / (from * from + 1.0).sqrt(),
        };
        Step { timestep: self.timesteps[step], input_scale, denoised: self.estimate(from), next }
    }

    /// Whether a step does without the estimate before it.
    fn is_plain(&self, step: usize, config: MultistepConfig) -> bool {
        const FEW_STEPS: usize = 15;
        let is_last = step + 1 == self.n_steps();
        let lowers_order = config.lower_order_final && self.n_steps() < FEW_STEPS;
        is_last && (config.euler_at_final || lowers_order || self.final_sigma == FinalSigma::Zero)
    }

    /// With `h = ln(from / to)` and `h_0 = ln(before / from)`, the second-order term weighs `h / h_0`.
    fn multistep(&self, from: f64, to: f64, before: Option<f64>) -> Update {
        let (alpha_from, alpha_to) = (self.alpha(from), self.alpha(to));
        let sample = to * alpha_to / (from * alpha_from);
        let denoised = alpha_to * (1.0 - to / from);
        let change = before.map_or(0.0, |before| 0.5 * denoised * (from / to).ln() / (before / from).ln());
        Update { sample, denoised: denoised + change, previous: -change, noise: None }
    }

    /// The estimate of the clean latent at a noise level.
    fn estimate(&self, sigma: f64) -> Estimate {
        let alpha = self.alpha(sigma);
        let variance_preserving = 1.0 / (sigma * sigma + 1.0).sqrt();
        match self.prediction {
            Prediction::Epsilon => Estimate { sample: 1.0 / alpha, output: -sigma },
            Prediction::Velocity => Estimate {
                sample: variance_preserving * variance_preserving / alpha,
                output: -sigma * variance_preserving,
            },
        }
    }

    /// The factor of the clean latent in a latent at a noise level: the multistep solver keeps the variance, the others
    /// the picture.
    fn alpha(&self, sigma: f64) -> f64 {
        match self.sampler {
            Sampler::DpmMultistep(_) => 1.0 / (sigma * sigma + 1.0).sqrt(),
            Sampler::Euler | Sampler::EulerAncestral => 1.0,
        }
    }
}
