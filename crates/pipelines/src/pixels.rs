//! Pictures to tensors and back.

use candle_core::Tensor;
use domain::quantity::Size;
use imaging::Picture;
use nn::values::{self, to_vec};
use nn::{Error, Result};

/// # Shapes
/// - output: `(1, 3, h, w)`, -1 to 1
pub(crate) fn to_tensor(picture: &Picture) -> Result<Tensor> {
    let Size { width, height } = picture.size();
    let n_pixels = picture.size().pixels() as usize;
    let mut planes = vec![0.0; 3 * n_pixels];
    for (idx, pixel) in picture.pixels().as_chunks::<3>().0.iter().enumerate() {
        for (channel, level) in pixel.iter().enumerate() {
            planes[channel * n_pixels + idx] = 2.0 * (f32::from(*level) / 255.0) - 1.0;
        }
    }
    values::tensor(planes, (1, 3, height as usize, width as usize))
}

/// Clips, and rounds halves to even, as the reference does. What is no number is an error, not black.
///
/// # Shapes
/// - image: `(1, 3, h, w)`, about -1 to 1
pub(crate) fn to_picture(image: &Tensor) -> Result<Picture> {
    let (_, _, height, width) = image.dims4()?;
    let planes = to_vec(image)?;
    if !planes.iter().all(|x| x.is_finite()) {
        return Err(Error::NotFinite);
    }
    let n_pixels = height * width;
    let level = |x: f32| (255.0 * (0.5 * x + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8;
    let pixels = (0..n_pixels).flat_map(|idx| [0, 1, 2].map(|channel| level(planes[channel * n_pixels + idx])));
    let size = Size::new(width as u32, height as u32);
    Picture::new(size, pixels.collect()).ok_or_else(|| Error::Shape(format!("a picture of {size}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_no_picture() {
        for bad in [f32::NAN, f32::INFINITY] {
            let image = values::tensor(vec![0.0, bad, 0.0], (1, 3, 1, 1)).unwrap();
            assert!(matches!(to_picture(&image), Err(Error::NotFinite)), "{bad}");
        }
    }

    #[test]
    fn every_level_survives_the_way_there_and_back() {
        let levels: Vec<u8> = (0..=255).flat_map(|level| [level, 255 - level, level / 2]).collect();
        let picture = Picture::new(Size::new(32, 8), levels).unwrap();
        assert_eq!(to_picture(&to_tensor(&picture).unwrap()).unwrap(), picture);
    }
}
