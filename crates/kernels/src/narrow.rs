//! Numbers kept in 16 bits where that loses nothing: most checkpoints are written in half precision.

use crate::dispatch::dispatched;
use rayon::prelude::*;

/// Numbers that one thread takes at a time.
const CHUNK: usize = 64 * 1024;
/// What an f16's bits, moved to an f32's place, are short of: the difference of the exponents' biases.
pub(crate) const F16_RESCALE: f32 = f32::from_bits((127 + 112) << 23);
/// The first f16 that is no number: infinity.
const F16_INFINITY: u16 = 0x7c00;

/// A 16-bit floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The upper half of an f32.
    Bf16,
    /// IEEE 754 binary16, finite.
    F16,
}

impl Format {
    /// A format that holds every one of these numbers exactly.
    pub fn holding(values: &[f32]) -> Option<Self> {
        [Self::Bf16, Self::F16].into_iter().find(|format| format.holds(values))
    }

    fn holds(self, values: &[f32]) -> bool {
        values.par_chunks(CHUNK).all(|chunk| {
            let mut lost = 0;
            match self {
                Self::Bf16 => lost_in_bf16(chunk, &mut lost),
                Self::F16 => lost_in_f16(chunk, &mut lost),
            }
            lost == 0
        })
    }

    /// The bits of a number that the format holds exactly.
    #[inline(always)]
    pub(crate) fn encode(self, value: f32) -> u16 {
        match self {
            Self::Bf16 => (value.to_bits() >> 16) as u16,
            Self::F16 => f16_bits(value),
        }
    }

    /// The number behind these bits.
    #[inline(always)]
    pub(crate) fn value(self, bits: u16) -> f32 {
        match self {
            Self::Bf16 => f32::from_bits(u32::from(bits) << 16),
            Self::F16 => f16_value(bits),
        }
    }

    /// The numbers behind these bits.
    pub fn decode(self, bits: &[u16], out: &mut [f32]) {
        assert_eq!(bits.len(), out.len(), "decode: lengths differ");
        decode(self, bits, out);
    }
}

/// Numbers in whichever format is smallest.
pub enum Numbers {
    Narrow(Format, Vec<u16>),
    Wide(Vec<f32>),
}

impl Numbers {
    /// Keeps the numbers exactly.
    pub fn of(values: &[f32]) -> Self {
        match Format::holding(values) {
            Some(format) => Self::Narrow(format, values.par_iter().map(|value| format.encode(*value)).collect()),
            None => Self::Wide(values.to_vec()),
        }
    }

    /// Keeps the numbers as the nearest in bf16.
    pub fn rounded(values: &[f32]) -> Self {
        Self::Narrow(Format::Bf16, values.par_iter().map(|value| round_to_bf16(*value)).collect())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(_, bits) => bits.len(),
            Self::Wide(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers from `first` on, as many as there is room for.
    pub fn read(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::Narrow(format, bits) => format.decode(&bits[first..first + out.len()], out),
            Self::Wide(values) => out.copy_from_slice(&values[first..first + out.len()]),
        }
    }
}

/// The nearest bf16, ties to even; no number stays none.
#[inline(always)]
pub(crate) fn round_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let bits = if value.is_nan() { bits | 0x40_0000 } else { rounded };
    (bits >> 16) as u16
}

/// The f16 of a number that is one; of any other number, something else.
#[inline(always)]
fn f16_bits(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    sign | ((value.abs() / F16_RESCALE).to_bits() >> 13) as u16
}

#[inline(always)]
fn f16_value(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * F16_RESCALE;
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

dispatched! {
    fn lost_in_bf16(values: &[f32], lost: &mut u32) {
        *lost = values.iter().fold(0, |lost, value| lost | (value.to_bits() & 0xffff));
    }
}

dispatched! {
    fn lost_in_f16(values: &[f32], lost: &mut u32) {
        *lost = values.iter().fold(0, |lost, value| {
            let bits = f16_bits(*value);
            let is_finite = bits & 0x7fff < F16_INFINITY;
            lost | u32::from(!is_finite) | (f16_value(bits).to_bits() ^ value.to_bits())
        });
    }
}

dispatched! {
    fn decode(format: Format, bits: &[u16], out: &mut [f32]) {
        for (out, bits) in out.iter_mut().zip(bits) {
            *out = format.value(*bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_f16_comes_back() {
        let bits: Vec<u16> = (0..=u16::MAX).filter(|bits| bits & 0x7fff < F16_INFINITY).collect();
        let mut values = vec![0.0; bits.len()];
        Format::F16.decode(&bits, &mut values);
        let encoded: Vec<u16> = values.iter().map(|value| Format::F16.encode(*value)).collect();
        assert_eq!(encoded, bits);
        assert!(Format::F16.holds(&values) && !Format::Bf16.holds(&values));
        // One, the smallest, the largest, and a negative one.
        let known = [(0x3c00, 1.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0xc100, -2.5)];
        for (bits, value) in known {
            assert_eq!(f16_value(bits), value);
        }
    }

    #[test]
    fn what_a_format_cannot_hold_it_does_not_claim() {
        for value in [0.1, 65520.0, f32::INFINITY, f32::NAN, 2f32.powi(-25), 1.0 + 2f32.powi(-11), f32::MIN_POSITIVE] {
            assert!(!Format::F16.holds(&[1.0, value]), "{value}");
        }
        assert_eq!(Format::holding(&[1.0, -0.5, 1e30_f32.to_bits_rounded()]), Some(Format::Bf16));
        assert_eq!(Format::holding(&[1.0 + 2f32.powi(-10)]), Some(Format::F16));
        assert_eq!(Format::holding(&[0.1]), None);
    }

    #[test]
    fn numbers_read_as_what_they_were() {
        for values in [vec![0.1, 0.2, 0.3], vec![1.0, -2.0, 0.5], vec![1.0 + 2f32.powi(-10), -0.0, 65504.0]] {
            let numbers = Numbers::of(&values);
            let mut read = vec![f32::NAN; 2];
            numbers.read(1, &mut read);
            assert_eq!(
                read.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                [values[1].to_bits(), values[2].to_bits()]
            );
        }
    }

    #[test]
    fn rounding_to_bf16_is_to_the_nearest() {
        for (value, rounded) in
            [(1.0, 1.0), (1.0 + 2f32.powi(-9), 1.0), (1.0 + 3.0 * 2f32.powi(-9), 1.0 + 2f32.powi(-7))]
        {
            assert_eq!(f32::from_bits(u32::from(round_to_bf16(value)) << 16), rounded, "{value}");
        }
        assert!(f32::from_bits(u32::from(round_to_bf16(f32::NAN)) << 16).is_nan());
        for (value, bits) in
            [(1.0, 0x3f80), (-2.0, 0xc000), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (0.0, 0)]
        {
            assert_eq!(round_to_bf16(value), bits, "{value}");
        }
        assert_eq!(round_to_bf16(f32::INFINITY), 0x7f80);
        assert_eq!(round_to_bf16(f32::NAN), 0x7fc0);
    }

    trait Rounded {
        fn to_bits_rounded(self) -> f32;
    }

    impl Rounded for f32 {
        fn to_bits_rounded(self) -> f32 {
            f32::from_bits(self.to_bits() & 0xffff_0000)
        }
    }
}
