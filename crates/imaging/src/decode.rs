//! Bytes to an upright, opaque sRGB picture, with every limit checked before pixels are decoded.

use crate::color::to_srgb;
use crate::error::ImageError;
use crate::format::{Format, recognize};
use crate::jpeg;
use crate::picture::Picture;
use crate::raster::{Channels, Decoded, Raster, orientation_from_exif};
use crate::tiff::read_ink;
use crate::webp;
use domain::limits::{SOURCE_BYTES_MAX, SOURCE_PIXELS_MAX};
use domain::quantity::Size;
use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What one decoder may allocate: the largest picture allowed at 8 bytes a pixel.
const DECODE_BYTES_MAX: u64 = 8 * SOURCE_PIXELS_MAX;
/// What a PNG's chunks before the pixels (profile, text) may unpack to, and one row of pixels may take.
const PNG_CHUNKS_BYTES_MAX: u64 = 64 << 20;

/// What an image file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub format: Format,
    /// As stored; a picture that its Exif turns on its side comes out the other way round.
    pub size: Size,
}

/// Reads the header alone and checks the limits: what passes may still be broken further on.
pub fn probe(bytes: &[u8]) -> Result<Header, ImageError> {
    let format = recognized(bytes)?;
    let size = guarded(format, || match format {
        Format::Jpeg => jpeg::size(bytes),
        _ => opened(format, bytes).map(|decoder| size_of(decoder.as_ref())),
    })?;
    check_size(format, size)?;
    Ok(Header { format, size })
}

/// The picture in these bytes: the first frame of an animation, turned as its Exif says, in sRGB, white where it was
/// transparent.
pub fn decode(bytes: &[u8]) -> Result<Picture, ImageError> {
    let Header { format, .. } = probe(bytes)?;
    guarded(format, || {
        let Decoded { raster, icc, orientation } = match format {
            Format::Jpeg => jpeg::read(bytes)?,
            _ => read(format, bytes)?,
        };
        let size = raster.size;
        let rgb = to_srgb(raster, icc.as_deref());
        let image = RgbImage::from_raw(size.width, size.height, rgb);
        let mut image = DynamicImage::ImageRgb8(image.ok_or_else(|| ImageError::broken(format, "pixels are missing"))?);
        image.apply_orientation(orientation);
        let size = Size::new(image.width(), image.height());
        let picture = Picture::new(size, image.into_rgb8().into_raw());
        picture.ok_or_else(|| ImageError::broken(format, "pixels are missing"))
    })
}

fn recognized(bytes: &[u8]) -> Result<Format, ImageError> {
    if bytes.len() > SOURCE_BYTES_MAX {
        return Err(ImageError::TooManyBytes(bytes.len() as u64));
    }
    recognize(bytes)
}

fn check_size(format: Format, size: Size) -> Result<(), ImageError> {
    match size.pixels() {
        0 => Err(ImageError::broken(format, format!("its size is {size}"))),
        n_pixels if n_pixels > SOURCE_PIXELS_MAX => Err(ImageError::TooManyPixels(size)),
        _ => Ok(()),
    }
}

/// The last guard: a decoder that panics on hostile bytes has found them broken, and the process lives on. Nothing of
/// the decoder is used after it, so nothing half-changed is seen.
fn guarded<T>(format: Format, work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(ImageError::broken(format, "the decoder gave up")))
}

/// A decoder that has read the header and knows its limits.
fn opened(format: Format, bytes: &[u8]) -> Result<Box<dyn ImageDecoder + '_>, ImageError> {
    let source = Cursor::new(bytes);
    let decoder: Result<Box<dyn ImageDecoder + '_>, image::ImageError> = match format {
        Format::Png => PngDecoder::with_limits(source, limits(PNG_CHUNKS_BYTES_MAX)).map(|it| Box::new(it) as _),
        Format::Webp => WebPDecoder::new(source).map(|it| Box::new(it) as _),
        Format::Gif => GifDecoder::new(source).map(|it| Box::new(it) as _),
        Format::Bmp => BmpDecoder::new(source).map(|it| Box::new(it) as _),
        Format::Tiff => TiffDecoder::new(source).map(|it| Box::new(it) as _),
        Format::Jpeg => return Err(ImageError::broken(format, "it has a decoder of its own, this is a bug")),
    };
    decoder.map_err(|error| ImageError::from_decoder(format, error))
}

fn limits(bytes_max: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes_max);
    limits
}

fn size_of(decoder: &(dyn ImageDecoder + '_)) -> Size {
    let (width, height) = decoder.dimensions();
    Size::new(width, height)
}

fn read(format: Format, bytes: &[u8]) -> Result<Decoded, ImageError> {
    let failed = |error| ImageError::from_decoder(format, error);
    let mut decoder = opened(format, bytes)?;
    if decoder.total_bytes() > DECODE_BYTES_MAX {
        return Err(ImageError::TooMuchMemory(format));
    }
    // Metadata comes before the limits are set: TIFF's would then be sized by the pixels, and a small picture's profile would
    // be over them.
    let (icc, orientation) = metadata(format, bytes, decoder.as_mut())?;
    if format == Format::Tiff
        && let Some(raster) = read_ink(bytes, DECODE_BYTES_MAX)?
    {
        return Ok(Decoded { raster, icc, orientation });
    }
    decoder.set_limits(limits(DECODE_BYTES_MAX)).map_err(failed)?;
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(Decoded { raster: to_8_bit(image), icc, orientation })
}

/// Profile and orientation. What is broken in them does not spoil the pixels.
fn metadata(
    format: Format,
    bytes: &[u8],
    decoder: &mut (dyn ImageDecoder + '_),
) -> Result<(Option<Vec<u8>>, Orientation), ImageError> {
    if format == Format::Webp {
        let found = webp::inspect(bytes, size_of(decoder))?;
        return Ok((found.icc.map(<[u8]>::to_vec), orientation_from_exif(found.exif)));
    }
    let icc = decoder.icc_profile().ok().flatten();
    let orientation = match format {
        Format::Tiff => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        _ => orientation_from_exif(decoder.exif_metadata().ok().flatten().as_deref()),
    };
    Ok((icc, orientation))
}

fn to_8_bit(image: DynamicImage) -> Raster {
    let size = Size::new(image.width(), image.height());
    let color = image.color();
    let (channels, samples) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (Channels::Gray, image.into_luma8().into_raw()),
        (false, true) => (Channels::GrayAlpha, image.into_luma_alpha8().into_raw()),
        (true, false) => (Channels::Rgb, image.into_rgb8().into_raw()),
        (true, true) => (Channels::Rgba, image.into_rgba8().into_raw()),
    };
    Raster { size, channels, samples }
}
