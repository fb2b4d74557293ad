//! Lets a model that was trained on small pictures paint a large one.
//!
//! The picture is painted at the model's own area and enlarged; the fine luminance detail of the reference, which the
//! small painting could not hold, is laid over it, the less the more `strength` lets the result leave the reference.

use crate::control::Control;
use crate::run::placed;
use crate::settings::Settings;
use domain::quantity::Size;
use engine::{Fit, Plan};
use imaging::Picture;
use nn::{Error, Result};

/// Where a picture is painted, and how it becomes the result.
pub(crate) struct Canvas {
    /// The reference in the size of the result.
    placed: Option<Picture>,
    /// What the model paints, before padding.
    size: Size,
    /// Pixels that both sides of what the model paints must be a multiple of.
    multiple: u32,
    frame: Frame,
}

/// What was asked for, defaults filled in.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// Of the result.
    pub(crate) size: Size,
    /// How far the result leaves the reference; 1 where the run does not start from it.
    pub(crate) strength: f64,
}

impl Canvas {
    pub(crate) fn new(plan: &Plan, frame: Frame, settings: &Settings, multiple: u32) -> Self {
        let placed = plan.source.as_ref().map(|source| placed(source, frame.size, plan.fit));
        let size = settings.native_pixels.map_or(frame.size, |side| native_size(frame.size, side, multiple));
        Self { placed, size, multiple, frame }
    }

    /// What the model paints, padding included.
    pub(crate) fn padded_size(&self) -> Size {
        Size::new(self.size.width.next_multiple_of(self.multiple), self.size.height.next_multiple_of(self.multiple))
    }

    /// The reference as the model sees it.
    pub(crate) fn source(&self) -> Option<Picture> {
        self.reference().map(|reference| self.padded(&reference))
    }

    /// The picture that the model paints under. It is made of the reference in the size that is painted, so that an edge
    /// is as wide there as it was in training.
    pub(crate) fn control(&self, control: Control<'_>, fit: Fit) -> Result<Picture> {
        match control {
            Control::Given(picture) => {
                Ok(self.padded(&imaging::resize(&placed(picture, self.frame.size, fit), self.size)))
            }
            Control::Made(preprocessor) => {
                let reference = self.reference();
                let reference = reference.ok_or_else(|| Error::Shape("a control picture of nothing".to_owned()))?;
                Ok(self.padded(&preprocessor.control(&reference)?))
            }
        }
    }

    /// The reference in the size that is painted, without padding.
    fn reference(&self) -> Option<Picture> {
        self.placed.as_ref().map(|placed| imaging::resize(placed, self.size))
    }

    fn padded(&self, picture: &Picture) -> Picture {
        imaging::pad_to_multiple(picture, self.multiple)
    }

    /// The results from what was painted.
    pub(crate) fn finish(&self, painted: &[Picture]) -> Vec<Picture> {
        let Frame { size, strength } = self.frame;
        let cropped = painted.iter().map(|picture| imaging::crop(picture, self.size));
        if self.size == size {
            return cropped.collect();
        }
        let enlarged = cropped.map(|picture| imaging::resize(&picture, size));
        match &self.placed {
            None => enlarged.collect(),
            Some(reference) => {
                let blurred = imaging::resize(&imaging::resize(reference, self.size), size);
                let weight = 1.0 - strength as f32;
                enlarged.map(|picture| lay_detail(&picture, reference, &blurred, weight)).collect()
            }
        }
    }
}

/// The size with the same aspect ratio and about the area of a square of `side`; never larger than asked for.
fn native_size(size: Size, side: u32, multiple: u32) -> Size {
    let shrink = f64::from(side) / (size.pixels() as f64).sqrt();
    if shrink >= 1.0 {
        return size;
    }
    let nearest = |n: u32| {
        let multiples = (f64::from(n) * shrink / f64::from(multiple)).round().max(1.0);
        multiples as u32 * multiple
    };
    Size::new(nearest(size.width), nearest(size.height))
}

/// Adds the luminance that `reference` has and `blurred` has not, times `weight`.
fn lay_detail(painted: &Picture, reference: &Picture, blurred: &Picture, weight: f32) -> Picture {
    let luminance = |rgb: &[u8; 3]| 0.299 * f32::from(rgb[0]) + 0.587 * f32::from(rgb[1]) + 0.114 * f32::from(rgb[2]);
    let triples = |picture: &Picture| picture.pixels().as_chunks::<3>().0.to_vec();
    let details = triples(reference).into_iter().zip(triples(blurred));
    let pixels = triples(painted).into_iter().zip(details).flat_map(|(rgb, (reference, blurred))| {
        let detail = weight * (luminance(&reference) - luminance(&blurred));
        rgb.map(|level| (f32::from(level) + detail).round().clamp(0.0, 255.0) as u8)
    });
    Picture::new(painted.size(), pixels.collect()).expect("as many pixels as before, this is a bug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_size_keeps_the_aspect_ratio_and_whole_tokens() {
        assert_eq!(native_size(Size::new(1024, 512), 256, 16), Size::new(368, 176));
        assert_eq!(native_size(Size::new(200, 100), 256, 16), Size::new(200, 100));
        assert_eq!(native_size(Size::new(4000, 10), 128, 16), Size::new(2560, 16));
    }

    #[test]
    fn detail_of_weight_zero_changes_nothing() {
        let (grey, white) = (Picture::filled(Size::new(2, 1), [9; 3]), Picture::filled(Size::new(2, 1), [255; 3]));
        assert_eq!(lay_detail(&grey, &white, &grey, 0.0), grey);
        assert_eq!(lay_detail(&grey, &white, &grey, 1.0), white);
    }
}
