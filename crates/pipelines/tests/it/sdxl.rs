//! Every tensor of every recorded run of SDXL, and what no recording shows.

use crate::golden::{Case, Comparison, goldens, recorded_runs};
use domain::catalogue::{Mode, Scheduler};
use domain::quantity::Size;
use engine::{Engine, Fit, Plan, Unobserved};
use imaging::Picture;

pub(crate) fn plan(case: &Case) -> Plan {
    let number = |name: &str| case.argument(name).as_f64();
    let whole = |name: &str| case.argument(name).as_u64().map(|value| value as u32);
    let text = |name: &str| case.argument(name).as_str().map(str::to_owned);
    let source = case.source();
    // The reference rounds a picture's sides down to whole latents; we paint any size, so we ask for the rounded one.
    let floor = |side: u32| side / 8 * 8;
    let size = match source.as_ref().map(Picture::size) {
        Some(size) => Size::new(floor(size.width), floor(size.height)),
        None => Size::new(whole("width").unwrap(), whole("height").unwrap()),
    };
    Plan {
        source,
        mode: Mode::Plain,
        control_image: None,
        prompt: text("prompt").unwrap(),
        prompt_2: text("prompt_2"),
        negative_prompt: text("negative_prompt"),
        negative_prompt_2: text("negative_prompt_2"),
        guidance_scale: number("guidance_scale"),
        true_cfg_scale: None,
        strength: number("strength"),
        steps: whole("num_inference_steps"),
        scheduler: match case.about["scheduler"].as_str() {
            None => None,
            Some("EulerAncestralDiscreteScheduler") => Some(Scheduler::EulerAncestral),
            Some("DPMSolverMultistepScheduler") => Some(Scheduler::DpmPlusPlus2mKarras),
            Some(other) => panic!("no scheduler {other}"),
        },
        size: Some(size),
        fit: Fit::Stretch,
        seed: case.about["seed"].as_u64().unwrap(),
        batch: whole("num_images_per_prompt").unwrap_or(1),
        max_sequence_length: None,
    }
}

#[track_caller]
fn check(name: &str) {
    let case = Case::open(name);
    let mut comparison = Comparison::of(&case);
    let output = case.sdxl().run_traced(&plan(&case), &mut Unobserved, &mut comparison).unwrap();
    comparison.finish(&output);
}

recorded_runs! { "sdxl_", without []:
    sdxl_ancestral_batch2,
    sdxl_batch2,
    sdxl_dpmpp,
    sdxl_dpmpp_16_steps,
    sdxl_empty_negative,
    sdxl_empty_prompt,
    sdxl_floor,
    sdxl_guidance_30,
    sdxl_img2img,
    sdxl_long_prompt,
    sdxl_no_negative,
    sdxl_nocfg,
    sdxl_odd_latents,
    sdxl_preset,
    sdxl_prompt_2,
    sdxl_strength_03,
    sdxl_strength_1,
    sdxl_strength_low,
    sdxl_turbo_4_steps,
    sdxl_turbo_guided,
    sdxl_turbo_img2img,
    sdxl_turbo_txt2img,
    sdxl_txt2img,
    sdxl_txt2img_dpmpp,
    sdxl_unicode_prompt,
}

#[test]
fn strength_zero_returns_the_reference_untouched() {
    let case = Case::open("sdxl_img2img");
    let source = case.source().unwrap();
    let plan = Plan { strength: Some(0.0), size: None, batch: 2, ..plan(&case) };
    let output = case.sdxl().run(&plan, &mut Unobserved).unwrap();
    assert_eq!(output.images, [source.clone(), source]);
    assert_eq!(output.effective.steps_run, 0);
}

#[test]
fn the_least_strength_runs_one_step() {
    let case = Case::open("sdxl_img2img");
    let plan = Plan { strength: Some(1e-9), steps: Some(5), ..plan(&case) };
    assert_eq!(case.sdxl().run(&plan, &mut Unobserved).unwrap().effective.steps_run, 1);
}

#[test]
fn any_size_is_painted_exactly_by_every_scheduler() {
    let case = Case::open("sdxl_img2img");
    let mut engine = case.sdxl();
    for size in [Size::new(70, 33), Size::new(1, 1), Size::new(8, 9)] {
        for scheduler in Scheduler::ALL {
            for source in [None, case.source()] {
                let scheduler = Some(scheduler);
                let plan = Plan { source, size: Some(size), steps: Some(2), scheduler, ..plan(&case) };
                assert_eq!(engine.run(&plan, &mut Unobserved).unwrap().images[0].size(), size);
            }
        }
    }
}

#[test]
fn a_model_says_how_it_wants_to_be_run() {
    let silent = |case: &Case| Plan { guidance_scale: None, strength: None, steps: None, ..plan(case) };
    let base = Case::open("sdxl_img2img");
    let effective = base.sdxl().run(&silent(&base), &mut Unobserved).unwrap().effective;
    assert_eq!((effective.steps, effective.steps_run, effective.max_sequence_length), (30, 21, 77));
    assert!((effective.guidance_scale, effective.strength) == (5.0, 0.7));
    let turbo = Case::open("sdxl_turbo_img2img");
    let effective = turbo.sdxl().run(&silent(&turbo), &mut Unobserved).unwrap().effective;
    assert_eq!((effective.steps, effective.steps_run), (4, 2));
    assert!(effective.guidance_scale <= 1.0);
}

#[test]
fn what_has_no_effect_is_told_back() {
    let case = Case::open("sdxl_img2img");
    let mut engine = case.sdxl();
    let mut ignored = |plan: Plan| engine.run(&Plan { steps: Some(1), ..plan }, &mut Unobserved).unwrap().ignored;
    assert!(ignored(plan(&case)).is_empty());
    let unguided = Plan { guidance_scale: Some(1.0), true_cfg_scale: Some(3.0), ..plan(&case) };
    assert_eq!(ignored(unguided), ["negative_prompt", "true_cfg_scale"]);
    let alone = Plan { negative_prompt: None, negative_prompt_2: Some("fog".to_owned()), ..plan(&case) };
    assert_eq!(ignored(alone), ["negative_prompt_2"]);
    let sourceless = Plan { source: None, control_image: case.source(), max_sequence_length: Some(256), ..plan(&case) };
    assert_eq!(ignored(sourceless), ["strength", "control_image", "max_sequence_length"]);
}

#[test]
fn what_cannot_be_painted_is_refused_by_name() {
    let case = Case::open("sdxl_img2img");
    let mut engine = case.sdxl();
    let mut refused = |plan: Plan, field: &str| {
        let error = engine.run(&plan, &mut Unobserved).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    };
    refused(Plan { steps: Some(0), ..plan(&case) }, "num_inference_steps");
    refused(Plan { strength: Some(-0.1), ..plan(&case) }, "strength");
    refused(Plan { batch: 65, ..plan(&case) }, "batch");
    refused(Plan { size: Some(Size::new(0, 5)), ..plan(&case) }, "width x height");
    refused(Plan { source: None, size: None, ..plan(&case) }, "size");
    refused(Plan { mode: Mode::Canny, ..plan(&case) }, "mode: got canny; allowed with sdxl-tiny: plain");
}
