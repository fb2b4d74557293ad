//! Packed weights in bf16: products of weights and inputs of 8 significant bits, added up in f32.

use super::tile::tile;
use super::{Block, Epilogue, Input, Place, Product, compute, n_outputs, panels};
use crate::narrow::round_to_bf16;
use crate::tile::{PanelLine, TILE_ROWS, Tile};
use crate::unit::{Bf16Pair, Unit};
use rayon::prelude::*;
use std::ops::Range;

/// One line of a panel: the weights of its outputs for two inputs, output by output.
pub(super) type Line = PanelLine<Bf16Pair>;

/// The weight of a linear layer in bf16.
pub struct Bf16Weight {
    /// `(panels, pairs)`
    lines: Vec<Line>,
    inputs: usize,
    outputs: usize,
}

impl Bf16Weight {
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack(weight: &[f32], inputs: usize) -> Self {
        let outputs = n_outputs(weight, inputs);
        let bits: Vec<u16> = weight.par_iter().map(|value| round_to_bf16(*value)).collect();
        let lines = panels(&bits, inputs, 0).into_iter().map(|line| PanelLine(line.map(Bf16Pair))).collect();
        Self { lines, inputs, outputs }
    }

    /// `out = epilogue(x · weightᵀ)`
    ///
    /// # Shapes
    /// - x: `(rows, inputs)`; out: `(rows, outputs)`
    pub fn multiply(&self, x: &Input<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let rows = x.n_rows(self.inputs);
        compute(&Bf16Product { x: x.bf16(), rows, weight: self }, epilogue, out);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

struct Bf16Product<'a> {
    /// `(tiles, pairs)`
    x: &'a [[Bf16Pair; TILE_ROWS]],
    rows: usize,
    weight: &'a Bf16Weight,
}

impl Product for Bf16Product<'_> {
    type Line = Line;

    const BLOCK: usize = 512;

    fn extent(&self) -> (usize, usize) {
        (self.rows, self.weight.outputs)
    }

    fn n_lines(&self) -> usize {
        self.weight.inputs.div_ceil(Bf16Pair::NUMBERS)
    }

    fn lines<'a>(&'a self, panel: usize, lines: Range<usize>, _scratch: &'a mut Vec<Line>) -> &'a [Line] {
        &self.weight.lines[panel * self.n_lines()..][lines]
    }

    fn add_to(&self, place: Place, block: Block<'_, Line>, sums: &mut Tile) {
        tile(&self.x[place.tile() * self.n_lines()..][block.range()], block.lines, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, product};

    #[test]
    fn every_shape_gives_the_product_of_the_rounded_numbers() {
        let rounded = |values: &[f32]| -> Vec<f32> {
            values.iter().map(|value| f32::from_bits(u32::from(round_to_bf16(*value)) << 16)).collect()
        };
        for (rows, inputs, outputs) in [(1, 1, 1), (12, 8, 32), (13, 7, 33), (5, 64, 31), (193, 48, 300), (3, 2501, 65)]
        {
            let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            let expected = product(&rounded(&x), &rounded(&weight), inputs);
            let mut out = vec![f32::NAN; rows * outputs];
            Bf16Weight::pack(&weight, inputs).multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
            for (ours, theirs) in out.iter().zip(&expected) {
                let within = 1e-4 * theirs.abs().max(1.0);
                assert!((ours - theirs).abs() <= within, "{rows}x{inputs}x{outputs}: {ours} {theirs}");
            }
        }
    }
}
