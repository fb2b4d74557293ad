//! Recorded runs, read from the files.

use candle_core::{DType, Device, Tensor};
use domain::id::ModelId;
use imaging::Picture;
use nn::files::ModelFiles;
use pipelines::Parts;
use pipelines::flux::FluxEngine;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;

pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens"))
}

/// One recorded run.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) about: Value,
    pub(crate) tensors: HashMap<String, Tensor>,
    /// The first picture, 8-bit.
    pub(crate) image: Picture,
}

impl Case {
    pub(crate) fn open(name: &str) -> Self {
        let folder = goldens().join("cases").join(name);
        let about = serde_json::from_str(&std::fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
        let tensors = candle_core::safetensors::load(folder.join("tensors.safetensors"), &Device::Cpu).unwrap();
        let image = imaging::decode(&std::fs::read(folder.join("image.png")).unwrap()).unwrap();
        Self { name: name.to_owned(), about, tensors, image }
    }

    pub(crate) fn engine(&self) -> FluxEngine {
        let model = self.about["model"].as_str().unwrap();
        let folder = |model: &str| ModelFiles::Folder(goldens().join("models").join(model));
        let parts = if self.is_redux() {
            Parts { own: folder("flux-redux-tiny"), base: Some(folder(model)), companion: None }
        } else {
            Parts { own: folder(model), base: None, companion: None }
        };
        FluxEngine::load(ModelId::parse(model).unwrap(), &parts).unwrap()
    }

    /// A prior has turned the picture into tokens.
    pub(crate) fn is_redux(&self) -> bool {
        self.tensors.contains_key("redux.pixel_values")
    }

    /// An argument of the recorded call.
    pub(crate) fn argument(&self, name: &str) -> &Value {
        &self.about["kwargs"][name]
    }

    pub(crate) fn source(&self) -> Option<Picture> {
        self.picture("image")
    }

    /// The picture that an argument names.
    pub(crate) fn picture(&self, argument: &str) -> Option<Picture> {
        let name = self.argument(argument).as_str()?;
        let bytes = std::fs::read(goldens().join("inputs").join(format!("{name}.png"))).unwrap();
        Some(imaging::decode(&bytes).unwrap())
    }
}

/// The largest difference of two tensors' elements; the shapes must agree but for leading ones.
pub(crate) fn largest_difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    let (ours, theirs) = (flat(ours), flat(theirs));
    assert_eq!(ours.len(), theirs.len(), "lengths differ");
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, |max, x| if x.is_nan() || x > max { x } else { max })
}
