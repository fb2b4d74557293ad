//! SDXL's parts, one at a time.

use super::encode::Texts;
use super::{Job, SdxlEngine};
use crate::canvas::{Canvas, Frame};
use crate::run::{Watch, clocked, failed};
use crate::stage::{Stage, Staged, run_codec};
use crate::tokenizer::ClipTokenizer;
use crate::trace::Untraced;
use engine::{EngineError, Plan, Timings, Unobserved};
use nn::{Result, values};
use std::time::Instant;

impl Staged for SdxlEngine {
    fn run_stage(&mut self, plan: &Plan, stage: Stage) -> std::result::Result<Timings, EngineError> {
        let source = plan.source.clone().filter(|_| stage != Stage::Transformer);
        let plan = Plan { source, ..plan.clone() };
        let job = self.check(&plan)?;
        let frame = Frame { size: job.asked.size, strength: job.asked.strength };
        let canvas = Canvas::new(&plan, frame, &self.settings, self.codec.factor() as u32);
        let mut timings = Timings::default();
        let started = Instant::now();
        match stage {
            Stage::Text => {
                clocked((&mut timings.text, &mut timings.operations.text), || self.encode_texts(&job, &mut Untraced))?;
            }
            Stage::Vae => run_codec(&self.codec, canvas.source(), &mut timings)?,
            Stage::Transformer => {
                let texts = self.no_text(&job).map_err(|error| failed(&error))?;
                let prepared = self.prepare(&job, &canvas, &mut Untraced).map_err(|error| failed(&error))?;
                let watch = Watch { timings: &mut timings, observer: &mut Unobserved, trace: &mut Untraced };
                self.denoise(prepared, &texts, watch)?;
            }
        }
        timings.total = started.elapsed();
        Ok(timings)
    }
}

impl SdxlEngine {
    /// Zeros in the place of embeddings, as many as the plan's guidance asks for.
    fn no_text(&self, job: &Job<'_>) -> Result<Texts> {
        let guidance_scale = job.negative.map(|_| job.guidance_scale);
        let b = if guidance_scale.is_some() { 2 } else { 1 };
        let zeros = |shape: &[usize]| values::tensor(vec![0.0; shape.iter().product()], shape);
        let txt = zeros(&[b, ClipTokenizer::N_TOKENS, self.unet_config.cross_attention_dim])?;
        Ok(Texts { txt, pooled: zeros(&[b, self.unet_config.pooled_dim()])?, guidance_scale })
    }
}
