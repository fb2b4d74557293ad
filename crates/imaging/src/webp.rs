//! What must be known of a WebP file before its decoder may see it.
//!
//! The decoder believes lengths and inner sizes: a metadata chunk that says 4 GB gets 4 GB, and a frame larger than the
//! canvas is decoded before the two are compared.

use crate::error::ImageError;
use crate::format::Format;
use domain::quantity::Size;

/// Found beside the pixels.
#[derive(Default)]
pub(crate) struct Metadata<'a> {
    pub(crate) icc: Option<&'a [u8]>,
    pub(crate) exif: Option<&'a [u8]>,
}

/// Walks all chunks: each must lie within the file, each lossy frame within the canvas.
pub(crate) fn inspect(bytes: &[u8], canvas: Size) -> Result<Metadata<'_>, ImageError> {
    const FILE_HEADER_BYTES: usize = 12;
    /// Where a frame of an animation is, its size and its duration.
    const FRAME_HEADER_BYTES: usize = 16;

    let body = length_at(bytes, 4).and_then(|length| bytes.get(FILE_HEADER_BYTES..8 + length)).ok_or_else(cut)?;
    let mut found = Metadata::default();
    for chunk in chunks(body) {
        let Chunk { name, data } = chunk?;
        match &name {
            b"ICCP" => found.icc = found.icc.or(Some(data)),
            b"EXIF" => found.exif = found.exif.or(Some(data)),
            b"VP8 " => check_frame(data, canvas)?,
            b"ANMF" => {
                let parts = data.get(FRAME_HEADER_BYTES..).ok_or_else(cut)?;
                for part in chunks(parts) {
                    let part = part?;
                    if &part.name == b"VP8 " {
                        check_frame(part.data, canvas)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

struct Chunk<'a> {
    name: [u8; 4],
    data: &'a [u8],
}

fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Result<Chunk<'_>, ImageError>> {
    std::iter::from_fn(move || {
        // Less than a chunk's header is padding.
        let name = *rest.first_chunk::<4>()?;
        let length = length_at(rest, 4)?;
        let Some(data) = rest.get(8..8 + length) else {
            rest = &[];
            return Some(Err(cut()));
        };
        // Chunks begin at even places; the last one may lack its padding.
        rest = rest.get(8 + length + length % 2..).unwrap_or_default();
        Some(Ok(Chunk { name, data }))
    })
}

/// A VP8 frame's own size stands behind its tag and its start code.
fn check_frame(data: &[u8], canvas: Size) -> Result<(), ImageError> {
    let Some([_, _, _, 0x9d, 0x01, 0x2a, sides @ ..]) = data.first_chunk::<10>() else {
        return Err(ImageError::broken(Format::Webp, "a frame lacks its header"));
    };
    // The upper two bits ask for scaling.
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let frame = Size::new(side(sides[0], sides[1]), side(sides[2], sides[3]));
    if frame.width > canvas.width || frame.height > canvas.height {
        return Err(ImageError::broken(Format::Webp, format!("a frame of {frame} on a canvas of {canvas}")));
    }
    Ok(())
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

fn cut() -> ImageError {
    ImageError::broken(Format::Webp, "it is shorter than it says")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
        let padding = &[0][..data.len() % 2];
        [name, &(data.len() as u32).to_le_bytes()[..], data, padding].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
    }

    fn frame(width: u16, height: u16) -> Vec<u8> {
        [&[0, 0, 0, 0x9d, 0x01, 0x2a][..], &width.to_le_bytes(), &height.to_le_bytes(), &[0; 4]].concat()
    }

    const CANVAS: Size = Size::new(20, 10);

    #[test]
    fn metadata_is_found_among_other_chunks() {
        let bytes =
            file(&[chunk(b"VP8X", &[0; 10]), chunk(b"ICCP", b"odd"), chunk(b"VP8L", &[1]), chunk(b"EXIF", b"II")]);
        let found = inspect(&bytes, CANVAS).unwrap();
        assert_eq!((found.icc, found.exif), (Some(&b"odd"[..]), Some(&b"II"[..])));
    }

    #[test]
    fn a_chunk_longer_than_the_file_is_refused() {
        let mut bytes = file(&[chunk(b"EXIF", b"II*\0")]);
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(inspect(&bytes, CANVAS).is_err());
        let whole = file(&[chunk(b"EXIF", b"II*\0")]);
        for length in 0..whole.len() {
            assert!(inspect(&whole[..length], CANVAS).is_err(), "{length}");
        }
        assert!(inspect(&whole, CANVAS).is_ok());
    }

    #[test]
    fn a_frame_larger_than_its_canvas_is_refused() {
        assert!(inspect(&file(&[chunk(b"VP8 ", &frame(20, 10))]), CANVAS).is_ok());
        assert!(inspect(&file(&[chunk(b"VP8 ", &frame(0x3fff, 10))]), CANVAS).is_err());
        let animation = [vec![0; 16], chunk(b"VP8 ", &frame(20, 11))].concat();
        assert!(inspect(&file(&[chunk(b"ANMF", &animation)]), CANVAS).is_err());
        assert!(inspect(&file(&[chunk(b"VP8 ", b"short")]), CANVAS).is_err());
    }
}
