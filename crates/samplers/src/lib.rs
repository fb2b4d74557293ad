//! Noise schedules and the noise itself: what the reference implementation computes around its models.
//!
//! Everything here is plain numbers, so that the bits can be compared with the reference's; whoever holds tensors
//! applies the coefficients. Each schedule is a file of its own. Deliberately absent: tensors, devices, configuration
//! files, and any second source of randomness.

pub mod diffusion;
pub mod flow_match;
pub mod mt19937;
pub mod noise;

mod gaussian;
pub mod spacing;
pub mod training;

/// Why a noise schedule cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("{field}: got {got}; allowed: {allowed}")]
    Invalid { field: &'static str, got: String, allowed: &'static str },
    #[error("{field} is set, and this sampler does not support it")]
    Unsupported { field: &'static str },
    #[error("the schedule of {n_steps} steps has a noise level that is not a number between 0 and 1: {sigma}")]
    Degenerate { n_steps: usize, sigma: f32 },
    #[error("the schedule of {n_steps} steps cannot leave the noise level {sigma}")]
    Stuck { n_steps: usize, sigma: f32 },
}
