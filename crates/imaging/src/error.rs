//! Why bytes are not a picture that we take, or a picture could not become bytes.

use crate::format::{Format, SUPPORTED};
use domain::limits::{SOURCE_BYTES_MAX, SOURCE_PIXELS_MAX};
use domain::quantity::Size;

/// Messages name what was found and what is allowed; they never hold bytes of the picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("not an image of a known type; allowed: {SUPPORTED}")]
    Unrecognized,
    #[error("{0} images are not supported; allowed: {SUPPORTED}")]
    Unsupported(&'static str),
    #[error("a {format} image of a kind that is not supported: {detail}")]
    UnsupportedKind { format: Format, detail: String },
    #[error("an image of {0} bytes; allowed: at most {SOURCE_BYTES_MAX} bytes")]
    TooManyBytes(u64),
    #[error("an image of {0} pixels; allowed: at most {SOURCE_PIXELS_MAX} pixels in all")]
    TooManyPixels(Size),
    #[error("a {0} image that needs too much memory to decode")]
    TooMuchMemory(Format),
    #[error("a damaged or truncated {format} image: {detail}")]
    Broken { format: Format, detail: String },
    #[error("the picture could not be written as {format}: {detail}")]
    Encode { format: Format, detail: String },
}

impl ImageError {
    pub(crate) fn broken(format: Format, detail: impl std::fmt::Display) -> Self {
        Self::Broken { format, detail: short(&detail.to_string()) }
    }

    pub(crate) fn encoding(format: Format, detail: impl std::fmt::Display) -> Self {
        Self::Encode { format, detail: short(&detail.to_string()) }
    }

    /// Sorts a decoder's error into ours.
    pub(crate) fn from_decoder(format: Format, error: image::ImageError) -> Self {
        match error {
            image::ImageError::Limits(_) => Self::TooMuchMemory(format),
            image::ImageError::Unsupported(kind) => Self::UnsupportedKind { format, detail: short(&kind.to_string()) },
            other => Self::broken(format, other),
        }
    }
}

/// Decoders quote what they meet, which is the client's to choose: one short line without control characters.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}
