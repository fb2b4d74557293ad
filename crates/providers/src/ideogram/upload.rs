//! The reference picture as a file that Ideogram takes.

use domain::request::OutputFormat;
use imaging::{ImageError, Metadata, Picture};

/// What Ideogram takes for a reference, bytes. Its pages say 10 MB in one place and 25 MB in another.
pub(crate) const IMAGE_BYTES_MAX: usize = 10_000_000;

/// The best format that fits: what loses nothing first.
const FORMATS: [OutputFormat; 3] = [OutputFormat::Png, OutputFormat::Webp, OutputFormat::Jpeg];

pub(crate) struct Encoded {
    pub(crate) format: OutputFormat,
    pub(crate) bytes: Vec<u8>,
}

/// `None`: in no format does it fit.
pub(crate) fn encode(picture: &Picture, bytes_max: usize) -> Result<Option<Encoded>, ImageError> {
    let metadata = Metadata { software: "Pentimento".to_owned(), model: "none".to_owned(), seed: None };
    for format in FORMATS {
        let bytes = imaging::encode(picture, format, &metadata)?;
        if bytes.len() <= bytes_max {
            return Ok(Some(Encoded { format, bytes }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::quantity::Size;

    /// Noise: of all pictures the one that takes most bytes.
    fn noise(size: Size) -> Picture {
        let mut state = 1_u32;
        let pixels = (0..3 * size.pixels()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        Picture::new(size, pixels.collect()).unwrap()
    }

    #[test]
    fn what_loses_nothing_is_taken_while_it_fits() {
        let picture = noise(Size::new(300, 200));
        let format = |bytes_max| encode(&picture, bytes_max).unwrap().map(|encoded| encoded.format);
        assert_eq!(format(IMAGE_BYTES_MAX), Some(OutputFormat::Png));
        assert_eq!(format(150_000), Some(OutputFormat::Jpeg));
        assert_eq!(format(1000), None);
    }

    #[test]
    fn the_largest_reference_fits_without_loss() {
        let encoded = encode(&noise(Size::new(1472, 704)), IMAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!(encoded.format, OutputFormat::Png);
    }
}
