//! FLUX.1 Depth beside an estimator: from a folder of weights to a picture painted under a depth map.

use crate::golden::{goldens, shelf};
use domain::catalogue::Mode;
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Engine, EngineSource, Fit, Plan, Unobserved};
use hub::registry;
use imaging::Picture;
use nn::files::ModelFiles;
use pipelines::depth::DepthEstimator;
use pipelines::{Engines, Precision, Residency};

fn plan(source: Picture) -> Plan {
    Plan {
        source: Some(source),
        mode: Mode::Depth,
        control_image: None,
        prompt: "a red house".to_owned(),
        prompt_2: None,
        negative_prompt: None,
        negative_prompt_2: None,
        guidance_scale: Some(10.0),
        true_cfg_scale: None,
        strength: Some(1.0),
        steps: Some(2),
        scheduler: None,
        size: None,
        fit: Fit::Cover,
        seed: 7,
        batch: 1,
        max_sequence_length: Some(32),
    }
}

fn car() -> Picture {
    imaging::decode(&std::fs::read(goldens().join("inputs/in_96x64.png")).unwrap()).unwrap()
}

fn painted(engine: &mut dyn Engine, plan: &Plan) -> Picture {
    engine.run(plan, &mut Unobserved).unwrap().images.remove(0)
}

#[test]
fn flux_depth_paints_under_the_depth_map_of_what_it_paints_over() {
    let folder = tempfile::tempdir().unwrap();
    let weights = [("flux-control-tiny", "flux-depth"), ("depth-anything-tiny", "depth-anything-v2-small")];
    let engines =
        Engines::new(shelf(folder.path(), &weights), registry::built_in(), Residency::unlimited(Precision::F32));
    let model = engines.model_for(&[ModelId::parse("flux-depth").unwrap()]).expect("usable");
    let mut engine = engines.load(&model).unwrap();

    let estimator = DepthEstimator::load(
        &ModelFiles::Folder(folder.path().join("depth-anything-v2-small")),
        &Residency::unlimited(Precision::F32),
    )
    .unwrap();
    // A size of another shape, which is no multiple of anything: the map is that of the picture as it will be painted.
    let size = Size::new(70, 52);
    let asked = Plan { size: Some(size), ..plan(car()) };
    let map = estimator.estimate(&imaging::fit_cover(&car(), size)).unwrap();
    let result = painted(&mut *engine, &asked);
    assert_eq!(result.size(), size);
    assert_eq!(result, painted(&mut *engine, &Plan { control_image: Some(map), ..asked.clone() }));
    assert_ne!(result, painted(&mut *engine, &Plan { mode: Mode::Canny, ..asked.clone() }), "edges are no depth");

    let below_1 = Plan { strength: Some(0.5), ..asked };
    assert_ne!(painted(&mut *engine, &below_1), result, "below strength 1 the run starts from the reference");
}

#[test]
fn flux_depth_without_an_estimator_names_one() {
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines::new(
        shelf(folder.path(), &[("flux-control-tiny", "flux-depth")]),
        registry::built_in(),
        Residency::unlimited(Precision::F32),
    );
    let model = ModelId::parse("flux-depth").unwrap();
    assert_eq!(engines.model_for(std::slice::from_ref(&model)), None);
    let error = engines.load(&model).err().expect("refused").to_string();
    assert!(error.contains("no weights for depth-anything-v2-large are installed"), "{error}");
}

#[test]
fn an_estimator_that_does_not_fit_fails_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let weights = [("flux-control-tiny", "flux-depth"), ("depth-anything-tiny", "depth-anything-v2-base")];
    let shelf = shelf(folder.path(), &weights);
    let config = folder.path().join("depth-anything-v2-base/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"num_hidden_layers\": 6", "\"num_hidden_layers\": 5")).unwrap();
    let error = Engines::new(shelf, registry::built_in(), Residency::unlimited(Precision::F32))
        .load(&ModelId::parse("flux-depth").unwrap());
    let error = error.err().expect("refused").to_string();
    assert!(error.contains("model.safetensors do not fit: 18 unused: backbone.encoder.layer.5."), "{error}");
}
