//! Every tensor of every recorded run of FLUX.

use crate::golden::{Case, Comparison, goldens, recorded_runs};
use domain::catalogue::Mode;
use domain::quantity::Size;
use engine::{Engine, Fit, Plan, Unobserved};

pub(crate) fn plan(case: &Case) -> Plan {
    let number = |name: &str| case.argument(name).as_f64();
    let whole = |name: &str| case.argument(name).as_u64().map(|value| value as u32);
    let text = |name: &str| case.argument(name).as_str().map(str::to_owned);
    // The reference rounds sizes down to whole tokens; we paint the size asked for, so we ask for the rounded one.
    let side = |name: &str| whole(name).unwrap() / 16 * 16;
    let control_image = case.picture("control_image");
    // The reference takes the weight of Redux's tokens, which strength is the rest of.
    let weight = number("image_weight").or(number("prompt_embeds_scale"));
    Plan {
        source: case.source(),
        mode: match &control_image {
            _ if case.is_redux() => Mode::Redux,
            Some(_) => Mode::Canny,
            None => Mode::Plain,
        },
        control_image,
        prompt: text("prompt").unwrap_or_default(),
        prompt_2: text("prompt_2"),
        negative_prompt: text("negative_prompt"),
        negative_prompt_2: text("negative_prompt_2"),
        guidance_scale: number("guidance_scale"),
        true_cfg_scale: number("true_cfg_scale"),
        strength: number("strength").or(weight.map(|weight| 1.0 - weight)),
        steps: whole("num_inference_steps"),
        scheduler: None,
        size: Some(Size::new(side("width"), side("height"))),
        fit: Fit::Stretch,
        seed: case.about["seed"].as_u64().unwrap(),
        batch: whole("num_images_per_prompt").unwrap_or(1),
        max_sequence_length: whole("max_sequence_length"),
    }
}

#[track_caller]
fn check(name: &str) {
    let case = Case::open(name);
    let mut comparison = Comparison::of(&case);
    let output = case.engine().run_traced(&plan(&case), &mut Unobserved, &mut comparison).unwrap();
    comparison.finish(&output);
}

// One generator per picture cannot be asked for through our contract.
recorded_runs! { "flux_", without ["flux_img2img_generators"]:
    flux_control_batch2,
    flux_control_canny,
    flux_control_depth,
    flux_control_depth_img2img,
    flux_control_floor,
    flux_control_img2img,
    flux_control_img2img_batch2,
    flux_control_img2img_strength_03,
    flux_control_img2img_strength_high,
    flux_img2img,
    flux_img2img_28_steps,
    flux_img2img_batch2,
    flux_img2img_batch3,
    flux_img2img_empty_prompt,
    flux_img2img_enlarge,
    flux_img2img_floor,
    flux_img2img_floor8,
    flux_img2img_large,
    flux_img2img_long_prompt,
    flux_img2img_prompt2,
    flux_img2img_resize,
    flux_img2img_seed_0,
    flux_img2img_seed_large,
    flux_img2img_seq_32,
    flux_img2img_seq_512,
    flux_img2img_strength_03,
    flux_img2img_strength_1,
    flux_img2img_strength_low,
    flux_img2img_truecfg,
    flux_img2img_truecfg_empty_negative,
    flux_img2img_truecfg_no_negative,
    flux_img2img_truecfg_prompt2,
    flux_img2img_unicode_prompt,
    flux_img2img_wide,
    flux_kontext,
    flux_kontext_diffsize,
    flux_kontext_truecfg,
    flux_redux,
    flux_redux_floor,
    flux_redux_scale,
    flux_redux_text,
    flux_redux_text_weight,
    flux_redux_truecfg,
    flux_redux_weight_0,
    flux_schnell_img2img,
    flux_schnell_img2img_1_step,
    flux_txt2img,
    flux_txt2img_truecfg,
}

#[test]
fn strength_zero_returns_the_reference_untouched() {
    let case = Case::open("flux_img2img");
    let source = case.source().unwrap();
    let plan = Plan { strength: Some(0.0), size: None, ..plan(&case) };
    let output = case.engine().run(&plan, &mut Unobserved).unwrap();
    assert_eq!(output.images, [source]);
    assert_eq!(output.effective.steps_run, 0);
}

#[test]
fn any_size_is_painted_exactly() {
    let case = Case::open("flux_img2img");
    for size in [Size::new(70, 33), Size::new(1, 1), Size::new(16, 17)] {
        let plan = Plan { size: Some(size), steps: Some(1), ..plan(&case) };
        assert_eq!(case.engine().run(&plan, &mut Unobserved).unwrap().images[0].size(), size);
    }
}

#[test]
fn what_cannot_be_painted_is_refused_by_name() {
    let case = Case::open("flux_img2img");
    let refused = |plan: Plan, field: &str| {
        let error = case.engine().run(&plan, &mut Unobserved).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    };
    refused(Plan { steps: Some(0), ..plan(&case) }, "num_inference_steps");
    refused(Plan { strength: Some(1.5), ..plan(&case) }, "strength");
    refused(Plan { max_sequence_length: Some(513), ..plan(&case) }, "max_sequence_length");
    refused(Plan { size: Some(Size::new(0, 5)), ..plan(&case) }, "width x height");
    refused(Plan { source: None, size: None, ..plan(&case) }, "size");
}
