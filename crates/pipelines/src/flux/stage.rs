//! FLUX.1's parts, one at a time.

use super::FluxEngine;
use super::encode::Texts;
use crate::canvas::{Canvas, Frame};
use crate::run::{Watch, clocked, failed};
use crate::stage::{Stage, Staged, run_codec};
use crate::trace::Untraced;
use engine::{EngineError, Plan, Timings, Unobserved};
use std::time::Instant;

impl Staged for FluxEngine {
    fn run_stage(&mut self, plan: &Plan, stage: Stage) -> Result<Timings, EngineError> {
        let source = plan.source.clone().filter(|_| stage != Stage::Transformer);
        let plan = Plan { source, ..plan.clone() };
        let job = self.check(&plan)?;
        let canvas =
            Canvas::new(&plan, Frame { size: job.size, strength: job.strength }, &self.settings, self.multiple());
        let mut timings = Timings::default();
        let started = Instant::now();
        match stage {
            Stage::Text => {
                clocked((&mut timings.text, &mut timings.operations.text), || self.encode_texts(&job, &mut Untraced))?;
            }
            Stage::Vae => run_codec(&self.codec, canvas.source(), &mut timings)?,
            Stage::Transformer => {
                let positive = self.no_text(job.max_sequence_length as usize).map_err(|error| failed(&error))?;
                let (guidance_scale, true_cfg_scale) = (job.guidance_scale, job.true_cfg_scale);
                let texts = Texts { positive, negative: None, guidance_scale, true_cfg_scale };
                let prepared = self.prepare(&job, &canvas, &texts, &mut Untraced).map_err(|error| failed(&error))?;
                let watch = Watch { timings: &mut timings, observer: &mut Unobserved, trace: &mut Untraced };
                self.denoise(prepared, &texts, watch)?;
            }
        }
        timings.total = started.elapsed();
        Ok(timings)
    }
}
