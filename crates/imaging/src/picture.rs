//! Upright 8-bit RGB pixels, the only form in which pictures travel inside Pentimento.

use domain::quantity::Size;
use std::fmt;

/// Row-major RGB, `3 · width · height` bytes. Both sides at least 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    pixels: Vec<u8>,
}

impl Picture {
    /// `None` unless the pixels fill the size exactly and neither side is 0.
    pub fn new(size: Size, pixels: Vec<u8>) -> Option<Self> {
        let right = size.pixels() > 0 && pixels.len() as u64 == 3 * size.pixels();
        right.then_some(Self { size, pixels })
    }

    pub fn filled(size: Size, rgb: [u8; 3]) -> Self {
        let pixels = rgb.iter().copied().cycle().take(3 * size.pixels() as usize).collect();
        Self { size, pixels }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Never prints pixels: a picture in a log is a leak.
impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({})", self.size)
    }
}
