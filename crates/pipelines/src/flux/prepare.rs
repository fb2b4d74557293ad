//! Noise, latents, positions and conditioning: all that a run starts from.

use super::encode::{Embeds, Texts};
use super::kontext::reference_picture;
use super::{FluxEngine, Guide, Job, PATCH};
use crate::canvas::Canvas;
use crate::run::Draws;
use crate::trace::Trace;
use candle_core::Tensor;
use models::flux::{image_positions, text_positions};
use models::vae::LatentDistribution;
use nn::files::ModelFiles;
use nn::rope::Rope;
use nn::values;
use nn::{Error, Result};
use samplers::flow_match::{FlowMatchConfig, FlowMatchSchedule, TimeShift};
use serde::Deserialize;

/// What the denoiser sees besides noise and text.
pub(super) enum Conditioning {
    /// Nothing: plain image-to-image starts from the noised reference.
    None,
    /// Channels beside each token (control). `(1, tokens, channels)`, one for each picture of the batch.
    Channels(Vec<Tensor>),
    /// Tokens after the picture's, with positions of their own (Kontext). `(1, tokens, channels)`
    Sequence(Tensor),
}

/// A run, ready to start.
pub(super) struct Prepared {
    /// `(1, tokens, channels)`, one for each picture of the batch.
    pub(super) latents: Vec<Tensor>,
    pub(super) conditioning: Conditioning,
    /// Angles of text, picture and conditioning, in this order.
    pub(super) pe: Rope,
    /// The same with the negative text; of another length with Redux.
    pub(super) negative_pe: Option<Rope>,
    pub(super) schedule: FlowMatchSchedule,
    pub(super) first_step: usize,
    pub(super) grid: Grid,
}

/// The tokens of a picture.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Prepared {
    /// Steps that will run.
    pub(super) fn n_steps(&self) -> usize {
        self.schedule.n_steps() - self.first_step
    }
}

impl FluxEngine {
    /// Draws come from one generator in the reference's order: the control picture's latents, the reference picture's
    /// latent, then the noise.
    pub(super) fn prepare(
        &self,
        job: &Job<'_>,
        canvas: &Canvas,
        texts: &Texts,
        trace: &mut dyn Trace,
    ) -> Result<Prepared> {
        let mut draws = Draws::new(job.plan.seed);
        let multiple = self.multiple();
        let padded = canvas.padded_size();
        let grid = Grid { rows: (padded.height / multiple) as usize, columns: (padded.width / multiple) as usize };
        let schedule = FlowMatchSchedule::new(&self.schedule_config, job.steps as usize, grid.rows * grid.columns)
            .map_err(|error| Error::Shape(error.to_string()))?;
        see_schedule(trace, &schedule)?;

        let mut first_step = 0;
        let mut conditioning = Conditioning::None;
        let mut clean = None;
        let mut reference_positions = Vec::new();
        let mut n_encoded = 0;
        match job.guide {
            Guide::Start | Guide::Tokens { .. } => {}
            Guide::Channels(control) => {
                let picture = canvas.control(control, job.plan.fit)?;
                let distribution = self.codec.encode(n_encoded, &picture, trace)?;
                n_encoded += 1;
                conditioning = Conditioning::Channels(self.channels(job, &distribution, &mut draws, trace)?);
            }
            Guide::Sequence(reference) => {
                let picture = reference_picture(reference, multiple);
                let latent = self.codec.scaled(&self.codec.encode(n_encoded, &picture, trace)?.mean)?;
                let (_, _, h, w) = latent.dims4()?;
                reference_positions = image_positions(1, h / PATCH, w / PATCH);
                conditioning = Conditioning::Sequence(pack(&latent)?);
            }
        }
        if let Some(picture) = canvas.source().filter(|_| job.starts_from_reference()) {
            let distribution = self.codec.encode(n_encoded, &picture, trace)?;
            clean = Some(self.sampled(&distribution, &mut draws, trace)?);
            first_step = schedule.first_step(job.strength).min(schedule.n_steps() - 1);
        }

        let n_pictures = job.plan.batch as usize;
        let shape = [n_pictures, self.codec.n_channels(), PATCH * grid.rows, PATCH * grid.columns];
        let noise = pack(&draws.draw(&shape, trace)?)?;
        let mix = schedule.noise_mix(first_step);
        let start = |idx: usize| -> Result<Tensor> {
            let noise = noise.narrow(0, idx, 1)?.contiguous()?;
            match &clean {
                None => Ok(noise),
                Some(clean) => Ok(((noise * f64::from(mix.noise))? + (clean * f64::from(mix.latent))?)?),
            }
        };
        let mut img_positions = image_positions(0, grid.rows, grid.columns);
        img_positions.extend(reference_positions);
        let positions = |text: &Embeds| -> Result<Vec<Vec<f64>>> {
            Ok([text_positions(text.txt.dim(1)?), img_positions.clone()].concat())
        };
        let pe = |text: &Embeds| self.transformer.get()?.rope(&positions(text)?);
        see_positions(trace, &positions(&texts.positive)?, texts.positive.txt.dim(1)?)?;
        Ok(Prepared {
            latents: (0..n_pictures).map(start).collect::<Result<_>>()?,
            conditioning,
            pe: pe(&texts.positive)?,
            negative_pe: texts.negative.as_ref().map(pe).transpose()?,
            schedule,
            first_step,
            grid,
        })
    }

