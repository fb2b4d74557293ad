//! Which of the training's timesteps a run visits, and the noise levels there.

use crate::ScheduleError;

/// How a run's timesteps are spread over the training's (Lin et al., arXiv:2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Evenly, both ends included.
    Linspace,
    /// Multiples of a whole number, and an offset.
    Leading,
    /// Evenly from the last one down.
    Trailing,
}

/// The exponent of Karras et al., arXiv:2206.00364.
const RHO: f64 = 7.0;
/// What a noise level is taken for where it is less, before its logarithm.
const SIGMA_LEAST: f64 = 1e-10;

/// Spreads timesteps over a training.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) spacing: TimestepSpacing,
    pub(crate) n_train: u32,
    /// Added to leading timesteps.
    pub(crate) offset: u32,
    pub(crate) n_steps: usize,
}

impl Spread {
    pub(crate) fn check(&self) -> Result<(), ScheduleError> {
        if self.n_steps == 0 || self.n_steps > self.n_train as usize {
            return Err(ScheduleError::Invalid {
                field: "num_inference_steps",
                got: self.n_steps.to_string(),
                allowed: "a whole number from 1 to num_train_timesteps",
            });
        }
        Ok(())
    }

    /// As the reference's Euler schedulers do it, in f32.
    ///
    /// Trailing timesteps may be one more than asked for: the reference counts them in floating point, and 61 steps of
    /// 1000/61 do not quite reach 0.
    pub(crate) fn euler(&self) -> Vec<f64> {
        let timesteps: Vec<f64> = match self.spacing {
            TimestepSpacing::Linspace => {
                let mut even = linspace(f64::from(self.n_train - 1), self.n_steps);
                even.reverse();
                even
            }
            TimestepSpacing::Leading => {
                let ratio = self.n_train as usize / self.n_steps;
                (0..self.n_steps).rev().map(|idx| (idx * ratio + self.offset as usize) as f64).collect()
            }
            TimestepSpacing::Trailing => self.trailing(),
        };
        timesteps.into_iter().map(|timestep| f64::from(timestep as f32)).collect()
    }

    /// As the reference's multistep solver does it, in whole numbers: as if it were one step more, whose last is left out.
    pub(crate) fn multistep(&self) -> Vec<f64> {
        match self.spacing {
            TimestepSpacing::Linspace => {
                let mut even = linspace(f64::from(self.n_train - 1), self.n_steps + 1);
                even.reverse();
                even.into_iter().take(self.n_steps).map(f64::round_ties_even).collect()
            }
            TimestepSpacing::Leading => {
                let ratio = self.n_train as usize / (self.n_steps + 1);
                (1..=self.n_steps).rev().map(|idx| (idx * ratio + self.offset as usize) as f64).collect()
            }
            TimestepSpacing::Trailing => self.trailing(),
        }
    }

    fn trailing(&self) -> Vec<f64> {
        let last = f64::from(self.n_train);
        let ratio = last / self.n_steps as f64;
        let n = (last / ratio).ceil() as usize;
        // The difference of the first two, not the ratio, is what the reference adds again and again.
        let delta = (last - ratio) - last;
        (0..n).map(|idx| (last + idx as f64 * delta).round_ties_even() - 1.0).collect()
    }
}

/// `n` numbers from 0 to `end`.
pub(crate) fn linspace(end: f64, n: usize) -> Vec<f64> {
    let step = if n > 1 { end / (n - 1) as f64 } else { 0.0 };
    (0..n).map(|idx| if idx > 0 && idx == n - 1 { end } else { idx as f64 * step }).collect()
}

/// The noise level between timesteps, on straight lines; beyond either end, the level there.
pub(crate) fn sigma_at(timestep: f64, train_sigmas: &[f32]) -> f64 {
    let last = train_sigmas.len() - 1;
    let sigma = |idx: usize| f64::from(train_sigmas[idx]);
    if timestep <= 0.0 {
        return sigma(0);
    }
    let below = timestep.floor();
    if below as usize >= last {
        return sigma(last);
    }
    let idx = below as usize;
    (sigma(idx + 1) - sigma(idx)) * (timestep - below) + sigma(idx)
}

/// `n_steps` noise levels from `max` down to `min`, evenly spaced in their [`RHO`]-th roots.
pub(crate) fn karras(min: f64, max: f64, n_steps: usize) -> Vec<f64> {
    let (min, max) = (min.powf(1.0 / RHO), max.powf(1.0 / RHO));
    linspace(1.0, n_steps).into_iter().map(|ramp| (max + ramp * (min - max)).powf(RHO)).collect()
}

/// The timestep at which the training had a noise level, between whole ones on straight lines of its logarithm.
pub(crate) fn timestep_of(sigma: f64, train_sigmas: &[f32]) -> f64 {
    let log = |idx: usize| train_sigmas[idx].ln();
    let log_sigma = sigma.max(SIGMA_LEAST).ln();
    let n_below = train_sigmas.iter().take_while(|level| f64::from(level.ln()) <= log_sigma).count();
    let low = n_below.saturating_sub(1).min(train_sigmas.len() - 2);
    let weight = (f64::from(log(low)) - log_sigma) / f64::from(log(low) - log(low + 1));
    let weight = weight.clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(spacing: TimestepSpacing, n_steps: usize) -> Spread {
        Spread { spacing, n_train: 1000, offset: 1, n_steps }
    }

    #[test]
    fn spacings_of_published_schedules() {
        assert_eq!(spread(TimestepSpacing::Leading, 5).euler(), [801.0, 601.0, 401.0, 201.0, 1.0]);
        assert_eq!(spread(TimestepSpacing::Trailing, 4).euler(), [999.0, 749.0, 499.0, 249.0]);
        assert_eq!(spread(TimestepSpacing::Linspace, 1).euler(), [0.0]);
        assert_eq!(spread(TimestepSpacing::Linspace, 3).euler(), [999.0, 499.5, 0.0]);
        assert_eq!(spread(TimestepSpacing::Leading, 4).multistep(), [801.0, 601.0, 401.0, 201.0]);
        assert_eq!(spread(TimestepSpacing::Linspace, 4).multistep(), [999.0, 749.0, 500.0, 250.0]);
    }

    #[test]
    fn sixty_one_trailing_steps_are_sixty_two() {
        let timesteps = spread(TimestepSpacing::Trailing, 61).euler();
        assert_eq!((timesteps.len(), timesteps[61]), (62, -1.0));
    }

    #[test]
    fn levels_and_timesteps_lead_to_each_other() {
        let sigmas: Vec<f32> = (1..=10).map(|level| level as f32 * 0.5).collect();
        assert!((sigma_at(2.5, &sigmas) - 1.75).abs() < 1e-9);
        assert!((sigma_at(-1.0, &sigmas) - 0.5).abs() < 1e-9 && (sigma_at(99.0, &sigmas) - 5.0).abs() < 1e-9);
        for timestep in 0..10 {
            let back = timestep_of(sigma_at(f64::from(timestep), &sigmas), &sigmas);
            assert!((back - f64::from(timestep)).abs() < 1e-5, "{timestep} became {back}");
        }
    }

    #[test]
    fn steps_out_of_range_are_refused() {
        assert!(spread(TimestepSpacing::Leading, 0).check().is_err());
        assert!(spread(TimestepSpacing::Leading, 1001).check().is_err());
        assert!(spread(TimestepSpacing::Leading, 1000).check().is_ok());
    }
}
