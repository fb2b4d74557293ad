//! A run ends soon after nobody wants it any more, wherever it is.

use crate::golden::Case;
use engine::{Engine, EngineError, Observer, Plan, StepReport};
use std::ops::ControlFlow;

/// Wants the pictures until it was asked so often.
#[derive(Default)]
struct Impatient {
    patience: Option<u32>,
    asked: u32,
    steps: u32,
}

impl Observer for Impatient {
    fn step(&mut self, report: StepReport) -> ControlFlow<()> {
        self.steps = report.step;
        self.go_on()
    }

    fn go_on(&mut self) -> ControlFlow<()> {
        self.asked += 1;
        if self.patience == Some(self.asked) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Cancelled at each of its questions, a run asks no further one.
#[track_caller]
fn check(engine: &mut dyn Engine, plan: &Plan) {
    let mut patient = Impatient::default();
    engine.run(plan, &mut patient).unwrap();
    // Once after the texts, then for every picture of every step and at the step's end, then for every picture decoded.
    assert_eq!(patient.asked, 1 + patient.steps * (plan.batch + 1) + plan.batch);
    for patience in 1..=patient.asked {
        let mut impatient = Impatient { patience: Some(patience), ..Impatient::default() };
        assert!(matches!(engine.run(plan, &mut impatient), Err(EngineError::Cancelled)), "at question {patience}");
        assert_eq!(impatient.asked, patience);
    }
}

#[test]
fn a_run_of_flux_ends_within_a_picture() {
    let case = Case::open("flux_img2img");
    check(&mut case.engine(), &Plan { batch: 2, steps: Some(3), ..crate::parity::plan(&case) });
}

#[test]
fn a_run_of_sdxl_ends_within_a_picture() {
    let case = Case::open("sdxl_img2img");
    check(&mut case.sdxl(), &Plan { batch: 2, steps: Some(3), ..crate::sdxl::plan(&case) });
}
