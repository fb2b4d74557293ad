//! A convolution's weights, laid out in the order in which its products read them.

use crate::lanes::{LANES, Lanes, Line};
use crate::narrow::Format;
use rayon::prelude::*;
use std::ops::Range;

/// A convolution's weights, `(outputs, inputs, side, side)`, laid out for the products.
pub struct PackedKernel {
    kept: Kept,
    outputs: usize,
    n_taps: usize,
}

/// `(chunks of outputs, inputs · side · side)`; outputs beyond the last are zeros.
enum Kept {
    Single(Vec<Line>),
    /// Half the memory, and the same numbers.
    Bf16(Vec<Bf16Line>),
    /// As above.
    F16(Vec<F16Line>),
}

/// The weights of a chunk's outputs at one tap.
pub(super) trait Weights: Copy + Send + Sync {
    const ZERO: Self;

    fn load<L: Lanes>(&self, lanes: L) -> L::Vector;

    /// Takes the weight of one output, which must be one that this can hold.
    fn put(&mut self, output: usize, weight: f32);
}

/// [`Weights`] in [`Format::Bf16`].
#[derive(Clone, Copy)]
pub(super) struct Bf16Line([u16; LANES]);

/// [`Weights`] in [`Format::F16`].
#[derive(Clone, Copy)]
pub(super) struct F16Line([u16; LANES]);

/// The weights of a chunk's outputs at some taps, as they are kept.
#[derive(Clone, Copy)]
pub(super) enum Taps<'a> {
    Single(&'a [Line]),
    Bf16(&'a [Bf16Line]),
    F16(&'a [F16Line]),
}

impl PackedKernel {
    /// Keeps the weights exactly, in 16 bits where they hold them.
    ///
    /// # Shapes
    /// - weight: `(outputs, inputs, side, side)`
    pub fn pack(weight: &[f32], outputs: usize) -> Self {
        assert!(outputs > 0 && weight.len().is_multiple_of(outputs), "a packed kernel: outputs are not whole");
        let n_taps = weight.len() / outputs;
        let kept = match Format::holding(weight) {
            None => Kept::Single(laid_out(weight, n_taps)),
            Some(Format::Bf16) => Kept::Bf16(laid_out(weight, n_taps)),
            Some(Format::F16) => Kept::F16(laid_out(weight, n_taps)),
        };
        Self { kept, outputs, n_taps }
    }

    pub fn bytes(&self) -> usize {
        match &self.kept {
            Kept::Single(lines) => size_of_val(&**lines),
            Kept::Bf16(lines) => size_of_val(&**lines),
            Kept::F16(lines) => size_of_val(&**lines),
        }
    }

    /// `(outputs, inputs · side · side)`
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.outputs, self.n_taps)
    }

    /// The weights of a chunk's outputs at these taps.
    pub(super) fn taps(&self, chunk: usize, taps: Range<usize>) -> Taps<'_> {
        let range = chunk * self.n_taps + taps.start..chunk * self.n_taps + taps.end;
        match &self.kept {
            Kept::Single(lines) => Taps::Single(&lines[range]),
            Kept::Bf16(lines) => Taps::Bf16(&lines[range]),
            Kept::F16(lines) => Taps::F16(&lines[range]),
        }
    }
}

impl Weights for Line {
    const ZERO: Self = Self::ZERO;

    #[inline(always)]
    fn load<L: Lanes>(&self, lanes: L) -> L::Vector {
        lanes.load(self)
    }

    fn put(&mut self, output: usize, weight: f32) {
        self.0[output] = weight;
    }
}

impl Weights for Bf16Line {
    const ZERO: Self = Self([0; LANES]);

    #[inline(always)]
    fn load<L: Lanes>(&self, lanes: L) -> L::Vector {
        lanes.widen_bf16(&self.0)
    }

    fn put(&mut self, output: usize, weight: f32) {
        self.0[output] = Format::Bf16.encode(weight);
    }
}

impl Weights for F16Line {
    const ZERO: Self = Self([0; LANES]);

    #[inline(always)]
    fn load<L: Lanes>(&self, lanes: L) -> L::Vector {
        lanes.widen_f16(&self.0)
    }

    fn put(&mut self, output: usize, weight: f32) {
        self.0[output] = Format::F16.encode(weight);
    }
}

/// `(chunks of outputs, taps)`
fn laid_out<W: Weights>(weight: &[f32], n_taps: usize) -> Vec<W> {
    let mut lines = vec![W::ZERO; (weight.len() / n_taps).div_ceil(LANES) * n_taps];
    lines.par_chunks_mut(n_taps).zip(weight.par_chunks(LANES * n_taps)).for_each(|(lines, rows)| {
        for (output, row) in rows.chunks_exact(n_taps).enumerate() {
            lines.iter_mut().zip(row).for_each(|(line, weight)| line.put(output, *weight));
        }
    });
    lines
}
