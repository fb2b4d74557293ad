//! Depth maps of pictures, by Depth Anything: what FLUX.1 Depth paints under.
//!
//! The map is the one that transformers' depth estimation pipeline draws: the model's depth at the picture's size,
//! stretched so that the farthest pixel is black and the nearest is white. The demonstration code of FLUX.1's owner
//! leaves out the stretching; but what it estimates with is another version, whose numbers are of another size.

use crate::cache::Fingerprint;
use crate::control::Preprocessor;
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::vision::FeatureExtractor;
use candle_core::Tensor;
use domain::quantity::Size;
use imaging::Picture;
use models::config;
use models::depth_anything::{Config, DepthAnything};
use models::probe::Blind;
use nn::conv::Extent;
use nn::files::ModelFiles;
use nn::interpolate::{Interpolation, interpolate};
use nn::values::to_vec;
use nn::{Error, Result};
use std::sync::Arc;

/// Where the model's files lie: in the folder itself, as on the hub.
const ROOT: &str = ".";

/// One loaded estimator.
pub struct DepthEstimator {
    feature_extractor: FeatureExtractor,
    model: Resident<DepthAnything>,
    /// How errors name the weights, whose component has no name of its own.
    weights_file: String,
}

impl DepthEstimator {
    /// Loads a folder of `config.json`, `preprocessor_config.json` and `model.safetensors`; an error lists every tensor
    /// that does not fit.
    pub fn load(files: &ModelFiles, residency: &Arc<Residency>) -> Result<Self> {
        let config: Config = config::read(files, ROOT, "config.json")?;
        let feature_extractor = FeatureExtractor::open(files, ROOT)?;
        if !(feature_extractor.multiple() as usize).is_multiple_of(config.patch_size.max(1)) {
            let (multiple, patch) = (feature_extractor.multiple(), config.patch_size);
            let reason = format!("ensure_multiple_of: got {multiple}; the model's patches are {patch} pixels wide");
            return Err(Error::Malformed { path: files.display("preprocessor_config.json"), reason });
        }
        let model =
            residency.component(files, ROOT, Role::Encoder, move |weights| DepthAnything::new(&config, weights))?;
        Ok(Self { feature_extractor, model, weights_file: files.display("model.safetensors") })
    }

    /// The depth map of a picture, in the picture's size: gray, the nearer the brighter.
    pub fn estimate(&self, picture: &Picture) -> Result<Picture> {
        // What the model is shown is decided by the extractor, too, which is no part of the model's identity.
        let inputs = |print: Fingerprint| print.text(&format!("{:?}", self.feature_extractor)).picture(picture);
        let map = self.model.kept("depth map", inputs, |model| drawn(&self.depth(model, picture)?));
        map.map_err(|error| named(error, &self.weights_file))
    }

    fn model(&self) -> Result<Arc<DepthAnything>> {
        self.model.get().map_err(|error| named(error, &self.weights_file))
    }

    /// # Shapes
    /// - output: `(1, 1, h, w)` of the picture
    fn depth(&self, model: &DepthAnything, picture: &Picture) -> Result<Tensor> {
        let depth = model.forward(&self.feature_extractor.extract(picture)?, &mut Blind)?;
        let Size { width, height } = picture.size();
        let to = Extent { height: height as usize, width: width as usize };
        interpolate(&depth.unsqueeze(1)?, to, Interpolation::Bicubic)
    }
}

impl Component for DepthEstimator {
    fn bytes(&self) -> u64 {
        self.model.bytes()
    }

    fn warm_up(&self) -> Result<()> {
        self.model().map(|_| ())
    }
}

impl Preprocessor for DepthEstimator {
    fn component(&self) -> Option<&dyn Component> {
        Some(self)
    }

    fn control(&self, reference: &Picture) -> Result<Picture> {
        self.estimate(reference)
    }
}

/// The file in place of the folder's root, which has no name of its own.
fn named(error: Error, weights_file: &str) -> Error {
    match error {
        Error::DoNotFit { missing, unused, mismatched, .. } => {
            Error::DoNotFit { component: weights_file.to_owned(), missing, unused, mismatched }
        }
        other => other,
    }
}

