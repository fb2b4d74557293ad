//! The number formats of stored tensors, and their way to f32.
//!
//! Block formats are llama.cpp's (`ggml-quants.h`): some numbers share a scale, and the arithmetic, with its order of
//! roundings, is that of gguf-py's `quants.py`, so that every value comes out bit for bit the same.

use half::{bf16, f16};
use rayon::prelude::*;

/// How numbers are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    F64,
    F32,
    F16,
    Bf16,
    /// Four bits of exponent, three of mantissa, no infinities (OCP `E4M3`).
    F8E4M3,
    /// The upper half of an f16 (OCP `E5M2`).
    F8E5M2,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    /// In no file: numbers that are made when they are read.
    Synthetic,
    /// Integers and flags, which no layer takes.
    NotFloat,
}

/// Numbers that are written together, and the bytes that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) n_values: usize,
    pub(super) n_bytes: usize,
}

impl Encoding {
    /// Whether its numbers are 16 bits or less, without a scale.
    pub(super) fn is_narrow(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F8E4M3 | Self::F8E5M2 | Self::Synthetic)
    }

    /// `None`: such tensors cannot be read, so nobody asks how they are laid out.
    pub(super) fn block(self) -> Option<Block> {
        let (n_values, n_bytes) = match self {
            Self::F64 => (1, 8),
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F8E4M3 | Self::F8E5M2 => (1, 1),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Synthetic | Self::NotFloat => return None,
        };
        Some(Block { n_values, n_bytes })
    }

    /// Whole blocks as f32; f64 alone is narrowed. `None`: not a float type.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F8E4M3 => each(bytes, |[b]| f8_e4m3(b)),
            Self::F8E5M2 => each(bytes, |[b]| f16::from_le_bytes([0, b]).to_f32()),
            Self::Q4_0 => blocks(bytes, q4_0),
            Self::Q4_1 => blocks(bytes, q4_1),
            Self::Q5_0 => blocks(bytes, q5_0),
            Self::Q5_1 => blocks(bytes, q5_1),
            Self::Q8_0 => blocks(bytes, q8_0),
            Self::Q2K => blocks(bytes, q2_k),
            Self::Q3K => blocks(bytes, q3_k),
            Self::Q4K => blocks(bytes, q4_k),
            Self::Q5K => blocks(bytes, q5_k),
            Self::Q6K => blocks(bytes, q6_k),
            Self::Synthetic | Self::NotFloat => return None,
        })
    }
}

/// Values whose decoding is worth a task of its own.
const VALUES_PER_TASK: usize = 1 << 16;

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    bytes.as_chunks::<N>().0.par_iter().with_min_len(VALUES_PER_TASK).map(|bytes| value(*bytes)).collect()
}

fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]) + Sync,
) -> Vec<f32> {
    let blocks = bytes.as_chunks::<BYTES>().0;
    let mut values = vec![0.0; blocks.len() * VALUES];
    let out = values.as_chunks_mut::<VALUES>().0;
    let work = out.par_iter_mut().zip(blocks).with_min_len(VALUES_PER_TASK / VALUES);
    work.for_each(|(out, block)| decode(block, out));
    values
}

fn f8_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The half-precision number at a byte.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn nibble(byte: u8, upper: usize) -> u8 {
    byte >> (4 * upper) & 15
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (v, out) in out.iter_mut().enumerate() {
        *out = d * f32::from(nibble(block[2 + v % 16], v / 16) as i8 - 8);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (v, out) in out.iter_mut().enumerate() {
        *out = d * f32::from(nibble(block[4 + v % 16], v / 16)) + m;
    }
}

/// The fifth bit of a value, in its place.
fn fifth_bit(block: &[u8], at: usize, v: usize) -> u8 {
    (block[at + v / 8] >> (v % 8) & 1) << 4
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (v, out) in out.iter_mut().enumerate() {
        let q = nibble(block[6 + v % 16], v / 16) | fifth_bit(block, 2, v);
        *out = d * f32::from(q as i8 - 16);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (v, out) in out.iter_mut().enumerate() {
        let q = nibble(block[8 + v % 16], v / 16) | fifth_bit(block, 4, v);
        *out = d * f32::from(q) + m;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (v, out) in out.iter_mut().enumerate() {
        *out = f32::from(block[2 + v] as i8) * d;
    }
}

/// Scales and minima, four bits each, for every 16 values; then two bits a value.
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 80), half_at(block, 82));
    for (v, out) in out.iter_mut().enumerate() {
        let scale = block[v / 16];
        let q = block[16 + 32 * (v / 128) + v % 32] >> (2 * (v % 128 / 32)) & 3;
        *out = d * f32::from(scale & 15) * f32::from(q) - d_min * f32::from(scale >> 4);
    }
}

