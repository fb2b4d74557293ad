//! What is kept of prompts and pictures from one run to the next: never another picture for it.

use crate::golden::{Case, goldens};
use domain::catalogue::Mode;
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Engine, Plan, Unobserved};
use imaging::Picture;
use nn::files::ModelFiles;
use pipelines::assembly::Lora;
use pipelines::flux::FluxEngine;
use pipelines::{Parts, Precision, Residency, load_weights};
use std::sync::Arc;

const BUDGET: u64 = 64 << 20;

fn id(name: &str) -> ModelId {
    ModelId::parse(name).unwrap()
}

fn engine(model: &str, loras: &[Lora], residency: &Arc<Residency>) -> Box<dyn Engine> {
    load_weights(&goldens().join("models").join(model), id(model), loras, residency).unwrap()
}

fn redux(residency: &Arc<Residency>) -> Box<dyn Engine> {
    let folder = |model: &str| ModelFiles::Folder(goldens().join("models").join(model));
    let parts = Parts { own: folder("flux-redux-tiny"), base: Some(folder("flux-dev-tiny")), companion: None };
    Box::new(FluxEngine::load(id("flux-redux"), &parts, residency).unwrap())
}

fn painted(engine: &mut dyn Engine, plan: &Plan) -> Vec<Picture> {
    engine.run(plan, &mut Unobserved).unwrap().images
}

/// A recorded run's plan, at most two steps of it.
fn plan(case: &str) -> Plan {
    let plan = if case.starts_with("sdxl") {
        crate::sdxl::plan(&Case::open(case))
    } else {
        crate::parity::plan(&Case::open(case))
    };
    Plan { steps: Some(2), ..plan }
}

/// The second run takes everything from the cache, and paints what a run without one paints.
#[track_caller]
fn check(case: &str, load: impl Fn(&Arc<Residency>) -> Box<dyn Engine>, adapt: impl Fn(Plan) -> Plan, n_kept: u64) {
    let plan = adapt(plan(case));
    let expected = painted(&mut *load(&Residency::unlimited(Precision::F32)), &plan);
    let residency = Residency::unlimited(Precision::F32).with_cache(BUDGET);
    let mut engine = load(&residency);
    assert_eq!(painted(&mut *engine, &plan), expected, "{case}");
    let first = residency.cache_use();
    assert_eq!((first.n_hits, first.n_misses), (0, n_kept), "{case}");
    assert!(first.bytes > 0 && first.bytes <= BUDGET);
    // Another seed starts from another latent of the same picture.
    assert_ne!(painted(&mut *engine, &Plan { seed: plan.seed + 1, ..plan.clone() }), expected, "{case}");
    assert_eq!(painted(&mut *engine, &plan), expected, "{case}");
    let later = residency.cache_use();
    assert_eq!((later.n_hits, later.n_misses, later.bytes), (2 * n_kept, n_kept, first.bytes), "{case}");
}

#[test]
fn a_hit_gives_the_same_picture_bit_by_bit() {
    let flux = |residency: &Arc<Residency>| engine("flux-dev-tiny", &[], residency);
    // Of each text two embeddings, and the reference's latents.
    check("flux_img2img", flux, |plan| plan, 3);
    check("flux_img2img_truecfg", flux, |plan| plan, 5);
    // The edges and their latents.
    let canny = |plan: Plan| Plan { control_image: None, mode: Mode::Canny, strength: Some(1.0), ..plan };
    check("flux_control_img2img", |residency| engine("flux-control-tiny", &[], residency), canny, 4);
    check("flux_kontext", |residency| engine("flux-kontext-tiny", &[], residency), |plan| plan, 3);
    // The reference's tokens.
    check("flux_redux_text", redux, |plan| plan, 3);
    check("sdxl_img2img", |residency| engine("sdxl-tiny", &[], residency), |plan| plan, 5);
}

#[test]
fn whatever_differs_is_computed_anew() {
    let base = plan("flux_img2img_truecfg");
    let source = base.source.clone().unwrap();
    let mut pixels = source.pixels().to_vec();
    pixels[0] ^= 1;
    let other_source = Picture::new(source.size(), pixels).unwrap();
    let text = |text: &str| Some(text.to_owned());
    let plans = [
        base.clone(),
        Plan { prompt: "another".to_owned(), ..base.clone() },
        Plan { prompt_2: text("another"), ..base.clone() },
        Plan { negative_prompt: text("another"), ..base.clone() },
        Plan { max_sequence_length: Some(40), ..base.clone() },
        Plan { size: Some(Size::new(48, 64)), ..base.clone() },
        Plan { source: Some(other_source), ..base.clone() },
    ];
    let lora = |scale| Lora { file: goldens().join("formats/lora_flux_kohya.safetensors"), scale };
    let residency = Residency::unlimited(Precision::F32).with_cache(BUDGET);
    for (model, loras) in [
        ("flux-dev-tiny", vec![]),
        ("flux-schnell-tiny", vec![]),
        ("flux-dev-tiny", vec![lora(1.0)]),
        ("flux-dev-tiny", vec![lora(0.5)]),
    ] {
        let (mut ours, mut plain) =
            (engine(model, &loras, &residency), engine(model, &loras, &Residency::unlimited(Precision::F32)));
        for (idx, plan) in plans.iter().enumerate() {
            assert_eq!(painted(&mut *ours, plan), painted(&mut *plain, plan), "{model}, {loras:?}, plan {idx}");
        }
    }
}

#[test]
fn a_small_cache_paints_the_same() {
    let plan = plan("flux_img2img");
    let expected = painted(&mut *engine("flux-dev-tiny", &[], &Residency::unlimited(Precision::F32)), &plan);
    for budget in [1, 3000, 20_000] {
        let residency = Residency::unlimited(Precision::F32).with_cache(budget);
        let mut engine = engine("flux-dev-tiny", &[], &residency);
        for _ in 0..2 {
            assert_eq!(painted(&mut *engine, &plan), expected);
            assert!(residency.cache_use().bytes <= budget);
        }
    }
}

#[test]
fn what_is_kept_needs_no_component() {
    let largest = ["text_encoder", "text_encoder_2", "transformer", "vae"].map(|component| {
        let files = ModelFiles::Folder(goldens().join("models/flux-dev-tiny"));
        nn::Weights::open(&files, component).unwrap().bytes_in_memory()
    });
    let largest = largest.into_iter().max().unwrap();
    let residency = Residency::new(largest, Precision::F32).with_cache(BUDGET);
    let mut engine = engine("flux-dev-tiny", &[], &residency);
    // Without a reference the transformer, and then the autoencoder that decodes, are all that a known text needs.
    let plan = Plan { source: None, ..plan("flux_img2img") };
    let first = painted(&mut *engine, &plan);
    assert_eq!(painted(&mut *engine, &plan), first);
    assert_eq!(residency.cache_use().n_hits, 2);
}
