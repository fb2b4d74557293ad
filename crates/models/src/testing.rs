//! Small models and layers that the reference has run, read from `parity/goldens`.

use candle_core::{Device, Tensor};
use nn::Weights;
use nn::files::ModelFiles;
use std::collections::HashMap;
use std::sync::Arc;

/// One case of a file: its weights, what it was given and what came out.
pub(crate) struct Fixture {
    pub(crate) weights: Weights,
    tensors: HashMap<String, Tensor>,
    case: String,
}

impl Fixture {
    pub(crate) fn open(file: &str, case: &str) -> Self {
        let path = format!("{}/../../parity/goldens/{file}", env!("CARGO_MANIFEST_DIR"));
        let bytes: &'static [u8] = std::fs::read(path).unwrap().leak();
        let files = ModelFiles::Embedded(Arc::from([("part/model.safetensors", bytes)]));
        let weights = Weights::open(&files, "part").unwrap().at(case);
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
        Self { weights, tensors, case: case.to_owned() }
    }

    pub(crate) fn tensor(&self, role: &str) -> &Tensor {
        &self.tensors[&format!("{}.{role}", self.case)]
    }

    /// The largest difference from what was recorded.
    pub(crate) fn off(&self, role: &str, ours: &Tensor) -> f32 {
        let difference = (ours - self.tensor(role)).unwrap().abs().unwrap();
        difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    }
}