    /// The reference's latent, one for the whole batch.
    fn sampled(&self, reference: &LatentDistribution, draws: &mut Draws, trace: &mut dyn Trace) -> Result<Tensor> {
        let noise = draws.draw(reference.mean.dims(), trace)?;
        pack(&self.codec.scaled(&reference.sample(&noise)?)?)
    }

    /// The control picture's latents. Unlike the reference's, they are sampled for each picture of the batch.
    fn channels(
        &self,
        job: &Job<'_>,
        control: &LatentDistribution,
        draws: &mut Draws,
        trace: &mut dyn Trace,
    ) -> Result<Vec<Tensor>> {
        let (_, c, h, w) = control.mean.dims4()?;
        let n_pictures = job.plan.batch as usize;
        let noise = draws.draw(&[n_pictures, c, h, w], trace)?;
        let sample = |idx: usize| {
            let noise = noise.narrow(0, idx, 1)?.contiguous()?;
            pack(&self.codec.scaled(&control.sample(&noise)?)?)
        };
        (0..n_pictures).map(sample).collect()
    }
}

/// Splits latents into 2x2 patches, the tokens of the transformer.
///
/// # Shapes
/// - latent: `(b, c, h, w)`, `h` and `w` even
/// - output: `(b, h/2 · w/2, 4c)`
fn pack(latent: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = latent.dims4()?;
    Ok(latent
        .reshape((b, c, h / PATCH, PATCH, w / PATCH, PATCH))? // (b, c, row, dy, column, dx)
        .permute((0, 2, 4, 1, 3, 5))? // (b, row, column, c, dy, dx)
        .reshape((b, (h / PATCH) * (w / PATCH), c * PATCH * PATCH))?)
}

/// Puts tokens back together.
///
/// # Shapes
/// - tokens: `(b, rows · columns, 4c)`; output: `(b, c, 2 rows, 2 columns)`
pub(super) fn unpack(tokens: &Tensor, grid: Grid) -> Result<Tensor> {
    let (b, _, n) = tokens.dims3()?;
    let c = n / (PATCH * PATCH);
    let Grid { rows, columns } = grid;
    Ok(tokens
        .reshape((b, rows, columns, c, PATCH, PATCH))? // (b, row, column, c, dy, dx)
        .permute((0, 3, 1, 4, 2, 5))? // (b, c, row, dy, column, dx)
        .reshape((b, c, PATCH * rows, PATCH * columns))?)
}

