//! The flow-matching Euler schedule of FLUX: noise levels from 1 down to 0, bent by a shift that grows with the picture.
//!
//! Values are rounded to f32 wherever the reference rounds them, so schedules agree with it to the bit.

use crate::ScheduleError;

/// `scheduler_config.json` of a flow-matching model, under the reference's names.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the file that this mirrors has these switches")]
pub struct FlowMatchConfig {
    pub num_train_timesteps: u32,
    /// The shift of a model whose schedule does not depend on the picture's size; otherwise without effect.
    pub shift: f64,
    pub use_dynamic_shifting: bool,
    pub base_shift: f64,
    pub max_shift: f64,
    /// Tokens of a picture that gets `base_shift`.
    pub base_image_seq_len: u32,
    /// Tokens of a picture that gets `max_shift`; beyond it the shift keeps growing.
    pub max_image_seq_len: u32,
    pub time_shift_type: TimeShift,
    /// Stretches the schedule so that its last noise level before 0 is this one; `None` and 0 leave it alone.
    pub shift_terminal: Option<f64>,
    pub use_karras_sigmas: bool,
    pub use_exponential_sigmas: bool,
    pub use_beta_sigmas: bool,
    pub invert_sigmas: bool,
    pub stochastic_sampling: bool,
}

/// Pure noise is 1; a shift may round it up by a unit in the last place, and the reference runs such a schedule.
const SIGMA_MAX: f32 = 1.0 + 4.0 * f32::EPSILON;

/// How the size-dependent shift acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeShift {
    Exponential,
    Linear,
}

impl Default for FlowMatchConfig {
    /// What the reference assumes of a file that leaves everything out.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            time_shift_type: TimeShift::Exponential,
            shift_terminal: None,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            use_beta_sigmas: false,
            invert_sigmas: false,
            stochastic_sampling: false,
        }
    }
}

/// The noise levels of one run. Invariant: one more level than steps, none negative, none above 1
/// by more than rounding, the last one 0.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowMatchSchedule {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

/// How much of the noise and how much of the clean latent a run starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseMix {
    pub noise: f32,
    pub latent: f32,
}

impl FlowMatchSchedule {
    /// The whole schedule of `n_steps`, for a picture of `image_seq_len` tokens (its own, not those of a reference
    /// picture beside it).
    pub fn new(config: &FlowMatchConfig, n_steps: usize, image_seq_len: usize) -> Result<Self, ScheduleError> {
        config.check()?;
        if n_steps == 0 {
            return Err(ScheduleError::Invalid {
                field: "num_inference_steps",
                got: n_steps.to_string(),
                allowed: "a whole number from 1",
            });
        }
        let mut sigmas = config.shifted(&evenly_spaced(n_steps), image_seq_len);
        if let Some(terminal) = config.shift_terminal.filter(|terminal| *terminal != 0.0) {
            stretch_to(terminal, &mut sigmas);
        }
        if let Some(sigma) = sigmas.iter().find(|sigma| !(0.0..=SIGMA_MAX).contains(*sigma)) {
            return Err(ScheduleError::Degenerate { n_steps, sigma: *sigma });
        }
        let n_train_steps = config.num_train_timesteps as f32;
        let timesteps = sigmas.iter().map(|sigma| sigma * n_train_steps).collect();
        sigmas.push(0.0);
        Ok(Self { sigmas, timesteps })
    }

    /// Steps of the whole schedule.
    pub fn n_steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Noise levels before each step, and 0 after the last.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// What the model is told before each step: the noise level on the scale of its training.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The first step that runs at a `strength` within `0..=1`. Equals [`Self::n_steps`] where none does: the
    /// reference refuses such a run, and the caller decides what it means here.
    pub fn first_step(&self, strength: f64) -> usize {
        let n_steps = self.n_steps() as f64;
        let n_noised = (n_steps * strength).min(n_steps);
        (n_steps - n_noised).max(0.0) as usize
    }

    /// What a run that begins with `step` starts from: `noise * noise_draw + latent * clean_latent`.
    ///
    /// # Panics
    /// If the schedule has no such step.
    pub fn noise_mix(&self, step: usize) -> NoiseMix {
        let sigma = self.sigmas[..self.n_steps()][step];
        NoiseMix { noise: sigma, latent: 1.0 - sigma }
    }

    /// The factor of the model's output in `step`: `latent += delta * output`. Negative, since noise decreases.
    ///
    /// # Panics
    /// If the schedule has no such step.
    pub fn delta(&self, step: usize) -> f32 {
        self.sigmas[step + 1] - self.sigmas[step]
    }
}

impl FlowMatchConfig {
    fn check(&self) -> Result<(), ScheduleError> {
        let switches = [
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
        ];
        if let Some((field, _)) = switches.into_iter().find(|(_, is_set)| *is_set) {
            return Err(ScheduleError::Unsupported { field });
        }
        let invalid = |field, got: String, allowed| Err(ScheduleError::Invalid { field, got, allowed });
        if self.num_train_timesteps == 0 {
            return invalid("num_train_timesteps", "0".to_owned(), "a whole number from 1");
        }
        if !(self.shift.is_finite() && self.shift > 0.0) {
            return invalid("shift", self.shift.to_string(), "a number above 0");
        }
        if self.use_dynamic_shifting && self.max_image_seq_len == self.base_image_seq_len {
            let got = self.max_image_seq_len.to_string();
            return invalid("max_image_seq_len", got, "a number other than base_image_seq_len");
        }
        Ok(())
    }

