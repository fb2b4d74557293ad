//! Several models in one process, and models that are larger than the memory for them.

use crate::golden::{Case, goldens, shelf};
use crate::parity::plan;
use domain::id::ModelId;
use engine::{Engine, EngineError, EngineSource, Unobserved};
use hub::registry;
use nn::Weights;
use nn::files::ModelFiles;
use pipelines::{Engines, Precision, Residency};
use std::sync::Arc;

/// Twice the same model, as if two models had all of their components in common.
const TWINS: [(&str, &str); 2] = [("flux-dev-tiny", "flux-dev"), ("flux-dev-tiny", "flux-schnell")];

fn id(text: &str) -> ModelId {
    ModelId::parse(text).unwrap()
}

fn bytes(component: &str) -> u64 {
    let files = ModelFiles::Folder(goldens().join("models/flux-dev-tiny"));
    Weights::open(&files, component).unwrap().bytes_in_memory()
}

fn painted(engine: &mut dyn Engine) -> Vec<imaging::Picture> {
    engine.run(&plan(&Case::open("flux_img2img")), &mut Unobserved).unwrap().images
}

#[test]
fn components_in_common_are_in_memory_once() {
    let folder = tempfile::tempdir().unwrap();
    let residency = Residency::unlimited(Precision::F32);
    let engines = Engines::new(shelf(folder.path(), &TWINS), registry::built_in(), Arc::clone(&residency));
    let mut dev = engines.load(&id("flux-dev")).unwrap();
    let alone = residency.bytes_loaded();
    let mut schnell = engines.load(&id("flux-schnell")).unwrap();
    assert_eq!(residency.bytes_loaded(), alone);
    assert_eq!(painted(&mut *dev), painted(&mut *schnell));
}

#[test]
fn a_model_larger_than_its_budget_is_painted_with_part_by_part() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = shelf(folder.path(), &TWINS);
    let components = ["text_encoder", "text_encoder_2", "transformer", "vae"];
    let (largest, name) = components.map(|name| (bytes(name), name)).into_iter().max().unwrap();
    let residency = Residency::new(largest, Precision::F32);
    let engines = Engines::new(shelf.clone(), registry::built_in(), Arc::clone(&residency));
    let mut engine = engines.load(&id("flux-dev")).unwrap();
    assert_eq!(residency.bytes_loaded(), 0, "what does not fit at once is not read before it is wanted");
    let whole = Engines::new(shelf.clone(), registry::built_in(), Residency::unlimited(Precision::F32));
    let expected = painted(&mut *whole.load(&id("flux-dev")).unwrap());
    for _ in 0..2 {
        assert_eq!(painted(&mut *engine), expected);
        assert!(residency.bytes_loaded() <= largest);
    }

    let engines = Engines::new(shelf, registry::built_in(), Residency::new(largest - 1, Precision::F32));
    let refusal = engines.usable(&[id("flux-dev")]).unwrap_err();
    assert!(refusal.starts_with("flux-dev is too large for this server"), "{refusal}");
    assert_eq!(engines.model_for(&[id("flux-dev")]), None);
    let error = engines.load(&id("flux-dev")).err().expect("refused");
    let said = error.to_string();
    assert!(
        matches!(error, EngineError::Weights(_)) && said.contains(&format!("the weights of {name} take")),
        "{said}"
    );
}
