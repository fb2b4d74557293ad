//! What a vision model is shown: `preprocessor_config.json`, as transformers' image processors on Pillow apply it.

use candle_core::Tensor;
use domain::quantity::Size;
use imaging::{Filter, Picture};
use nn::files::ModelFiles;
use nn::{Error, Result, values};
use serde::Deserialize;

const FILE: &str = "preprocessor_config.json";

/// How levels become numbers: `(level * factor - mean) / deviation`, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) factor: f64,
    pub(crate) mean: [f32; 3],
    pub(crate) deviation: [f32; 3],
}

/// A picture stretched to the model's size, then scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FeatureExtractor {
    size: Size,
    filter: Filter,
    scale: Scale,
}

#[derive(Deserialize)]
struct Written {
    size: WrittenSize,
    #[serde(default = "bicubic")]
    resample: u32,
    #[serde(default = "per_level")]
    rescale_factor: f64,
    #[serde(default = "halves")]
    image_mean: [f32; 3],
    #[serde(default = "halves")]
    image_std: [f32; 3],
}

#[derive(Deserialize)]
struct WrittenSize {
    height: u32,
    width: u32,
}

/// Pillow's number of the filter.
const LANCZOS: u32 = 1;
const BICUBIC: u32 = 3;

fn bicubic() -> u32 {
    BICUBIC
}

fn per_level() -> f64 {
    1.0 / 255.0
}

fn halves() -> [f32; 3] {
    [0.5; 3]
}

impl Scale {
    /// Rounded where the reference rounds: after the factor, which it applies in double precision.
    ///
    /// # Shapes
    /// - output: `(1, 3, h, w)`
    pub(crate) fn apply(&self, picture: &Picture) -> Result<Tensor> {
        let Size { width, height } = picture.size();
        let n_pixels = picture.size().pixels() as usize;
        let mut planes = vec![0.0; 3 * n_pixels];
        for (idx, pixel) in picture.pixels().as_chunks::<3>().0.iter().enumerate() {
            for (channel, level) in pixel.iter().enumerate() {
                let scaled = (f64::from(*level) * self.factor) as f32;
                planes[channel * n_pixels + idx] = (scaled - self.mean[channel]) / self.deviation[channel];
            }
        }
        values::tensor(planes, (1, 3, height as usize, width as usize))
    }
}

impl FeatureExtractor {
    /// Reads the file of a component; what it leaves out is as in SigLIP's processor.
    pub(crate) fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let written: Written = models::config::read(files, component, FILE)?;
        let malformed =
            |reason: String| Err(Error::Malformed { path: files.display(&format!("{component}/{FILE}")), reason });
        let filter = match written.resample {
            LANCZOS => Filter::Lanczos,
            BICUBIC => Filter::Bicubic,
            other => {
                return malformed(format!("resample: got {other}; known: {LANCZOS} (Lanczos), {BICUBIC} (bicubic)"));
            }
        };
        if written.image_std.contains(&0.0) {
            return malformed("image_std: got 0".to_owned());
        }
        let size = Size::new(written.size.width, written.size.height);
        let scale = Scale { factor: written.rescale_factor, mean: written.image_mean, deviation: written.image_std };
        Ok(Self { size, filter, scale })
    }

    /// Of what the model is shown.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// # Shapes
    /// - output: `(1, 3, height, width)`
    pub(crate) fn extract(&self, picture: &Picture) -> Result<Tensor> {
        self.scale.apply(&imaging::resize_with(picture, self.size, self.filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn open(json: &'static str) -> Result<FeatureExtractor> {
        let files = ModelFiles::Embedded(Arc::from([("eyes/preprocessor_config.json", json.as_bytes())]));
        FeatureExtractor::open(&files, "eyes")
    }

    #[test]
    fn what_a_file_leaves_out_is_as_siglip_has_it() {
        let eyes = open(r#"{"size": {"height": 2, "width": 4}}"#).unwrap();
        assert_eq!((eyes.size(), eyes.filter), (Size::new(4, 2), Filter::Bicubic));
        let seen = eyes.extract(&Picture::filled(Size::new(3, 3), [0, 255, 51])).unwrap();
        assert_eq!(seen.dims(), [1, 3, 2, 4]);
        for (channel, expect) in [-1.0, 1.0, -0.6].into_iter().enumerate() {
            let of_channel = values::to_vec(&seen.narrow(1, channel, 1).unwrap()).unwrap();
            assert!(of_channel.iter().all(|x| (x - expect).abs() < 1e-6), "{channel}: {of_channel:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let check = |json: &'static str, expect: &str| {
            let error = open(json).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(
            r#"{"size": {"height": 2, "width": 2}, "resample": 2}"#,
            "resample: got 2; known: 1 (Lanczos), 3 (bicubic)",
        );
        check(r#"{"size": {"height": 2, "width": 2}, "image_std": [1, 0, 1]}"#, "image_std: got 0");
        check(r#"{"size": {"shortest_edge": 2}}"#, "height");
    }
}
