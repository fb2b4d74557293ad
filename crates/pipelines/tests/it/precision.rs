//! Rounded products against exact ones: what a picture loses by them.

use crate::golden::{Case, goldens};
use domain::id::ModelId;
use engine::{Plan, Unobserved};
use imaging::Picture;
use pipelines::{Precision, Residency, load_weights};
use std::path::{Path, PathBuf};

/// The least that int8 may keep of a picture, in decibels.
const PSNR_MIN: f64 = 30.0;

fn tiny(model: &str) -> PathBuf {
    goldens().join("models").join(model)
}

/// The only model here that was trained: what rounding does to random weights says little.
fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pentimento-nano")
}

fn painted(model: &Path, precision: Precision, plan: &Plan) -> (Picture, u64) {
    let residency = Residency::unlimited(precision);
    let mut engine = load_weights(model, ModelId::parse("a-model").unwrap(), &[], &residency).unwrap();
    let picture = engine.run(plan, &mut Unobserved).unwrap().images.remove(0);
    (picture, residency.bytes_loaded())
}

fn flux() -> Plan {
    crate::parity::plan(&Case::open("flux_img2img"))
}

fn psnr(a: &Picture, b: &Picture) -> f64 {
    assert_eq!(a.size(), b.size());
    let squares = a.pixels().iter().zip(b.pixels()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.pixels().len() as f64;
    10.0 * (255.0f64.powi(2) / mean.max(1e-9)).log10()
}

#[test]
fn rounded_products_keep_the_picture_of_a_trained_model() {
    for (seed, prompt, strength) in [(1, "watercolor", 0.6), (2, "mosaic", 0.9), (3, "pop art", 0.4)] {
        let plan = Plan { seed, prompt: prompt.to_owned(), strength: Some(strength), steps: Some(6), ..flux() };
        let (exact, bytes) = painted(&nano(), Precision::F32, &plan);
        for (precision, least) in [(Precision::Bf16, PSNR_MIN + 10.0), (Precision::Int8, PSNR_MIN)] {
            let (rounded, fewer_bytes) = painted(&nano(), precision, &plan);
            let psnr = psnr(&rounded, &exact);
            assert!(psnr >= least, "{prompt} in {}: {psnr} dB", precision.as_str());
            assert_ne!(rounded, exact, "{prompt} in {}: nothing was rounded", precision.as_str());
            assert!(fewer_bytes <= bytes, "{}: {fewer_bytes} bytes instead of {bytes}", precision.as_str());
        }
    }
}

#[test]
fn rounded_products_keep_the_picture_of_every_architecture() {
    let sdxl = crate::sdxl::plan(&Case::open("sdxl_img2img"));
    for (model, plan) in [("flux-dev-tiny", flux()), ("sdxl-tiny", sdxl)] {
        let (exact, _) = painted(&tiny(model), Precision::F32, &plan);
        for precision in [Precision::Bf16, Precision::Int8] {
            let psnr = psnr(&painted(&tiny(model), precision, &plan).0, &exact);
            assert!(psnr >= PSNR_MIN, "{model} in {}: {psnr} dB", precision.as_str());
        }
    }
}

#[test]
fn a_small_model_is_exact_unless_another_precision_is_asked_for() {
    let plan = Plan { steps: Some(2), ..flux() };
    assert_eq!(painted(&nano(), Precision::Auto, &plan), painted(&nano(), Precision::F32, &plan));
}
