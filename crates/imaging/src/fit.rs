//! A picture into another frame: fill it, stay within it, pad to a model's multiple, cut back.

use crate::picture::Picture;
use crate::resize::{Filter, Region, resize, resize_region};
use domain::quantity::Size;
use std::cmp::Ordering;

/// Fills the size, keeping the aspect ratio; what hangs over is cut off on both sides alike. Equals Pillow's
/// `ImageOps.fit(LANCZOS)`.
pub fn fit_cover(picture: &Picture, size: Size) -> Picture {
    let size = Size::new(size.width.max(1), size.height.max(1));
    let (width, height) = (f64::from(picture.size().width), f64::from(picture.size().height));
    let ratio = f64::from(size.width) / f64::from(size.height);
    // The part is cut out while resizing, so that a picture of extreme shape never becomes a huge one on the way.
    let (part_width, part_height) = match (width / height).total_cmp(&ratio) {
        Ordering::Equal => (width, height),
        Ordering::Greater => (ratio * height, height),
        Ordering::Less => (width, width / ratio),
    };
    let (left, top) = ((width - part_width) * 0.5, (height - part_height) * 0.5);
    let region = Region { x: left as f32..(left + part_width) as f32, y: top as f32..(top + part_height) as f32 };
    resize_region(picture, &region, size, Filter::Lanczos)
}

/// Shrinks until no side is over `side_max`; never enlarges.
pub fn fit_within(picture: &Picture, side_max: u32) -> Picture {
    resize(picture, picture.size().fit_within(side_max))
}

/// A small copy to show in a list.
pub fn thumbnail(picture: &Picture, side_max: u32) -> Picture {
    fit_within(picture, side_max)
}

/// Grows the right and the bottom until both sides are multiples of `multiple`, by mirroring what is there.
///
/// Mirrored, textures and gradients go on over the old edge; repeated edge pixels would be streaks, which a model takes
/// for something to paint. [`crop`] takes the padding off again.
pub fn pad_to_multiple(picture: &Picture, multiple: u32) -> Picture {
    let source = picture.size();
    let multiple = multiple.max(1);
    let size = Size::new(source.width.next_multiple_of(multiple), source.height.next_multiple_of(multiple));
    if size == source {
        return picture.clone();
    }
    let stride = 3 * source.width as usize;
    let mut pixels = Vec::with_capacity(3 * size.pixels() as usize);
    for y in 0..size.height {
        let start = mirrored(y, source.height) as usize * stride;
        let row = &picture.pixels()[start..start + stride];
        pixels.extend_from_slice(row);
        for x in source.width..size.width {
            let start = 3 * mirrored(x, source.width) as usize;
            pixels.extend_from_slice(&row[start..start + 3]);
        }
    }
    Picture::new(size, pixels).expect("every row is filled, this is a bug")
}

/// The top left part; a side over the picture's own is the picture's own.
pub fn crop(picture: &Picture, size: Size) -> Picture {
    let source = picture.size();
    let size = Size::new(size.width.clamp(1, source.width), size.height.clamp(1, source.height));
    let (stride, kept) = (3 * source.width as usize, 3 * size.width as usize);
    let rows = picture.pixels().chunks_exact(stride).take(size.height as usize);
    let pixels = rows.flat_map(|row| &row[..kept]).copied().collect();
    Picture::new(size, pixels).expect("every row is cut alike, this is a bug")
}

/// Where a mirror at each edge, edge pixel included, shows the position: 0 1 2 2 1 0 0 1 2.
fn mirrored(position: u32, n_pixels: u32) -> u32 {
    let folded = position % (2 * n_pixels);
    folded.min(2 * n_pixels - 1 - folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pixel says where it is.
    fn map(size: Size) -> Picture {
        let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| [x as u8, y as u8, 0]));
        Picture::new(size, pixels.collect()).unwrap()
    }

    fn at(picture: &Picture, x: u32, y: u32) -> [u8; 2] {
        let start = 3 * (y * picture.size().width + x) as usize;
        [picture.pixels()[start], picture.pixels()[start + 1]]
    }

    #[test]
    fn padding_mirrors_and_cropping_undoes_it() {
        let picture = map(Size::new(13, 5));
        let padded = pad_to_multiple(&picture, 8);
        assert_eq!(padded.size(), Size::new(16, 8));
        assert_eq!(at(&padded, 13, 0), [12, 0]);
        assert_eq!(at(&padded, 15, 7), [10, 2]);
        assert_eq!(crop(&padded, Size::new(13, 5)), picture);
        assert_eq!(pad_to_multiple(&padded, 8), padded);
    }

    #[test]
    fn padding_wider_than_the_picture_mirrors_again_and_again() {
        let dot = Picture::filled(Size::new(1, 1), [1, 2, 3]);
        assert_eq!(pad_to_multiple(&dot, 16), Picture::filled(Size::new(16, 16), [1, 2, 3]));
        let padded = pad_to_multiple(&map(Size::new(3, 1)), 8);
        let columns: Vec<u8> = (0..8).map(|x| at(&padded, x, 0)[0]).collect();
        assert_eq!(columns, [0, 1, 2, 2, 1, 0, 0, 1]);
    }

    #[test]
    fn cropping_never_grows() {
        let picture = map(Size::new(4, 3));
        assert_eq!(crop(&picture, Size::new(9, 2)).size(), Size::new(4, 2));
        assert_eq!(crop(&picture, Size::new(0, 0)).size(), Size::new(1, 1));
    }

    #[test]
    fn covering_cuts_both_sides_alike() {
        let picture = map(Size::new(30, 10));
        let square = fit_cover(&picture, Size::new(10, 10));
        assert_eq!(at(&square, 0, 0), [10, 0]);
        assert_eq!(at(&square, 9, 9), [19, 9]);
    }

    #[test]
    fn a_picture_of_extreme_shape_covers_without_becoming_huge() {
        let thread = Picture::filled(Size::new(1_000_000, 1), [5, 6, 7]);
        assert_eq!(fit_cover(&thread, Size::new(1536, 1536)), Picture::filled(Size::new(1536, 1536), [5, 6, 7]));
    }

    #[test]
    fn a_thumbnail_fits_and_never_grows() {
        assert_eq!(thumbnail(&map(Size::new(200, 100)), 50).size(), Size::new(50, 25));
        assert_eq!(thumbnail(&map(Size::new(20, 10)), 50), map(Size::new(20, 10)));
    }
}
