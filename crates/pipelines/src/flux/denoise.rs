//! The schedule, step by step.

use super::FluxEngine;
use super::encode::{Embeds, Texts};
use super::prepare::{Conditioning, Grid, Prepared, unpack};
use crate::run::{Clock, Ended, Watch, failed};
use crate::trace::{Prefixed, Trace};
use candle_core::Tensor;
use engine::{EngineError, Observer, StepReport};
use models::flux::Input;
use models::probe::Blind;
use nn::Result;
use nn::rope::Rope;
use nn::values;
use std::ops::ControlFlow;

/// One call of the transformer.
struct Call<'a> {
    run: &'a Prepared,
    embeds: &'a Embeds,
    /// Of `embeds` and the picture.
    pe: &'a Rope,
    step: usize,
    guidance: Option<f32>,
}

impl FluxEngine {
    /// Latents at the end of a run, `(1, c, h, w)` each, on the transformer's scale.
    pub(super) fn denoise(
        &self,
        mut run: Prepared,
        texts: &Texts,
        watch: Watch<'_>,
    ) -> std::result::Result<Vec<Tensor>, EngineError> {
        let Watch { timings, observer, trace } = watch;
        let n_steps = run.n_steps() as u32;
        let mut n_calls = 0;
        for (idx, step) in (run.first_step..run.schedule.n_steps()).enumerate() {
            let clock = Clock::start();
            run.latents =
                self.step(&run, texts, step, &mut Calls { observer: &mut *observer, trace, made: &mut n_calls })?;
            let joined = Tensor::cat(&run.latents, 0).map_err(|error| failed(&error.into()))?;
            trace.see(&format!("latents_after_step_{idx}"), &joined);
            let (spent, operations) = clock.stop();
            timings.steps.push(spent);
            timings.operations.steps += operations;
            let report = StepReport { step: idx as u32 + 1, n_steps };
            if let ControlFlow::Break(()) = observer.step(report) {
                return Err(EngineError::Cancelled);
            }
        }
        unpacked(&run.latents, run.grid).map_err(|error| failed(&error))
    }

    /// One Euler step of every picture of the batch.
    fn step(
        &self,
        run: &Prepared,
        texts: &Texts,
        step: usize,
        calls: &mut Calls<'_>,
    ) -> std::result::Result<Vec<Tensor>, Ended> {
        let guidance = self.flux_config.guidance_embeds.then_some(texts.guidance_scale as f32);
        let call = Call { run, embeds: &texts.positive, pe: &run.pe, step, guidance };
        let mut velocities = self.velocities(&call, calls)?;
        if let (Some(embeds), Some(pe)) = (&texts.negative, &run.negative_pe) {
            let avoided = self.velocities(&Call { embeds, pe, ..call }, calls)?;
            velocities = velocities
                .iter()
                .zip(&avoided)
                .map(|(wanted, avoided)| Ok((avoided + ((wanted - avoided)? * texts.true_cfg_scale)?)?))
                .collect::<Result<_>>()?;
        }
        let delta = f64::from(run.schedule.delta(step));
        let moved = run.latents.iter().zip(&velocities).map(|(latent, velocity)| Ok((latent + (velocity * delta)?)?));
        moved.collect()
    }

    /// What the transformer says of every picture of the batch, one after the other: a batch costs time, not memory.
    fn velocities(&self, call: &Call<'_>, calls: &mut Calls<'_>) -> std::result::Result<Vec<Tensor>, Ended> {
        let transformer = self.transformer.get()?;
        let timestep = call.run.schedule.timesteps()[call.step] / 1000.0;
        let mut velocities = Vec::with_capacity(call.run.latents.len());
        for (idx, latent) in call.run.latents.iter().enumerate() {
            Ended::unless_wanted(calls.observer)?;
            let img = match &call.run.conditioning {
                Conditioning::None => latent.clone(),
                Conditioning::Channels(channels) => Tensor::cat(&[latent, &channels[idx]], 2)?,
                Conditioning::Sequence(tokens) => Tensor::cat(&[latent, tokens], 1)?,
            };
            let Embeds { txt, pooled } = call.embeds;
            let input = Input { img: &img, txt, pooled, timestep, guidance: call.guidance, pe: call.pe };
            let is_first = *calls.made == 0 && idx == 0;
            if is_first {
                calls.see_inputs(&input)?;
            }
            let output = if is_first {
                transformer.forward(&input, &mut Prefixed { prefix: "blocks", trace: calls.trace })?
            } else {
                transformer.forward(&input, &mut Blind)?
            };
            // What the model says of conditioning tokens is of no interest.
            velocities.push(output.narrow(1, 0, latent.dim(1)?)?.contiguous()?);
        }
        calls.see_output(timestep, &velocities)?;
        Ok(velocities)
    }
}

/// The transformer's calls so far, under the recordings' names.
struct Calls<'a> {
    observer: &'a mut dyn Observer,
    trace: &'a mut dyn Trace,
    made: &'a mut usize,
}

impl Calls<'_> {
    fn see_inputs(&mut self, input: &Input<'_>) -> Result<()> {
        self.trace.see("model_call_0.hidden_states", input.img);
        self.trace.see("model_call_0.encoder_hidden_states", input.txt);
        self.trace.see("model_call_0.pooled_projections", input.pooled);
        if let Some(guidance) = input.guidance {
            self.trace.see("model_call_0.guidance", &values::tensor(vec![guidance], 1)?);
        }
        Ok(())
    }

    fn see_output(&mut self, timestep: f32, velocities: &[Tensor]) -> Result<()> {
        let idx = *self.made;
        *self.made += 1;
        self.trace.see(&format!("model_call_{idx}.timestep"), &values::tensor(vec![timestep], 1)?);
        self.trace.see(&format!("model_call_{idx}.output"), &Tensor::cat(velocities, 0)?);
        Ok(())
    }
}

fn unpacked(latents: &[Tensor], grid: Grid) -> Result<Vec<Tensor>> {
    latents.iter().map(|latent| unpack(latent, grid)).collect()
}
