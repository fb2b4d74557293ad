//! What conditions a run besides the noise: control pictures and Redux's tokens, and what is refused of them.

use crate::golden::{Case, goldens};
use crate::parity::plan;
use domain::catalogue::{Mode, Scheduler};
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Engine, Fit, Plan, Unobserved};
use imaging::Picture;
use nn::files::ModelFiles;
use pipelines::flux::FluxEngine;
use pipelines::{Parts, Precision, Residency};

fn painted(case: &Case, plan: &Plan) -> Vec<Picture> {
    case.engine().run(plan, &mut Unobserved).unwrap().images
}

#[track_caller]
fn refused(case: &Case, plan: &Plan, expect: &str) {
    let error = case.engine().run(plan, &mut Unobserved).unwrap_err().to_string();
    assert!(error.contains(expect), "{error}");
}

fn picture(name: &str) -> Picture {
    imaging::decode(&std::fs::read(goldens().join(format!("inputs/{name}.png"))).unwrap()).unwrap()
}

/// The recorded control picture is the edges of this one.
fn car() -> Picture {
    picture("in_96x64")
}

#[test]
fn edges_are_found_where_no_control_picture_is_given() {
    let from_noise = Case::open("flux_control_canny");
    let made = Plan { source: Some(car()), control_image: None, strength: Some(1.0), ..plan(&from_noise) };
    assert_eq!(painted(&from_noise, &made), painted(&from_noise, &plan(&from_noise)));
    let from_reference = Case::open("flux_control_img2img");
    let made = Plan { control_image: None, ..plan(&from_reference) };
    assert_eq!(painted(&from_reference, &made), painted(&from_reference, &plan(&from_reference)));
}

#[test]
fn edges_are_those_of_the_size_that_is_painted() {
    let case = Case::open("flux_control_canny");
    let size = Size::new(70, 52);
    let of_car = |control_image| Plan {
        source: Some(car()),
        control_image,
        size: Some(size),
        steps: Some(1),
        fit: Fit::Cover,
        strength: Some(1.0),
        ..plan(&case)
    };
    let edges = imaging::canny(&imaging::fit_cover(&car(), size), imaging::Canny::default());
    assert_eq!(painted(&case, &of_car(None)), painted(&case, &of_car(Some(edges))));
}

#[test]
fn a_control_model_takes_its_own_defaults_and_any_strength() {
    let case = Case::open("flux_control_canny");
    let mut engine = case.engine();
    let silent = Plan { source: Some(car()), strength: None, guidance_scale: None, steps: None, ..plan(&case) };
    let effective = engine.run(&silent, &mut Unobserved).unwrap().effective;
    assert_eq!((effective.strength, effective.steps, effective.guidance_scale), (1.0, 50, 30.0));
    assert_eq!(effective.steps_run, 50);
    let mut with = |strength: f64| {
        let plan = Plan { source: Some(car()), strength: Some(strength), ..plan(&case) };
        engine.run(&plan, &mut Unobserved).unwrap()
    };
    let untouched = with(0.0);
    assert_eq!((untouched.images, untouched.effective.steps_run), (vec![car()], 0));
    assert_eq!((with(0.5).effective.steps_run, with(1e-9).effective.steps_run), (2, 1));
    // From noise alone, so the reference is of no account beside a ready-made control picture.
    assert_eq!(with(1.0).images, painted(&case, &plan(&case)));
}

#[test]
fn a_control_model_says_what_it_can_paint_under() {
    let case = Case::open("flux_control_canny");
    let bare = Plan { control_image: None, source: Some(car()), ..plan(&case) };
    refused(&case, &Plan { mode: Mode::Plain, ..bare.clone() }, "mode: got plain; this model paints under a control");
    refused(&case, &Plan { mode: Mode::Plain, ..bare.clone() }, "flux-canny or flux-depth");
    refused(&case, &Plan { mode: Mode::Redux, ..bare.clone() }, "mode: got redux");
    refused(&case, &Plan { mode: Mode::Depth, ..bare.clone() }, "mode: got depth, but no depth estimator");
    refused(&case, &Plan { source: None, ..bare }, "image: without a reference");
}

#[test]
fn other_models_refuse_modes_that_they_cannot_take() {
    let flux = Case::open("flux_img2img");
    refused(&flux, &Plan { mode: Mode::Canny, ..plan(&flux) }, "mode: got canny; allowed with flux-dev-tiny: plain");
    let redux = Case::open("flux_redux");
    refused(&redux, &Plan { mode: Mode::Plain, ..plan(&redux) }, "mode: got plain; allowed with flux-dev-tiny: redux");
    refused(&redux, &Plan { source: None, ..plan(&redux) }, "image: Redux needs a reference picture");
    let with_control = Plan { control_image: Some(car()), ..plan(&flux) };
    let unused = Plan { scheduler: Some(Scheduler::Euler), ..with_control };
    assert_eq!(flux.engine().run(&unused, &mut Unobserved).unwrap().ignored, ["control_image", "scheduler"]);
}

#[test]
fn strength_weights_redux_between_the_reference_and_nothing_of_it() {
    let case = Case::open("flux_redux_text");
    let with = |strength: Option<f64>, source: &str| {
        let source = Some(picture(source));
        painted(&case, &Plan { source, strength, steps: Some(2), ..plan(&case) })
    };
    assert_eq!(with(Some(1.0), "in_100x70"), with(Some(1.0), "in_64x64"), "1 disregards the reference");
    assert_ne!(with(Some(0.9), "in_100x70"), with(Some(0.9), "in_64x64"));
    assert_eq!(with(None, "in_100x70"), with(Some(1e-12), "in_100x70"), "without a strength, the full weight");
    let size = plan(&case).size.unwrap();
    let stretched = imaging::resize(&picture("in_100x70"), size);
    assert_eq!(with(Some(0.0), "in_100x70"), [stretched], "0 returns the reference");
}

#[test]
fn redux_sees_the_whole_reference_whatever_the_fit() {
    let case = Case::open("flux_redux_floor");
    let with = |fit: Fit| painted(&case, &Plan { fit, ..plan(&case) });
    assert_eq!(with(Fit::Cover), with(Fit::Stretch));
}

#[test]
fn redux_needs_a_flux_model_beside_it() {
    let folder = |name: &str| ModelFiles::Folder(goldens().join("models").join(name));
    for base in [None, Some(folder("flux-kontext-tiny")), Some(folder("flux-redux-tiny"))] {
        let parts = Parts { own: folder("flux-redux-tiny"), base, companion: None };
        let error = FluxEngine::load(ModelId::parse("redux").unwrap(), &parts, &Residency::unlimited(Precision::F32))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("Redux adds to a FLUX.1 model"), "{error}");
    }
}
