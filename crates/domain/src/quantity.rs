//! Numbers that cannot be out of range: the constructor is the only door.

use crate::fault::Invalid;
use crate::limits::{SIDE_PX_MAX, SIDE_PX_MIN};
use std::fmt;

/// How far the result may leave the reference picture. Invariant: `0 <= strength <= 1`.
///
/// 1 disregards the reference entirely; 0 returns it, resized, untouched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength(f64);

impl Strength {
    pub const DEFAULT: Self = Self(0.7);

    pub fn new(value: f64) -> Result<Self, Invalid> {
        within("strength", value, 0.0, 1.0).map(Self)
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// Adherence to the prompt. Invariant: `1 <= guidance_scale <= 30`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidanceScale(f64);

impl GuidanceScale {
    pub fn new(value: f64) -> Result<Self, Invalid> {
        within("guidance_scale", value, 1.0, 30.0).map(Self)
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// Pictures per request. Invariant: `1 <= batch <= 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(u32);

impl Batch {
    pub const ONE: Self = Self(1);

    pub fn new(value: i64) -> Result<Self, Invalid> {
        whole("batch", value, 1, 8).map(Self)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// Denoising steps of the whole schedule; `strength` decides how many of them run. Invariant: `1 <= steps <= 50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u32);

impl Steps {
    pub fn new(value: i64) -> Result<Self, Invalid> {
        whole("num_inference_steps", value, 1, 50).map(Self)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// Width and height, pixels. Says nothing of which sizes an app takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// A size as a request may spell it: each side 256 to 1536.
    pub fn requested(width: i64, height: i64) -> Result<Self, Invalid> {
        let side = |field, value| whole(field, value, SIDE_PX_MIN, SIDE_PX_MAX);
        Ok(Self { width: side("width", width)?, height: side("height", height)? })
    }

    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The largest size of the same aspect ratio within a square of `side_max`; never larger than itself.
    #[must_use]
    pub fn fit_within(self, side_max: u32) -> Self {
        let longest = self.width.max(self.height);
        if longest <= side_max {
            return self;
        }
        let scale = |side: u32| {
            let exact = f64::from(side) * f64::from(side_max) / f64::from(longest);
            (exact.round() as u32).max(1)
        };
        Self { width: scale(self.width), height: scale(self.height) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

fn within(field: &'static str, value: f64, min: f64, max: f64) -> Result<f64, Invalid> {
    if value >= min && value <= max {
        Ok(value)
    } else {
        Err(Invalid::new(field, value, format!("a number from {min} to {max}")))
    }
}

fn whole(field: &'static str, value: i64, min: u32, max: u32) -> Result<u32, Invalid> {
    match u32::try_from(value) {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(Invalid::new(field, value, format!("a whole number from {min} to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        for value in [0.0, 0.7, 1.0] {
            assert!(Strength::new(value).is_ok(), "{value}");
        }
        for value in [-0.001, 1.001, f64::NAN, f64::INFINITY] {
            assert!(Strength::new(value).is_err(), "{value}");
        }
        assert!(GuidanceScale::new(1.0).is_ok() && GuidanceScale::new(30.0).is_ok());
        assert!(GuidanceScale::new(0.99).is_err() && GuidanceScale::new(30.01).is_err());
        assert!(Batch::new(1).is_ok() && Batch::new(8).is_ok());
        assert!(Batch::new(0).is_err() && Batch::new(9).is_err() && Batch::new(i64::MIN).is_err());
        assert!(Steps::new(50).is_ok() && Steps::new(51).is_err());
        assert!(Size::requested(256, 1536).is_ok() && Size::requested(255, 256).is_err());
    }

    #[test]
    fn an_error_names_the_field_the_value_and_the_range() {
        let error = Batch::new(9).unwrap_err().to_string();
        assert_eq!(error, "batch: got 9; allowed: a whole number from 1 to 8");
    }

    #[test]
    fn fitting_keeps_the_aspect_ratio_and_never_enlarges() {
        assert_eq!(Size::new(3072, 1536).fit_within(1536), Size::new(1536, 768));
        assert_eq!(Size::new(100, 70).fit_within(1536), Size::new(100, 70));
        assert_eq!(Size::new(100_000, 1).fit_within(1536), Size::new(1536, 1));
    }
}