/// Third bits, two bits a value, 6-bit scales of 16 values whose upper bits lie apart.
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = half_at(block, 108);
    let scales = &block[96..108];
    for (v, out) in out.iter_mut().enumerate() {
        let s = v / 16;
        let scale = nibble(scales[s % 8], s / 8) | (scales[8 + s % 4] >> (2 * (s / 4)) & 3) << 4;
        let low = block[32 + 32 * (v / 128) + v % 32] >> (2 * (v % 128 / 32)) & 3;
        // The offset is zero where the bit is set.
        let offset = if block[v % 32] >> (v / 32) & 1 == 0 { 4 } else { 0 };
        *out = d * f32::from(scale as i8 - 32) * f32::from(low as i8 - offset);
    }
}

/// The 6-bit scale and minimum of 32 values, from the twelve bytes that hold eight of both.
fn scale_and_min(packed: &[u8], s: usize) -> (f32, f32) {
    let (scale, min) = if s < 4 {
        (packed[s] & 0x3f, packed[s + 4] & 0x3f)
    } else {
        let high = packed[s + 4];
        (high & 0x0f | packed[s - 4] >> 2 & 0x30, high >> 4 | packed[s] >> 2 & 0x30)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], s);
        let (scale, min) = (d * scale, d_min * min);
        for (v, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(nibble(block[16 + 32 * (s / 2) + v], s % 2)) - min;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], s);
        let (scale, min) = (d * scale, d_min * min);
        for (v, out) in out.iter_mut().enumerate() {
            let q = nibble(block[48 + 32 * (s / 2) + v], s % 2) | (block[16 + v] >> s & 1) << 4;
            *out = scale * f32::from(q) - min;
        }
    }
}

/// Four bits and two bits a value, signed scales of 16 values.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for (v, out) in out.iter_mut().enumerate() {
        let low = nibble(block[64 * (v / 128) + v % 64], v % 128 / 64);
        let high = block[128 + 32 * (v / 128) + v % 32] >> (2 * (v % 128 / 32)) & 3;
        let scale = block[192 + v / 16] as i8;
        *out = d * f32::from(scale) * f32::from((low | high << 4) as i8 - 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_types_widen_exactly() {
        let value = 1.5f32;
        assert_eq!(Encoding::Bf16.decode(&bf16::from_f32(value).to_le_bytes()), Some(vec![value]));
        assert_eq!(Encoding::F16.decode(&f16::from_f32(value).to_le_bytes()), Some(vec![value]));
        assert_eq!(Encoding::F64.decode(&1.5f64.to_le_bytes()), Some(vec![value]));
        assert_eq!(Encoding::NotFloat.decode(&[0; 8]), None);
    }

    #[test]
    fn eight_bit_floats_have_their_documented_values() {
        let e4m3 = |bits: &[u8]| Encoding::F8E4M3.decode(bits).unwrap();
        assert_eq!(e4m3(&[0x38, 0xb8, 0x7e, 0x01, 0]), vec![1.0, -1.0, 448.0, 2f32.powi(-9), 0.0]);
        assert!(e4m3(&[0x7f, 0xff]).iter().all(|value| value.is_nan()));
        let e5m2 = Encoding::F8E5M2.decode(&[0x3c, 0xc0, 0x7b, 0x01]).unwrap();
        assert_eq!(e5m2, vec![1.0, -2.0, 57344.0, 2f32.powi(-16)]);
    }
}
