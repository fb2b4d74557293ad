//! Packed weights in 32-bit floating point.

use super::tile::tile_f32;
use super::{Epilogue, PANEL, Place, Product, TILE_ROWS, Tile, compute, interleave};
use rayon::prelude::*;
use std::ops::Range;

/// One line of a panel: the weights of its outputs for one input.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; PANEL]);

/// The weight of a linear layer in f32.
pub struct SingleWeight {
    /// `(panels, inputs)`; outputs beyond the last are zeros.
    lines: Vec<Line>,
    inputs: usize,
    outputs: usize,
}

impl SingleWeight {
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack(weight: &[f32], inputs: usize) -> Self {
        assert!(inputs > 0 && weight.len().is_multiple_of(inputs), "a packed weight: rows are not whole");
        let outputs = weight.len() / inputs;
        let mut lines = vec![Line([0.0; PANEL]); outputs.div_ceil(PANEL) * inputs];
        lines.par_chunks_mut(inputs).zip(weight.par_chunks(PANEL * inputs)).for_each(|(lines, rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                for (line, value) in lines.iter_mut().zip(row) {
                    line.0[output] = *value;
                }
            }
        });
        Self { lines, inputs, outputs }
    }

    /// `out = epilogue(x · weightᵀ)`
    ///
    /// # Shapes
    /// - x: `(rows, inputs)`; out: `(rows, outputs)`
    pub fn multiply(&self, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.inputs), "a packed product: the input's rows are not whole");
        let rows = x.len() / self.inputs;
        compute(&SingleProduct { x: interleave(x, self.inputs), rows, weight: self }, epilogue, out);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

struct SingleProduct<'a> {
    /// `(tiles, inputs)`
    x: Vec<[f32; TILE_ROWS]>,
    rows: usize,
    weight: &'a SingleWeight,
}

impl Product for SingleProduct<'_> {
    type Sum = f32;

    fn extent(&self) -> (usize, usize) {
        (self.rows, self.weight.outputs)
    }

    fn n_lines(&self) -> usize {
        self.weight.inputs
    }

    fn add_to(&self, place: Place, lines: Range<usize>, sums: &mut Tile<f32>) {
        let inputs = self.weight.inputs;
        let panel = &self.weight.lines[place.panel * inputs..][lines.clone()];
        tile_f32(&self.x[place.tile() * inputs..][lines], panel, sums);
    }

    fn values(&self, _place: Place, sums: &Tile<f32>, values: &mut Tile<f32>) {
        *values = *sums;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{Activation, activate};
    use crate::testing::{numbers, product};

    #[track_caller]
    fn check(rows: usize, inputs: usize, outputs: usize) {
        let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let bias = numbers(outputs, 3);
        let mut expected = product(&x, &weight, inputs);
        expected.chunks_mut(outputs).for_each(|row| row.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias));
        activate(Activation::GeluTanh, &mut expected);
        let mut out = vec![f32::NAN; rows * outputs];
        let epilogue = Epilogue { bias: Some(&bias), activation: Some(Activation::GeluTanh) };
        SingleWeight::pack(&weight, inputs).multiply(&x, epilogue, &mut out);
        for (ours, theirs) in out.iter().zip(&expected) {
            assert!(
                (ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0),
                "{rows}x{inputs}x{outputs}: {ours} {theirs}"
            );
        }
    }

    #[test]
    fn every_shape_gives_the_product() {
        for (rows, inputs, outputs) in [(1, 1, 1), (12, 8, 32), (13, 7, 33), (5, 64, 31), (193, 48, 300), (3, 2500, 65)]
        {
            check(rows, inputs, outputs);
        }
    }

    #[test]
    fn no_rows_are_no_product() {
        SingleWeight::pack(&[1.0; 6], 3).multiply(&[], Epilogue::default(), &mut []);
    }
}
