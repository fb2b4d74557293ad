//! The reference's random numbers: the same seed gives the same bits as its CPU generator.
//!
//! How a draw is made depends on its size, so two draws are not one draw of their joint size. Draws of fewer than
//! sixteen numbers go one by one, in double precision, and leave the second number of a pair for the next such draw.

use crate::gaussian::{self, BLOCK};
use crate::mt19937::Mt19937;
use half::{bf16, f16};

/// A stream of normal numbers. Follows the builds of the reference that use AVX2 or AVX-512.
#[derive(Clone)]
pub struct TorchGenerator {
    engine: Mt19937,
    /// The second number of the last pair that was drawn one by one; survives the larger draws in between.
    spare_normal: Option<f64>,
}

impl TorchGenerator {
    /// Seeds with the low 32 bits of `seed`; the reference ignores the others too.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare_normal: None }
    }

    /// `n` normal numbers, the elements of a tensor of any shape in row-major order.
    pub fn randn_f32(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.next_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.next_uniform_f32()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(gaussian::transform_f32);
        if !rest.is_empty() {
            let tail = self.normal_block();
            values[n - BLOCK..].copy_from_slice(&tail);
        }
        values
    }

    /// As [`Self::randn_f32`] in double precision; equal to the reference up to its mathematical library's last bit.
    pub fn randn_f64(&mut self, n: usize) -> Vec<f64> {
        if n < BLOCK {
            return (0..n).map(|_| self.next_normal()).collect();
        }
        let mut values: Vec<f64> = (0..n).map(|_| self.next_uniform_f64()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(gaussian::transform_f64);
        if !rest.is_empty() {
            let mut tail: [f64; BLOCK] = std::array::from_fn(|_| self.next_uniform_f64());
            gaussian::transform_f64(&mut tail);
            values[n - BLOCK..].copy_from_slice(&tail);
        }
        values
    }

    /// As the reference draws a bfloat16 tensor: its values are not always the rounded values of a float32 draw.
    pub fn randn_bf16(&mut self, n: usize) -> Vec<bf16> {
        if n < BLOCK {
            return (0..n).map(|_| bf16::from_f32(self.next_normal() as f32)).collect();
        }
        self.normal_blocks(n).into_iter().map(bf16::from_f32).collect()
    }

    /// As the reference draws a float16 tensor: its values are not always the rounded values of a float32 draw.
    pub fn randn_f16(&mut self, n: usize) -> Vec<f16> {
        if n < BLOCK {
            return (0..n).map(|_| f16::from_f32(self.next_normal() as f32)).collect();
        }
        self.normal_blocks(n).into_iter().map(f16::from_f32).collect()
    }

    /// Whole blocks, each drawn when its turn comes; the last one overlaps its predecessor where `n` is not a multiple.
    fn normal_blocks(&mut self, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        for block in blocks {
            *block = self.normal_block();
        }
        if !rest.is_empty() {
            let tail = self.normal_block();
            values[n - BLOCK..].copy_from_slice(&tail);
        }
        values
    }

    fn normal_block(&mut self) -> [f32; BLOCK] {
        let mut block = std::array::from_fn(|_| self.next_uniform_f32());
        gaussian::transform_f32(&mut block);
        block
    }

    /// One normal number, the polar angle drawn before the radius.
    fn next_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let angle = 2.0 * std::f64::consts::PI * self.next_uniform_f64();
        let radius = (-2.0 * (-self.next_uniform_f64()).ln_1p()).sqrt();
        self.spare_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// Uniform in `[0, 1)`, with the 24 bits that a float32 holds.
    fn next_uniform_f32(&mut self) -> f32 {
        const SCALE: f32 = 1.0 / (1_u32 << 24) as f32;
        (self.engine.next_u32() & 0x00ff_ffff) as f32 * SCALE
    }

    /// Uniform in `[0, 1)`, with the 53 bits that a float64 holds.
    fn next_uniform_f64(&mut self) -> f64 {
        const BITS: u64 = 1 << 53;
        (self.engine.next_u64() % BITS) as f64 / BITS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_half_of_a_seed_does_not_count() {
        let low = TorchGenerator::new(42).randn_f32(100);
        assert_eq!(low, TorchGenerator::new(42 + (7 << 32)).randn_f32(100));
        assert_ne!(low, TorchGenerator::new(43).randn_f32(100));
    }

    #[test]
    fn nothing_drawn_changes_nothing() {
        let mut generator = TorchGenerator::new(1);
        assert!(generator.randn_f32(0).is_empty());
        assert_eq!(generator.randn_f32(3), TorchGenerator::new(1).randn_f32(3));
    }

    #[test]
    fn a_million_numbers_are_standard_normal() {
        let values = TorchGenerator::new(9).randn_f32(1_000_000);
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / 1e6;
        let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / 1e6;
        assert!(mean.abs() < 0.005, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.01, "variance {variance}");
    }
}
