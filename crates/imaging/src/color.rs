//! From whatever a file stores to opaque sRGB: color profile, ink, transparency.

use crate::raster::{Channels, Raster};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};
use std::sync::Arc;

/// A longer profile is ignored: real ones, press profiles included, have under 3 MiB.
const ICC_BYTES_MAX: usize = 4 << 20;

/// Three bytes a pixel. What is transparent shows white behind it.
///
/// A profile that is broken, or of another kind than the picture, is ignored, as every viewer does.
pub(crate) fn to_srgb(raster: Raster, icc: Option<&[u8]>) -> Vec<u8> {
    let n_pixels = raster.size.pixels() as usize;
    let managed = icc.and_then(|icc| transformed(&raster, icc));
    let (channels, samples) = managed.unwrap_or((raster.channels, raster.samples));
    match channels {
        Channels::Rgb => samples,
        Channels::Gray => samples.iter().flat_map(|&gray| [gray; 3]).collect(),
        Channels::GrayAlpha => pixels(&samples, n_pixels, |[gray, alpha]| [over_white(gray, alpha); 3]),
        Channels::Rgba => {
            pixels(&samples, n_pixels, |[r, g, b, alpha]| [r, g, b].map(|light| over_white(light, alpha)))
        }
        Channels::Cmyk => pixels(&samples, n_pixels, |[c, m, y, k]| [c, m, y].map(|ink| multiply(255 - ink, 255 - k))),
    }
}

type Transform = Arc<dyn TransformExecutor<u8> + Send + Sync>;

/// The samples in sRGB, with alpha if they had it. `None`: leave them as they are.
fn transformed(raster: &Raster, icc: &[u8]) -> Option<(Channels, Vec<u8>)> {
    if icc.len() > ICC_BYTES_MAX {
        return None;
    }
    let profile = ColorProfile::new_from_slice(icc).ok()?;
    let (space, from, channels, to) = match raster.channels {
        Channels::Gray => (DataColorSpace::Gray, Layout::Gray, Channels::Rgb, Layout::Rgb),
        Channels::GrayAlpha => (DataColorSpace::Gray, Layout::GrayAlpha, Channels::Rgba, Layout::Rgba),
        Channels::Rgb => (DataColorSpace::Rgb, Layout::Rgb, Channels::Rgb, Layout::Rgb),
        Channels::Rgba => (DataColorSpace::Rgb, Layout::Rgba, Channels::Rgba, Layout::Rgba),
        // moxcms reads ink in the layout of RGBA.
        Channels::Cmyk => (DataColorSpace::Cmyk, Layout::Rgba, Channels::Rgb, Layout::Rgb),
    };
    if profile.color_space != space {
        return None;
    }
    let srgb = ColorProfile::new_srgb();
    let transform = profile.create_transform_8bit(from, &srgb, to, TransformOptions::default()).ok()?;
    if space == DataColorSpace::Rgb && changes_nothing(&transform, raster.channels) {
        return None;
    }
    let mut samples = vec![0; raster.size.pixels() as usize * channels.count()];
    transform.transform(&raster.samples, &mut samples).ok()?;
    Some((channels, samples))
}

/// Whether a profile is sRGB but for rounding. Most are; their pictures must stay the same to the bit.
fn changes_nothing(transform: &Transform, channels: Channels) -> bool {
    let mut probes = Vec::new();
    for level in (0..=255u8).step_by(5) {
        for rgb in [[level; 3], [level, 0, 255], [255, level, 0], [0, 255, level], [level, 128, 255 - level]] {
            probes.extend_from_slice(&rgb);
            if channels == Channels::Rgba {
                probes.push(255);
            }
        }
    }
    let mut seen = vec![0; probes.len()];
    let done = transform.transform(&probes, &mut seen).is_ok();
    done && probes.iter().zip(&seen).all(|(probe, seen)| probe.abs_diff(*seen) <= 1)
}

fn pixels<const N: usize>(samples: &[u8], n_pixels: usize, rgb: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 * n_pixels);
    for pixel in samples.as_chunks::<N>().0 {
        out.extend_from_slice(&rgb(*pixel));
    }
    out
}

fn over_white(light: u8, alpha: u8) -> u8 {
    let (light, alpha) = (u32::from(light), u32::from(alpha));
    divide_by_255(light * alpha + 255 * (255 - alpha))
}

fn multiply(a: u8, b: u8) -> u8 {
    divide_by_255(u32::from(a) * u32::from(b))
}

/// Rounded.
fn divide_by_255(value: u32) -> u8 {
    ((value + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::quantity::Size;

    fn one_pixel(channels: Channels, samples: &[u8]) -> Vec<u8> {
        let raster = Raster { size: Size::new(1, 1), channels, samples: samples.to_vec() };
        to_srgb(raster, None)
    }

    #[test]
    fn transparency_shows_white() {
        assert_eq!(one_pixel(Channels::Rgba, &[10, 20, 30, 0]), [255; 3]);
        assert_eq!(one_pixel(Channels::Rgba, &[10, 20, 30, 255]), [10, 20, 30]);
        assert_eq!(one_pixel(Channels::Rgba, &[0, 255, 100, 128]), [127, 255, 177]);
        assert_eq!(one_pixel(Channels::GrayAlpha, &[0, 51]), [204; 3]);
    }

    #[test]
    fn ink_darkens_paper() {
        assert_eq!(one_pixel(Channels::Cmyk, &[0, 0, 0, 0]), [255; 3]);
        assert_eq!(one_pixel(Channels::Cmyk, &[0, 0, 0, 255]), [0; 3]);
        assert_eq!(one_pixel(Channels::Cmyk, &[255, 0, 51, 0]), [0, 255, 204]);
    }

    #[test]
    fn a_broken_or_foreign_profile_is_ignored() {
        let gray = |icc: &[u8]| {
            let raster = Raster { size: Size::new(1, 1), channels: Channels::Gray, samples: vec![7] };
            to_srgb(raster, Some(icc))
        };
        assert_eq!(gray(b"not a profile"), [7; 3]);
        assert_eq!(gray(&vec![0; ICC_BYTES_MAX + 1]), [7; 3]);
        let rgb_profile = ColorProfile::new_display_p3().encode().unwrap();
        assert_eq!(gray(&rgb_profile), [7; 3]);
    }

    #[test]
    fn srgb_stays_the_same_to_the_bit_and_a_wide_gamut_does_not() {
        let samples: Vec<u8> = (0..=255u8).flat_map(|level| [level, 255 - level, level / 2]).collect();
        let raster = || Raster { size: Size::new(256, 1), channels: Channels::Rgb, samples: samples.clone() };
        let srgb = ColorProfile::new_srgb().encode().unwrap();
        assert_eq!(to_srgb(raster(), Some(&srgb)), samples);
        let wide = ColorProfile::new_display_p3().encode().unwrap();
        assert_ne!(to_srgb(raster(), Some(&wide)), samples);
    }
}
