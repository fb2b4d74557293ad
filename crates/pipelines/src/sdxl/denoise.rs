//! The schedule, step by step.

use super::SdxlEngine;
use super::encode::Texts;
use super::prepare::Prepared;
use crate::run::{Clock, Ended, Watch};
use crate::trace::{Prefixed, Trace};
use candle_core::Tensor;
use engine::{EngineError, Observer, StepReport};
use models::probe::Blind;
use models::unet::Input;
use nn::{Result, values};
use samplers::diffusion::{Step, Update};
use std::ops::ControlFlow;

/// A run under way.
struct State<'a> {
    run: Prepared,
    texts: &'a Texts,
    /// What the step before took the clean latents for, `(1, c, h, w)` each; none before the first.
    estimates: Vec<Tensor>,
}

impl SdxlEngine {
    /// Latents at the end of a run, `(1, c, h, w)` each, on the UNet's scale.
    pub(super) fn denoise(
        &self,
        run: Prepared,
        texts: &Texts,
        watch: Watch<'_>,
    ) -> std::result::Result<Vec<Tensor>, EngineError> {
        let Watch { timings, observer, trace } = watch;
        let mut state = State { run, texts, estimates: Vec::new() };
        let n_steps = state.run.steps.len();
        for idx in 0..n_steps {
            let clock = Clock::start();
            self.step(&mut state, idx, &mut *observer, trace)?;
            let (spent, operations) = clock.stop();
            timings.steps.push(spent);
            timings.operations.steps += operations;
            let report = StepReport { step: idx as u32 + 1, n_steps: n_steps as u32 };
            if let ControlFlow::Break(()) = observer.step(report) {
                return Err(EngineError::Cancelled);
            }
        }
        Ok(state.run.latents)
    }

    /// One step of every picture of the batch.
    fn step(
        &self,
        state: &mut State<'_>,
        idx: usize,
        observer: &mut dyn Observer,
        trace: &mut dyn Trace,
    ) -> std::result::Result<(), Ended> {
        let step = state.run.steps[idx];
        let outputs = self.outputs(state, idx, observer, trace)?;
        let noise = step.next.noise.map(|_| state.run.draw(trace)).transpose()?;
        let mut latents = Vec::with_capacity(outputs.len());
        let mut estimates = Vec::with_capacity(outputs.len());
        for (picture, (latent, output)) in state.run.latents.iter().zip(&outputs).enumerate() {
            let denoised = ((latent * step.denoised.sample)? + (output * step.denoised.output)?)?;
            let Update { sample, denoised: kept, previous, noise: drawn } = step.next;
            let mut next = ((latent * sample)? + (&denoised * kept)?)?;
            if let Some(before) = state.estimates.get(picture) {
                next = (next + (before * previous)?)?;
            }
            if let (Some(noise), Some(drawn)) = (&noise, drawn) {
                next = (next + (noise.narrow(0, picture, 1)? * drawn)?)?;
            }
            latents.push(next);
            estimates.push(denoised);
        }
        trace.see(&format!("latents_after_step_{idx}"), &Tensor::cat(&latents, 0)?);
        (state.run.latents, state.estimates) = (latents, estimates);
        Ok(())
    }

    /// What the UNet says of every picture of the batch, one after the other: a batch costs time, not memory. What to
    /// avoid and what to paint are one call.
    fn outputs(
        &self,
        state: &State<'_>,
        idx: usize,
        observer: &mut dyn Observer,
        trace: &mut dyn Trace,
    ) -> std::result::Result<Vec<Tensor>, Ended> {
        let unet = self.unet.get()?;
        let (texts, step) = (state.texts, &state.run.steps[idx]);
        let mut calls = Calls { idx, samples: Vec::new(), outputs: Vec::new() };
        let mut guided = Vec::with_capacity(state.run.latents.len());
        for (picture, latent) in state.run.latents.iter().enumerate() {
            Ended::unless_wanted(observer)?;
            let mut sample = (latent * step.input_scale)?;
            if texts.guidance_scale.is_some() {
                sample = Tensor::cat(&[&sample, &sample], 0)?;
            }
            let Texts { txt, pooled, .. } = texts;
            let input = Input { sample: &sample, timestep: step.timestep, txt, pooled, sizes: state.run.sizes };
            let output = if idx == 0 && picture == 0 {
                unet.forward(&input, &mut Prefixed { prefix: "blocks", trace })?
            } else {
                unet.forward(&input, &mut Blind)?
            };
            guided.push(match texts.guidance_scale {
                None => output.clone(),
                Some(scale) => {
                    let (avoided, wanted) = (output.narrow(0, 0, 1)?, output.narrow(0, 1, 1)?);
                    (&avoided + ((wanted - &avoided)? * scale)?)?
                }
            });
            calls.samples.push(sample);
            calls.outputs.push(output);
        }
        calls.tell(step, state, trace)?;
        Ok(guided)
    }
}

/// One step's calls of the UNet, one for each picture.
struct Calls {
    idx: usize,
    samples: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Calls {
    /// Under the recordings' names: there they are one call, what to avoid of all the pictures first.
    fn tell(&self, step: &Step, state: &State<'_>, trace: &mut dyn Trace) -> Result<()> {
        let name = |part: &str| format!("model_call_{}.{part}", self.idx);
        if self.idx == 0 {
            trace.see(&name("sample"), &by_text(&self.samples)?);
            let n_pictures = self.samples.len();
            trace.see(&name("encoder_hidden_states"), &by_text(&vec![state.texts.txt.clone(); n_pictures])?);
            trace.see(&name("text_embeds"), &by_text(&vec![state.texts.pooled.clone(); n_pictures])?);
            trace.see(&name("time_ids"), &values::tensor(state.run.sizes.to_vec(), state.run.sizes.len())?);
        }
        trace.see(&name("timestep"), &values::tensor(vec![step.timestep], 1)?);
        trace.see(&name("output"), &by_text(&self.outputs)?);
        Ok(())
    }
}

/// One batch of several: the first of each, and then the second of each.
fn by_text(batches: &[Tensor]) -> Result<Tensor> {
    let n_texts = batches.first().map_or(Ok(0), |batch| batch.dim(0))?;
    let picked = (0..n_texts).flat_map(|text| batches.iter().map(move |batch| batch.narrow(0, text, 1)));
    Ok(Tensor::cat(&picked.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}
