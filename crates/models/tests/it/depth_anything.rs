//! Depth Anything at tiny size: every stage of forward passes over pictures of several sizes and shapes.

use candle_core::{Device, Tensor};
use models::config;
use models::depth_anything::DepthAnything;
use models::probe::{Blind, Probe};
use nn::Weights;
use nn::files::ModelFiles;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

/// Largest difference that is still agreement; what is recorded reaches ±13.
const TOLERANCE: f32 = 1e-4;

fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens"))
}

fn model(name: &str) -> DepthAnything {
    let files = ModelFiles::Folder(goldens().join("models"));
    let config = config::read(&files, name, "config.json").unwrap();
    let weights = Weights::open(&files, name).unwrap();
    let model = DepthAnything::new(&config, &weights).unwrap();
    weights.finish().unwrap();
    model
}

/// Notes what differs from the recorded tensors of one pass.
struct Comparison<'a> {
    recorded: &'a BTreeMap<&'a str, &'a Tensor>,
    compared: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Probe for Comparison<'_> {
    fn see(&mut self, name: &str, tensor: &Tensor) {
        let theirs = self.recorded.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
        assert_eq!(tensor.dims(), theirs.dims(), "{name}");
        let difference = (tensor - *theirs).unwrap().abs().unwrap().flatten_all().unwrap();
        let worst = difference.to_vec1::<f32>().unwrap().into_iter().fold(0.0, |max, x| if x <= max { max } else { x });
        if worst.is_nan() || worst > TOLERANCE {
            self.wrong.push(format!("{name} is off by {worst:e}"));
        }
        self.compared.insert(name.to_owned());
    }
}

/// Every pass that is recorded of a model.
fn check(name: &str, n_passes: usize) {
    let model = model(name);
    let path = goldens().join("depth").join(format!("{name}.safetensors"));
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let mut passes: BTreeMap<&str, BTreeMap<&str, &Tensor>> = BTreeMap::new();
    for (key, tensor) in &tensors {
        let (size, stage) = key.split_once('.').unwrap();
        passes.entry(size).or_default().insert(stage, tensor);
    }
    assert_eq!(passes.len(), n_passes);
    for (size, recorded) in passes {
        let mut comparison = Comparison { recorded: &recorded, compared: BTreeSet::new(), wrong: Vec::new() };
        model.forward(recorded["pixel_values"], &mut comparison).unwrap();
        assert!(comparison.wrong.is_empty(), "{name}, {size} diverges: {:#?}", comparison.wrong);
        let unseen = recorded.keys().filter(|stage| !comparison.compared.contains(**stage));
        assert_eq!(unseen.collect::<Vec<_>>(), [&"pixel_values"], "{name}, {size}: not compared");
    }
}

#[test]
fn every_stage_agrees_at_every_size() {
    check("depth-anything-tiny", 5);
}

#[test]
fn the_metric_form_with_a_gated_feed_forward_agrees() {
    check("depth-anything-metric-tiny", 2);
}

#[test]
fn a_picture_of_half_patches_is_refused() {
    let model = model("depth-anything-tiny");
    for (height, width) in [(70, 71), (13, 14), (14, 0)] {
        let image = Tensor::zeros((1, 3, height, width), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = model.forward(&image, &mut Blind).unwrap_err().to_string();
        assert_eq!(error, format!("patches of 14 pixels do not fill {width}x{height}"));
    }
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let files = ModelFiles::Folder(goldens().join("models"));
    let config: models::depth_anything::Config = config::read(&files, "depth-anything-tiny", "config.json").unwrap();
    let weights = Weights::open(&files, "depth-anything-tiny").unwrap();
    let refused = |change: &dyn Fn(&mut models::depth_anything::Config)| {
        let mut config = config.clone();
        change(&mut config);
        DepthAnything::new(&config, &weights).err().expect("refused").to_string()
    };
    assert_eq!(refused(&|config| config.reassemble_factors = vec![2.0]), "4 stages, 1 factors and 4 maps in a neck");
    assert_eq!(
        refused(&|config| config.reassemble_factors[0] = 2.5),
        "a map 2.5 times as large as the grid of patches"
    );
    assert_eq!(refused(&|config| config.reassemble_hidden_size = 7), "maps of 7 channels from tokens of 48");
    assert_eq!(refused(&|config| config.head_in_index = 4), "a head on map 4 of 4");
    assert_eq!(
        refused(&|config| config.backbone_config.num_attention_heads = 5),
        "48 hidden elements do not make 5 heads"
    );
}
