//! Recorded runs, read from the files.

use crate::formats::copy;
use candle_core::{DType, Device, Tensor};
use domain::id::ModelId;
use engine::Output;
use hub::installed::Shelf;
use hub::registry;
use imaging::Picture;
use nn::files::ModelFiles;
use pipelines::flux::FluxEngine;
use pipelines::sdxl::SdxlEngine;
use pipelines::trace::Trace;
use pipelines::{Parts, Precision, Residency};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens"))
}

/// A folder of weights with the tiny models under the names of the real ones.
pub(crate) fn shelf(folder: &Path, names: &[(&str, &str)]) -> Shelf {
    for (tiny, name) in names {
        copy(&goldens().join("models").join(tiny), &folder.join(name));
    }
    Shelf::open(folder, &registry::built_in()).unwrap()
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

    pub(crate) fn sdxl(&self) -> SdxlEngine {
        let model = self.about["model"].as_str().unwrap();
        let files = ModelFiles::Folder(goldens().join("models").join(model));
        SdxlEngine::load(ModelId::parse(model).unwrap(), &files, &Residency::unlimited(Precision::F32)).unwrap()
    }

    pub(crate) fn engine(&self) -> FluxEngine {
        let model = self.about["model"].as_str().unwrap();
        let folder = |model: &str| ModelFiles::Folder(goldens().join("models").join(model));
        let parts = if self.is_redux() {
            Parts { own: folder("flux-redux-tiny"), base: Some(folder(model)), companion: None }
        } else {
            Parts { own: folder(model), base: None, companion: None }
        };
        FluxEngine::load(ModelId::parse(model).unwrap(), &parts, &Residency::unlimited(Precision::F32)).unwrap()
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

/// How far a tensor may be off; `parity/README.md` says why.
fn tolerance(case: &Case, name: &str) -> f64 {
    let fixed = match name {
        // SDXL's noise levels take a square root, in which processors differ by the last bit.
        "scheduler.sigmas" if case.name.starts_with("sdxl_") => return 2e-6,
        // What an error of the latents becomes when they are divided by the autoencoder's factor.
        "vae_decode.input" if case.name.starts_with("sdxl_") => {
            let last = case.tensors.keys().filter(|name| name.starts_with("latents_after_step_")).count() - 1;
            return tolerance(case, &format!("latents_after_step_{last}")) / 0.13025;
        }
        name if name.starts_with("rng_draw") || name.starts_with("scheduler") => return 0.0,
        name if name.ends_with("_ids") || name.ends_with(".timestep") || name.ends_with(".guidance") => return 0.0,
        // On the autoencoder's scale a latent's error is larger by 1 / 0.3611.
        name if name.starts_with("vae_encode") || name == "vae_decode.input" => 3e-4,
        _ => 1e-4,
    };
    // The frequencies of a large guidance differ from one processor to the next, and some cases are of another one.
    let is_guided_hard = case.argument("guidance_scale").as_f64().is_some_and(|scale| scale >= 30.0);
    let fixed = if is_guided_hard { 2.0 * fixed } else { fixed };
    // Where the reference itself is less exact than that, its own distance from double precision is the measure.
    let reference_floor = case.about["f32_noise_floor"][name].as_f64().unwrap_or(0.0);
    f64::max(fixed, 3.0 * reference_floor)
}

/// Compares what it sees with what was recorded.
pub(crate) struct Comparison<'a> {
    case: &'a Case,
    compared: BTreeSet<String>,
    worst: Vec<String>,
}

impl Trace for Comparison<'_> {
    fn see(&mut self, name: &str, ours: &Tensor) {
        let Some(theirs) = self.case.tensors.get(name) else { return };
        self.compared.insert(name.to_owned());
        // Texts, times, scalars and control pictures are recorded once per picture of the batch; they are the same for each.
        let (n_ours, n_theirs) = (ours.elem_count(), theirs.elem_count());
        let repeated =
            ["model_call", "encode_prompt", "vae_encode", "blocks.time"].iter().any(|stage| name.starts_with(stage));
        let theirs = if repeated && n_theirs > n_ours {
            theirs.flatten_all().unwrap().narrow(0, 0, n_ours).unwrap()
        } else {
            theirs.clone()
        };
        let difference = largest_difference(ours, &theirs);
        let tolerance = tolerance(self.case, name);
        if difference.is_nan() || difference > tolerance {
            self.worst.push(format!("{name}: {difference:e} over {tolerance:e}"));
        }
    }
}

impl<'a> Comparison<'a> {
    pub(crate) fn of(case: &'a Case) -> Self {
        Self { case, compared: BTreeSet::new(), worst: Vec::new() }
    }

    /// Fails unless everything agreed, everything recorded was seen, and the picture is the same.
    #[track_caller]
    pub(crate) fn finish(self, output: &Output) {
        let case = self.case;
        assert!(self.worst.is_empty(), "{} diverges, first at {:#?}", case.name, self.worst);

        let unseen: Vec<&String> = case.tensors.keys().filter(|key| !self.compared.contains(*key)).collect();
        let elsewhere = ["image_float_hwc", "scheduler.begin_index"];
        assert!(unseen.iter().all(|key| elsewhere.contains(&key.as_str())), "{}: not compared: {unseen:?}", case.name);

        let levels = output.images[0].pixels().iter().zip(case.image.pixels());
        let off = levels.map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap();
        assert_eq!(output.images[0].size(), case.image.size());
        assert!(off <= 1, "{}: a level is off by {off}", case.name);
    }
}

/// One test per recorded run, by the `check` that is in scope: a new recording without a test is a mistake.
macro_rules! recorded_runs {
    ($prefix:literal, without [$($left_out:literal),*]: $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_recorded_run_has_its_test() {
            let known = [$(stringify!($name),)* $($left_out),*];
            for entry in std::fs::read_dir(goldens().join("cases")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with($prefix) || known.contains(&name.as_str()), "{name}");
            }
        }
    };
}
pub(crate) use recorded_runs;