/// Depth from the smallest to the largest as levels, rounded down as the reference does; one depth alone is black.
///
/// # Shapes
/// - depth: `(1, 1, h, w)`
fn drawn(depth: &Tensor) -> Result<Picture> {
    let (_, _, height, width) = depth.dims4()?;
    let depths = to_vec(depth)?;
    let smallest = depths.iter().copied().fold(f32::INFINITY, f32::min);
    let range = depths.iter().copied().fold(f32::NEG_INFINITY, f32::max) - smallest;
    let level = |depth: f32| if range > 0.0 { ((depth - smallest) / range * 255.0) as u8 } else { 0 };
    let pixels = depths.into_iter().flat_map(|depth| [level(depth); 3]).collect();
    let size = Size::new(width as u32, height as u32);
    Picture::new(size, pixels).ok_or_else(|| Error::Shape(format!("a depth map of {size}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;
    use candle_core::Device;
    use nn::values;
    use std::path::{Path, PathBuf};

    fn goldens() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../parity/goldens")
    }

    fn files(name: &str) -> ModelFiles {
        ModelFiles::Folder(goldens().join("models").join(name))
    }

    fn picture(path: &str) -> Picture {
        imaging::decode(&std::fs::read(goldens().join(path)).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(name: &str, ours: &Tensor, theirs: &Tensor, tolerance: f32) {
        let difference = (ours.flatten_all().unwrap() - theirs.flatten_all().unwrap()).unwrap().abs().unwrap();
        let worst = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(worst <= tolerance, "{name} is off by {worst:e}");
    }

    #[test]
    fn pictures_become_the_maps_that_the_reference_draws() {
        let estimator =
            DepthEstimator::load(&files("depth-anything-tiny"), &Residency::unlimited(Precision::F32)).unwrap();
        let recorded = candle_core::safetensors::load(goldens().join("depth/maps.safetensors"), &Device::Cpu).unwrap();
        for size in ["64x64", "100x70", "150x101"] {
            let name = format!("in_{size}");
            let source = picture(&format!("inputs/{name}.png"));
            let seen = estimator.feature_extractor.extract(&source).unwrap();
            let recorded_seen = &recorded[&format!("{name}.pixel_values")];
            assert_eq!(seen.dims(), recorded_seen.dims(), "{name}");
            check(&name, &seen, recorded_seen, 5e-7);
            check(
                &name,
                &estimator.depth(&estimator.model().unwrap(), &source).unwrap(),
                &recorded[&format!("{name}.predicted_depth")],
                1e-4,
            );
            let (map, expected) = (estimator.estimate(&source).unwrap(), picture(&format!("inputs/depth_{size}.png")));
            assert_eq!(map.size(), source.size());
            let off = map.pixels().iter().zip(expected.pixels()).map(|(ours, theirs)| ours.abs_diff(*theirs));
            // Rounding down, a difference of rounding alone may cost a level.
            assert!(off.clone().max() <= Some(1), "{name}: a level is off by {:?}", off.max());
            let n_off: usize = off.map(usize::from).sum();
            assert!(n_off * 1000 < map.pixels().len(), "{name}: {n_off} levels are off");
        }
    }

    #[test]
    fn pictures_of_any_shape_have_a_map_of_theirs() {
        let estimator =
            DepthEstimator::load(&files("depth-anything-tiny"), &Residency::unlimited(Precision::F32)).unwrap();
        for size in [Size::new(1, 1), Size::new(1, 300), Size::new(400, 2), Size::new(97, 33)] {
            assert_eq!(estimator.estimate(&Picture::filled(size, [9, 80, 200])).unwrap().size(), size);
        }
    }

    #[test]
    fn the_nearest_is_white_and_the_farthest_black() {
        let depth = values::tensor(vec![4.0, 2.0, 3.0, 2.5], (1, 1, 2, 2)).unwrap();
        let levels = [[255; 3], [0; 3], [127; 3], [63; 3]].concat();
        assert_eq!(drawn(&depth).unwrap().pixels(), levels);
        let flat = values::tensor(vec![7.0; 4], (1, 1, 2, 2)).unwrap();
        assert_eq!(drawn(&flat).unwrap(), Picture::filled(Size::new(2, 2), [0; 3]));
    }

    #[test]
    fn a_folder_without_an_estimator_is_refused_by_file() {
        let error = DepthEstimator::load(&files("flux-dev-tiny"), &Residency::unlimited(Precision::F32))
            .err()
            .expect("refused")
            .to_string();
        assert!(error.ends_with("config.json: no such file"), "{error}");
    }
}
