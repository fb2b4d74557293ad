//! The noise that a diffusion model was trained with: a level for each of its timesteps.
//!
//! Computed in f32 as the reference does, whose products are rounded one by one.

use crate::ScheduleError;

/// How noise grows from one timestep of the training to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    Linear,
    /// Linear in the root.
    ScaledLinear,
}

/// The part of `scheduler_config.json` that tells of the training, under the reference's names.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingConfig {
    pub num_train_timesteps: u32,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    /// Whether the last timestep is noise alone (Lin et al., arXiv:2305.08891).
    pub rescale_betas_zero_snr: bool,
}

/// What is left of the picture at the last timestep where it should be nothing: its noise level stays finite.
const LEAST_SIGNAL: f32 = 1.0 / (1 << 24) as f32;
/// Timesteps of a training; the real ones have 1000.
const TIMESTEPS_MAX: u32 = 100_000;

impl Default for TrainingConfig {
    /// What the reference assumes of a file that leaves everything out.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            rescale_betas_zero_snr: false,
        }
    }
}

impl TrainingConfig {
    /// Noise per signal at each timestep, growing.
    pub(crate) fn sigmas(&self) -> Result<Vec<f32>, ScheduleError> {
        self.check()?;
        let mut signals = self.signals();
        if self.rescale_betas_zero_snr {
            signals = without_terminal_signal(&signals);
        }
        Ok(signals.iter().map(|signal| ((1.0 - signal) / signal).sqrt()).collect())
    }

    fn check(&self) -> Result<(), ScheduleError> {
        let invalid = |field, got: String, allowed| Err(ScheduleError::Invalid { field, got, allowed });
        if !(2..=TIMESTEPS_MAX).contains(&self.num_train_timesteps) {
            return invalid("num_train_timesteps", self.num_train_timesteps.to_string(), "2 to 100000");
        }
        for (field, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return invalid(field, beta.to_string(), "a number between 0 and 1");
            }
        }
        Ok(())
    }

    /// The share of the picture's variance that is left at each timestep.
    fn signals(&self) -> Vec<f32> {
        let n = self.num_train_timesteps as usize;
        let betas: Vec<f32> = match self.beta_schedule {
            BetaSchedule::Linear => evenly_spaced(self.beta_start as f32, self.beta_end as f32, n),
            BetaSchedule::ScaledLinear => {
                let roots = evenly_spaced(self.beta_start.sqrt() as f32, self.beta_end.sqrt() as f32, n);
                roots.into_iter().map(|root| root * root).collect()
            }
        };
        running_products(betas.into_iter().map(|beta| 1.0 - beta))
    }
}

/// As torch spaces numbers: from either end to the middle, each product fused with its sum.
fn evenly_spaced(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n - 1) as f32;
    let number = |idx: usize| {
        if idx < n / 2 { step.mul_add(idx as f32, start) } else { (-step).mul_add((n - 1 - idx) as f32, end) }
    };
    (0..n).map(number).collect()
}

/// Products of all the factors so far, carried in double precision.
fn running_products(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1.0;
    let mut next = |factor: f32| {
        product *= f64::from(factor);
        product as f32
    };
    factors.map(&mut next).collect()
}

/// Shifts and stretches the signal so that nothing is left of it at the end.
fn without_terminal_signal(signals: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = signals.iter().map(|signal| signal.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let stretch = first / (first - last);
    let stretched: Vec<f32> = roots.iter().map(|root| ((root - last) * stretch).powi(2)).collect();
    let mut factors = vec![stretched[0]];
    factors.extend(stretched.windows(2).map(|pair| pair[1] / pair[0]));
    // The reference goes by way of the betas, which costs the last bits.
    let mut signals = running_products(factors.into_iter().map(|factor| 1.0 - (1.0 - factor)));
    if let Some(last) = signals.last_mut() {
        *last = LEAST_SIGNAL;
    }
    signals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_grows_with_time() {
        for (beta_schedule, rescale_betas_zero_snr) in
            [(BetaSchedule::Linear, false), (BetaSchedule::ScaledLinear, false), (BetaSchedule::ScaledLinear, true)]
        {
            let config = TrainingConfig { beta_schedule, rescale_betas_zero_snr, ..TrainingConfig::default() };
            let sigmas = config.sigmas().unwrap();
            assert_eq!(sigmas.len(), 1000);
            assert!(sigmas.windows(2).all(|pair| pair[0] < pair[1]) && sigmas[999].is_finite());
        }
    }

    #[test]
    fn a_training_that_cannot_have_been_is_refused_by_name() {
        let check = |config: TrainingConfig, field: &str| {
            let error = config.sigmas().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        check(TrainingConfig { num_train_timesteps: 1, ..TrainingConfig::default() }, "num_train_timesteps: got 1");
        check(TrainingConfig { beta_end: 1.0, ..TrainingConfig::default() }, "beta_end: got 1");
        check(TrainingConfig { beta_start: f64::NAN, ..TrainingConfig::default() }, "beta_start: got NaN");
    }
}
