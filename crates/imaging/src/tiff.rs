//! TIFF in four inks, straight from the `tiff` crate: `image` would convert it before a color profile can be applied.

use crate::error::ImageError;
use crate::format::Format;
use crate::raster::{Channels, Raster};
use domain::quantity::Size;
use std::io::Cursor;
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};

/// The ink, if that is what the file stores; the limits are those of its size, which has been checked.
pub(crate) fn read_ink(bytes: &[u8], bytes_max: u64) -> Result<Option<Raster>, ImageError> {
    let broken = |error: tiff::TiffError| ImageError::broken(Format::Tiff, error);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = bytes_max as usize;
    limits.intermediate_buffer_size = bytes_max as usize;
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?.with_limits(limits);
    if decoder.colortype().map_err(broken)? != ColorType::CMYK(8) {
        return Ok(None);
    }
    let (width, height) = decoder.dimensions().map_err(broken)?;
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(broken)?;
    let size = Size::new(width, height);
    match samples {
        DecodingResult::U8(samples) if layout.planes == 1 && samples.len() as u64 == 4 * size.pixels() => {
            Ok(Some(Raster { size, channels: Channels::Cmyk, samples }))
        }
        _ => Err(ImageError::broken(Format::Tiff, "its inks stand apart or are incomplete")),
    }
}
