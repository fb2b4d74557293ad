//! Noise, latents and the schedule: all that a run starts from.

use super::{Job, SdxlEngine};
use crate::canvas::Canvas;
use crate::run::Draws;
use crate::trace::Trace;
use candle_core::Tensor;
use models::unet::Config;
use nn::{Error, Result, values};
use samplers::diffusion::{DiffusionSchedule, Step};

/// A run, ready to start.
pub(super) struct Prepared {
    /// `(1, channels, h, w)`, one for each picture of the batch.
    pub(super) latents: Vec<Tensor>,
    /// Those that will run.
    pub(super) steps: Vec<Step>,
    draws: Draws,
    /// What the model is told of sizes, pixels.
    pub(super) sizes: [f32; Config::N_SIZES],
}

impl Prepared {
    /// Noise for all the pictures at once, as the reference draws it. `(pictures, channels, h, w)`
    pub(super) fn draw(&mut self, trace: &mut dyn Trace) -> Result<Tensor> {
        let shape = Tensor::cat(&self.latents, 0)?.dims().to_vec();
        self.draws.draw(&shape, trace)
    }
}

impl SdxlEngine {
    /// Draws come from one generator in the reference's order: the reference picture's latent, then the noise.
    pub(super) fn prepare(&self, job: &Job<'_>, canvas: &Canvas, trace: &mut dyn Trace) -> Result<Prepared> {
        let unfit = |error: samplers::ScheduleError| Error::Shape(error.to_string());
        let mut draws = Draws::new(job.plan.seed);
        let schedule = DiffusionSchedule::new(&job.schedule, job.asked.steps as usize).map_err(unfit)?;
        trace.see("scheduler.sigmas", &values::tensor(schedule.sigmas().to_vec(), schedule.sigmas().len())?);
        trace.see("scheduler.timesteps", &values::tensor(schedule.timesteps().to_vec(), schedule.n_steps())?);

        let mut first_step = 0;
        let mut clean = None;
        if let Some(picture) = canvas.source() {
            let distribution = self.codec.encode(0, &picture, trace)?;
            let noise = draws.draw(distribution.mean.dims(), trace)?;
            clean = Some(self.codec.scaled(&distribution.sample(&noise)?)?);
            // Above strength 0 one step runs.
            first_step = schedule.first_step(job.asked.strength).min(schedule.n_steps() - 1);
        }

        let padded = canvas.padded_size();
        let (height, width) = (padded.height as usize, padded.width as usize);
        let n_pictures = job.plan.batch as usize;
        let factor = self.codec.factor();
        let shape = [n_pictures, self.codec.n_channels(), height / factor, width / factor];
        let noise = draws.draw(&shape, trace)?;
        let mix = schedule.noise_mix(first_step);
        let start = |idx: usize| -> Result<Tensor> {
            let noise = noise.narrow(0, idx, 1)?.contiguous()?;
            match &clean {
                None => Ok((noise * schedule.noise_scale())?),
                Some(clean) => Ok(((noise * f64::from(mix.noise))? + (clean * f64::from(mix.latent))?)?),
            }
        };
        let (height, width) = (height as f32, width as f32);
        Ok(Prepared {
            latents: (0..n_pictures).map(start).collect::<Result<_>>()?,
            steps: schedule.steps(first_step).map_err(unfit)?,
            draws,
            sizes: [height, width, 0.0, 0.0, height, width],
        })
    }
}