/// `scheduler_config.json`, as diffusers writes it.
pub(super) fn schedule_config(files: &ModelFiles) -> Result<FlowMatchConfig> {
    const PATH: &str = "scheduler/scheduler_config.json";
    let written: Written = models::config::read(files, "scheduler", "scheduler_config.json")?;
    let malformed = |reason: String| Error::Malformed { path: files.display(PATH), reason };
    if written.class_name != "FlowMatchEulerDiscreteScheduler" {
        let reason = format!("the scheduler {} is not FlowMatchEulerDiscreteScheduler", written.class_name);
        return Err(malformed(reason));
    }
    let assumed = FlowMatchConfig::default();
    Ok(FlowMatchConfig {
        num_train_timesteps: written.num_train_timesteps.unwrap_or(assumed.num_train_timesteps),
        shift: written.shift.unwrap_or(assumed.shift),
        use_dynamic_shifting: written.use_dynamic_shifting.unwrap_or(assumed.use_dynamic_shifting),
        base_shift: written.base_shift.unwrap_or(assumed.base_shift),
        max_shift: written.max_shift.unwrap_or(assumed.max_shift),
        base_image_seq_len: written.base_image_seq_len.unwrap_or(assumed.base_image_seq_len),
        max_image_seq_len: written.max_image_seq_len.unwrap_or(assumed.max_image_seq_len),
        time_shift_type: match written.time_shift_type.as_deref() {
            None | Some("exponential") => TimeShift::Exponential,
            Some("linear") => TimeShift::Linear,
            Some(other) => return Err(malformed(format!("time_shift_type: got {other}; known: exponential, linear"))),
        },
        shift_terminal: written.shift_terminal,
        use_karras_sigmas: written.use_karras_sigmas.unwrap_or(false),
        use_exponential_sigmas: written.use_exponential_sigmas.unwrap_or(false),
        use_beta_sigmas: written.use_beta_sigmas.unwrap_or(false),
        invert_sigmas: written.invert_sigmas.unwrap_or(false),
        stochastic_sampling: written.stochastic_sampling.unwrap_or(false),
    })
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "_class_name")]
    class_name: String,
    num_train_timesteps: Option<u32>,
    shift: Option<f64>,
    use_dynamic_shifting: Option<bool>,
    base_shift: Option<f64>,
    max_shift: Option<f64>,
    base_image_seq_len: Option<u32>,
    max_image_seq_len: Option<u32>,
    time_shift_type: Option<String>,
    shift_terminal: Option<f64>,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    invert_sigmas: Option<bool>,
    stochastic_sampling: Option<bool>,
}

fn see_schedule(trace: &mut dyn Trace, schedule: &FlowMatchSchedule) -> Result<()> {
    trace.see("scheduler.sigmas", &values::tensor(schedule.sigmas().to_vec(), schedule.sigmas().len())?);
    trace.see("scheduler.timesteps", &values::tensor(schedule.timesteps().to_vec(), schedule.n_steps())?);
    Ok(())
}

fn see_positions(trace: &mut dyn Trace, positions: &[Vec<f64>], n_txt: usize) -> Result<()> {
    let ids = |positions: &[Vec<f64>]| {
        let flat: Vec<f32> = positions.iter().flatten().map(|coordinate| *coordinate as f32).collect();
        values::tensor(flat, (positions.len(), 3))
    };
    trace.see("model_call_0.txt_ids", &ids(&positions[..n_txt])?);
    trace.see("model_call_0.img_ids", &ids(&positions[n_txt..])?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_orders_channels_then_rows_then_columns() {
        let latent = values::tensor((0..16).map(|x| x as f32).collect(), (1, 2, 2, 4)).unwrap();
        let packed = pack(&latent).unwrap();
        let expected = [[0., 1., 4., 5., 8., 9., 12., 13.], [2., 3., 6., 7., 10., 11., 14., 15.]];
        assert_eq!(packed.squeeze(0).unwrap().to_vec2::<f32>().unwrap(), expected);
        let unpacked = unpack(&packed, Grid { rows: 1, columns: 2 }).unwrap();
        assert_eq!(values::to_vec(&unpacked).unwrap(), values::to_vec(&latent).unwrap());
    }
}
