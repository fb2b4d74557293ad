//! The kinds of image file, told apart by their first bytes and nothing else.

use crate::error::ImageError;
use std::fmt;

/// What an error says is allowed.
pub const SUPPORTED: &str = "PNG, JPEG, WebP, GIF, BMP, TIFF";

/// A kind of image file that we decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Png,
    Jpeg,
    Webp,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    pub const ALL: [Self; 6] = [Self::Png, Self::Jpeg, Self::Webp, Self::Gif, Self::Bmp, Self::Tiff];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }

    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kind of image that these bytes begin, if it is one that we decode. Names and media types lie; magic does not.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        // Two letters alone would take many a text file for a bitmap: the reserved words must be 0 as well.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(Format::Bmp),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Format::Tiff),
        _ => None,
    }
}

/// Like [`sniff`], with an error that names a kind which we know and do not decode. The first 32 bytes suffice.
pub fn recognize(bytes: &[u8]) -> Result<Format, ImageError> {
    sniff(bytes).ok_or_else(|| match sniff_unsupported(bytes) {
        Some(name) => ImageError::Unsupported(name),
        None => ImageError::Unrecognized,
    })
}

/// The name of a kind of image that we know and do not decode, so that an error can say more than "unknown".
///
/// AVIF and HEIC stay out: every decoder for them is either C or a machine translation of C full of `unsafe`.
fn sniff_unsupported(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.first_chunk::<4>()? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Some("HEIF"),
            _ => None,
        },
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some("JPEG 2000"),
        [b'8', b'B', b'P', b'S', ..] => Some("Photoshop"),
        [b'%', b'P', b'D', b'F', ..] => Some("PDF"),
        [b'<', b's', b'v', b'g', ..] => Some("SVG"),
        [0, 0, 1, 0, ..] => Some("ICO"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_decides() {
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n"), Some(Format::Png));
        assert_eq!(sniff(b"\xff\xd8\xff\xe0"), Some(Format::Jpeg));
        assert_eq!(sniff(b"RIFF\0\0\0\0WEBPVP8 "), Some(Format::Webp));
        assert_eq!(sniff(b"RIFF\0\0\0\0WAVEfmt "), None);
        assert_eq!(sniff(b"GIF89a"), Some(Format::Gif));
        assert_eq!(sniff(b"GIF90a"), None);
        assert_eq!(sniff(b"BM\x10\0\0\0\0\0\0\0"), Some(Format::Bmp));
        assert_eq!(sniff(b"BMW is a maker of cars"), None);
        assert_eq!(sniff(b"II*\0"), Some(Format::Tiff));
        assert_eq!(sniff(b"MM\0*"), Some(Format::Tiff));
        assert_eq!(sniff(b"<!doctype html>"), None);
        assert_eq!(sniff(b""), None);
    }

    #[test]
    fn a_known_stranger_is_named() {
        assert_eq!(sniff_unsupported(b"\0\0\0\x20ftypavif"), Some("AVIF"));
        assert_eq!(sniff_unsupported(b"\0\0\0\x20ftypheic"), Some("HEIF"));
        assert_eq!(sniff_unsupported(b"\0\0\0\x20ftypisom"), None);
        assert_eq!(sniff_unsupported(b"\0\0\0\x20ftyp"), None);
        assert_eq!(sniff_unsupported(b"%PDF-1.7"), Some("PDF"));
    }
}