    fn shifted(&self, sigmas: &[f32], image_seq_len: usize) -> Vec<f32> {
        if !self.use_dynamic_shifting {
            let (shift, excess) = (self.shift as f32, (self.shift - 1.0) as f32);
            return sigmas.iter().map(|sigma| shift * sigma / (1.0 + excess * sigma)).collect();
        }
        let mu = self.mu(image_seq_len);
        let shift = match self.time_shift_type {
            TimeShift::Exponential => mu.exp() as f32,
            TimeShift::Linear => mu as f32,
        };
        sigmas.iter().map(|sigma| shift / (shift + (1.0 / sigma - 1.0))).collect()
    }

    /// The shift of a picture, on the straight line through the two that the model was trained with.
    fn mu(&self, image_seq_len: usize) -> f64 {
        let (base_len, max_len) = (f64::from(self.base_image_seq_len), f64::from(self.max_image_seq_len));
        let slope = (self.max_shift - self.base_shift) / (max_len - base_len);
        let intercept = self.base_shift - slope * base_len;
        image_seq_len as f64 * slope + intercept
    }
}

/// From 1 down to `1 / n_steps`, computed in double precision and then rounded.
fn evenly_spaced(n_steps: usize) -> Vec<f32> {
    let last = 1.0 / n_steps as f64;
    let step = (last - 1.0) / (n_steps - 1) as f64;
    let sigma = |idx: usize| match idx {
        0 => 1.0,
        idx if idx == n_steps - 1 => last,
        idx => idx as f64 * step + 1.0,
    };
    (0..n_steps).map(|idx| sigma(idx) as f32).collect()
}

/// Stretches the levels away from 1 so that the last of them becomes `terminal`.
fn stretch_to(terminal: f64, sigmas: &mut [f32]) {
    let last = sigmas.last().copied().unwrap_or(1.0);
    let scale = (1.0 - last) / (1.0 - terminal) as f32;
    for sigma in sigmas {
        *sigma = 1.0 - (1.0 - *sigma) / scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev() -> FlowMatchConfig {
        FlowMatchConfig { shift: 3.0, use_dynamic_shifting: true, ..FlowMatchConfig::default() }
    }

    #[test]
    fn one_step_goes_from_pure_noise_to_none() {
        let schedule = FlowMatchSchedule::new(&dev(), 1, 24).unwrap();
        assert_eq!((schedule.sigmas(), schedule.timesteps()), ([1.0, 0.0].as_slice(), [1000.0].as_slice()));
        assert!((schedule.delta(0) + 1.0).abs() < f32::EPSILON);
        assert_eq!(schedule.noise_mix(0), NoiseMix { noise: 1.0, latent: 0.0 });
    }

    #[test]
    fn strength_decides_the_first_step() {
        #[track_caller]
        fn check(n_steps: usize, strength: f64, expect: usize) {
            let schedule = FlowMatchSchedule::new(&dev(), n_steps, 24).unwrap();
            assert_eq!(schedule.first_step(strength), expect, "{n_steps} steps at {strength}");
        }
        check(5, 1.0, 0);
        check(5, 0.6, 2);
        check(5, 0.5, 2);
        check(5, 0.1, 4);
        check(5, 0.0, 5);
        check(1, 0.3, 0);
        // 10 - 10 * 0.7 is exactly 3 in double precision, 50 - 50 * 0.58 is a hair above 21.
        check(10, 0.7, 3);
        check(50, 0.58, 21);
        check(28, 0.95, 1);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        #[track_caller]
        fn check(field: &'static str, config: FlowMatchConfig) {
            assert_eq!(FlowMatchSchedule::new(&config, 4, 24), Err(ScheduleError::Unsupported { field }));
        }
        check("use_karras_sigmas", FlowMatchConfig { use_karras_sigmas: true, ..dev() });
        check("use_exponential_sigmas", FlowMatchConfig { use_exponential_sigmas: true, ..dev() });
        check("use_beta_sigmas", FlowMatchConfig { use_beta_sigmas: true, ..dev() });
        check("invert_sigmas", FlowMatchConfig { invert_sigmas: true, ..dev() });
        check("stochastic_sampling", FlowMatchConfig { stochastic_sampling: true, ..dev() });
    }

    #[test]
    fn a_schedule_that_cannot_be_is_an_error() {
        #[track_caller]
        fn check(config: &FlowMatchConfig, n_steps: usize, expect: &str) {
            let error = FlowMatchSchedule::new(config, n_steps, 24).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{error}");
        }
        check(&dev(), 0, "num_inference_steps: got 0");
        check(&FlowMatchConfig { num_train_timesteps: 0, ..dev() }, 4, "num_train_timesteps: got 0");
        check(&FlowMatchConfig { shift: f64::NAN, ..dev() }, 4, "shift: got NaN");
        check(&FlowMatchConfig { max_image_seq_len: 256, ..dev() }, 4, "max_image_seq_len: got 256");
        check(&FlowMatchConfig { shift_terminal: Some(0.1), ..dev() }, 1, "the schedule of 1 steps");
        check(&FlowMatchConfig { max_shift: f64::INFINITY, ..dev() }, 4, "the schedule of 4 steps");
    }
}
