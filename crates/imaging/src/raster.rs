//! Decoded 8-bit samples before color management: what a decoder hands to `color`.

use domain::quantity::Size;
use image::metadata::Orientation;

/// Row-major, interleaved.
pub(crate) struct Raster {
    pub(crate) size: Size,
    pub(crate) channels: Channels,
    pub(crate) samples: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
    /// 255 is full ink.
    Cmyk,
}

impl Channels {
    pub(crate) const fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

/// A raster with what its file says of how to show it.
pub(crate) struct Decoded {
    pub(crate) raster: Raster,
    pub(crate) icc: Option<Vec<u8>>,
    pub(crate) orientation: Orientation,
}

/// The orientation that an Exif block tells. Some writers of PNG and WebP keep JPEG's prefix.
pub(crate) fn orientation_from_exif(exif: Option<&[u8]>) -> Orientation {
    let Some(exif) = exif else { return Orientation::NoTransforms };
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms)
}
