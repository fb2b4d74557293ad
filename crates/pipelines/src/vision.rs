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

/// Pixels that a model is shown at most, eight times those of a square of 518: a sliver of a picture that keeps its
/// shape would otherwise be a huge one. No picture less than four times as long as wide comes near.
const SHOWN_PIXELS_MAX: u64 = 8 * 518 * 518;

/// A picture resized for the model, then scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FeatureExtractor {
    size: Size,
    shape: Shape,
    /// Pixels that both sides of what is shown are a multiple of.
    multiple: u32,
    filter: Filter,
    scale: Scale,
}

/// What becomes of the aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The picture is stretched.
    Stretched,
    /// One side becomes as long as the model wants it, the one that changes less; the other follows.
    Kept,
}

#[derive(Deserialize)]
struct Written {
    size: WrittenSize,
    #[serde(default)]
    keep_aspect_ratio: bool,
    #[serde(default = "one")]
    ensure_multiple_of: u32,
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

fn one() -> u32 {
    1
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
    /// Reads the file of a component; what it leaves out is as in SigLIP's processor, or in DPT's.
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
        if size.pixels() == 0 || size.pixels() > SHOWN_PIXELS_MAX || written.ensure_multiple_of == 0 {
            return malformed(format!("size, ensure_multiple_of: got {size}, {}", written.ensure_multiple_of));
        }
        let shape = if written.keep_aspect_ratio { Shape::Kept } else { Shape::Stretched };
        let scale = Scale { factor: written.rescale_factor, mean: written.image_mean, deviation: written.image_std };
        Ok(Self { size, shape, multiple: written.ensure_multiple_of, filter, scale })
    }

    /// Of what the model is shown, were it a square.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Pixels that both sides of what the model is shown are a multiple of.
    pub(crate) fn multiple(&self) -> u32 {
        self.multiple
    }

    /// # Shapes
    /// - output: `(1, 3, height, width)`
    pub(crate) fn extract(&self, picture: &Picture) -> Result<Tensor> {
        self.scale.apply(&imaging::resize_with(picture, self.size_for(picture.size()), self.filter))
    }

    /// What a picture of this size is resized to.
    fn size_for(&self, picture: Size) -> Size {
        let (mut across, mut down) = (
            f64::from(self.size.width) / f64::from(picture.width),
            f64::from(self.size.height) / f64::from(picture.height),
        );
        if self.shape == Shape::Kept {
            let lesser = if (1.0 - across).abs() < (1.0 - down).abs() { across } else { down };
            let scale = lesser.min((SHOWN_PIXELS_MAX as f64 / picture.pixels() as f64).sqrt());
            (across, down) = (scale, scale);
        }
        let side = |scale: f64, n: u32| {
            let multiples = (scale * f64::from(n) / f64::from(self.multiple)).round_ties_even().max(1.0);
            multiples as u32 * self.multiple
        };
        Size::new(side(across, picture.width), side(down, picture.height))
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
    fn a_shape_is_kept_in_whole_patches_as_dpt_does() {
        let eyes =
            open(r#"{"size": {"height": 518, "width": 518}, "keep_aspect_ratio": true, "ensure_multiple_of": 14}"#);
        let eyes = eyes.unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens/depth/sizes.json");
        let rows: Vec<[u32; 4]> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(rows.len() > 20);
        for [width, height, across, down] in rows {
            assert_eq!(eyes.size_for(Size::new(width, height)), Size::new(across, down), "{width}x{height}");
        }
        // Where the reference makes none or far too many pixels of a picture.
        assert_eq!(eyes.size_for(Size::new(10, 5000)), Size::new(14, 518));
        assert_eq!(eyes.size_for(Size::new(300, 50_000)), Size::new(112, 18_914));
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
        check(r#"{"size": {"height": 2, "width": 0}}"#, "size, ensure_multiple_of: got 0x2, 1");
        check(r#"{"size": {"height": 99999, "width": 99999}}"#, "size, ensure_multiple_of: got 99999x99999, 1");
        check(r#"{"size": {"height": 2, "width": 2}, "ensure_multiple_of": 0}"#, "got 2x2, 0");
        check(r#"{"size": {"shortest_edge": 2}}"#, "height");
    }
}
