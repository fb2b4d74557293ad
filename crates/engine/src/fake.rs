//! An engine for tests: paints at once, or as slowly or badly as a test asks.

use crate::{Effective, Engine, EngineError, EngineSource, Observer, Output, Plan, StepReport, Timings};
use domain::id::ModelId;
use domain::quantity::Size;
use imaging::Picture;
use std::ops::ControlFlow;
use std::time::Duration;

/// Tints the reference by the seed; never looks at the prompt, except for the words `fail please` and `panic please`.
pub struct FakeEngine {
    model: ModelId,
    step_time: Duration,
}

impl FakeEngine {
    pub fn new(step_time: Duration) -> Self {
        let model = ModelId::parse("fake").expect("a valid id, this is a bug");
        Self { model, step_time }
    }
}

impl Engine for FakeEngine {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Output, EngineError> {
        let steps = plan.steps.unwrap_or(4);
        for step in 1..=steps {
            std::thread::sleep(self.step_time);
            match plan.prompt.as_str() {
                "fail please" => return Err(EngineError::Failed("asked to fail".to_owned())),
                "panic please" => panic!("asked to panic"),
                _ => {}
            }
            if let ControlFlow::Break(()) = observer.step(StepReport { step, n_steps: steps }) {
                return Err(EngineError::Cancelled);
            }
        }
        let source_size = plan.source.as_ref().map(Picture::size);
        let size = plan.size.or(source_size).unwrap_or(Size::new(64, 64));
        let tint = |idx: u32| {
            let value = plan.seed.wrapping_add(u64::from(idx)).to_le_bytes();
            Picture::filled(size, [value[0], value[1], value[2]])
        };
        Ok(Output {
            images: (0..plan.batch).map(tint).collect(),
            withheld: Vec::new(),
            model: self.model.clone(),
            effective: Effective {
                size,
                strength: plan.strength.unwrap_or(1.0),
                steps,
                steps_run: steps,
                guidance_scale: plan.guidance_scale.unwrap_or(1.0),
                true_cfg_scale: 1.0,
                max_sequence_length: 0,
            },
            timings: Timings::default(),
            ignored: Vec::new(),
        })
    }
}

/// Serves every app with a [`FakeEngine`], or none at all.
pub struct FakeEngines {
    pub step_time: Duration,
    /// Models for which it says that no weights are installed.
    pub absent: Vec<ModelId>,
}

impl EngineSource for FakeEngines {
    fn model_for(&self, models: &[ModelId]) -> Option<ModelId> {
        models.iter().find(|model| !self.absent.contains(model)).cloned()
    }

    fn load(&self, _model: &ModelId) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(FakeEngine::new(self.step_time)))
    }
}
