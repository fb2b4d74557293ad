//! JPEG, straight from zune-jpeg: the `image` crate would convert CMYK before a color profile can be applied.

use crate::error::ImageError;
use crate::format::Format;
use crate::raster::{Channels, Decoded, Raster, orientation_from_exif};
use domain::quantity::Size;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The longest side that JPEG can express.
const SIDE_MAX: usize = 65_535;
/// Each scan of a progressive file goes over the whole picture: without a limit a small file costs hours.
const SCANS_MAX: usize = 64;

pub(crate) fn size(bytes: &[u8]) -> Result<Size, ImageError> {
    opened(bytes).map(|(_, size)| size)
}

pub(crate) fn read(bytes: &[u8]) -> Result<Decoded, ImageError> {
    if !ends(bytes) {
        return Err(broken("it has no end marker"));
    }
    let (mut decoder, size) = opened(bytes)?;
    let stored = decoder.input_colorspace().ok_or_else(|| broken("it has no color space"))?;
    let (wanted, channels) = match stored {
        ColorSpace::Luma => (ColorSpace::Luma, Channels::Gray),
        ColorSpace::YCbCr | ColorSpace::RGB => (ColorSpace::RGB, Channels::Rgb),
        // As stored; the rest is ours.
        ColorSpace::CMYK | ColorSpace::YCCK => (stored, Channels::Cmyk),
        other => return Err(broken(format!("its color space is {other:?}"))),
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let icc = decoder.icc_profile();
    let orientation = orientation_from_exif(decoder.exif().map(Vec::as_slice));
    let mut samples = decoder.decode().map_err(|error| broken(format!("{error:?}")))?;
    if stored == ColorSpace::YCCK {
        ycck_to_cmyk(&mut samples);
    }
    if channels == Channels::Cmyk {
        // Adobe stores ink inverted, so everybody does, and every reader takes it so, whoever wrote the file.
        for sample in &mut samples {
            *sample = 255 - *sample;
        }
    }
    if samples.len() as u64 != size.pixels() * channels.count() as u64 {
        return Err(broken("it holds fewer pixels than it says"));
    }
    Ok(Decoded { raster: Raster { size, channels, samples }, icc, orientation })
}

/// A decoder that has read the header.
type Opened<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

fn opened(bytes: &[u8]) -> Result<(Opened<'_>, Size), ImageError> {
    // Strict mode refuses what cameras really write; truncation, which matters, is checked in `read`.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(SIDE_MAX)
        .set_max_height(SIDE_MAX)
        .jpeg_set_max_scans(SCANS_MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| broken(format!("{error:?}")))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| broken("it has no dimensions"))?;
    Ok((decoder, Size::new(width as u32, height as u32)))
}

/// Whether an end marker follows the last scan. The decoder paints what is missing gray, and nobody asked for that.
/// Within a scan 0xFF is always followed by 0 or a restart marker, so the markers cannot be found by chance.
fn ends(bytes: &[u8]) -> bool {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last(END_OF_IMAGE) > last(START_OF_SCAN)
}

/// JFIF's color conversion gives RGB; what is stored as such is its complement, CMY. K passes.
fn ycck_to_cmyk(samples: &mut [u8]) {
    let ink = |light: f32| 255 - (light + 0.5).clamp(0.0, 255.0) as u8;
    for pixel in samples.chunks_exact_mut(4) {
        let (y, cb, cr) = (f32::from(pixel[0]), f32::from(pixel[1]) - 128.0, f32::from(pixel[2]) - 128.0);
        pixel[0] = ink(y + 1.402 * cr);
        pixel[1] = ink(y - 0.344_136 * cb - 0.714_136 * cr);
        pixel[2] = ink(y + 1.772 * cb);
    }
}

fn broken(detail: impl std::fmt::Display) -> ImageError {
    ImageError::broken(Format::Jpeg, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_paper_has_no_ink() {
        // Y 255 without chroma is RGB white, hence no cyan, magenta, yellow.
        let mut samples = [255, 128, 128, 7, 0, 128, 128, 9];
        ycck_to_cmyk(&mut samples);
        assert_eq!(samples, [0, 0, 0, 7, 255, 255, 255, 9]);
    }
}
