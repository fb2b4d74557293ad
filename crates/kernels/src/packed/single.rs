//! Packed weights that are multiplied in f32, whatever they are kept in.

use super::int8::{level, scale_of};
use super::tile::{row_f32, tile};
use super::{Block, Epilogue, Input, Place, Product, compute, n_outputs, panels};
use crate::dispatch::dispatched;
use crate::memory::unspecified;
use crate::narrow::{Format, round_to_bf16};
use crate::tile::{PANEL, PanelLine, TILE_ROWS, Tile};
use rayon::prelude::*;
use std::ops::Range;

/// One line of a panel: the weights of its outputs for one input.
pub(super) type Line = PanelLine<f32>;

/// The weight of a linear layer that is multiplied in f32.
pub struct SingleWeight {
    kept: Kept,
    inputs: usize,
    outputs: usize,
}

/// `(panels, inputs)` each; outputs beyond the last are zeros.
enum Kept {
    Single(Vec<Line>),
    /// Half the memory, and the same numbers.
    Narrow(Format, Vec<[u16; PANEL]>),
    /// A quarter of it, rounded: `(panels)` says what one level of an output's weights is worth.
    Levels(Vec<[i8; PANEL]>, Vec<[f32; PANEL]>),
}

impl Kept {
    fn narrow(format: Format, bits: &[u16], inputs: usize) -> Self {
        Self::Narrow(format, panels(bits, inputs, 0).into_iter().map(|line| line.map(|[bits]| bits)).collect())
    }
}

impl SingleWeight {
    /// Keeps the weight exactly, in 16 bits where they hold it.
    ///
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack(weight: &[f32], inputs: usize) -> Self {
        let outputs = n_outputs(weight, inputs);
        let kept = match Format::holding(weight) {
            Some(format) => {
                let bits: Vec<u16> = weight.par_iter().map(|value| format.encode(*value)).collect();
                Kept::narrow(format, &bits, inputs)
            }
            None => Kept::Single(single_lines(weight, inputs)),
        };
        Self { kept, inputs, outputs }
    }

    /// Keeps the weight as the nearest in bf16; inputs stay as they are.
    ///
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack_bf16(weight: &[f32], inputs: usize) -> Self {
        let bits: Vec<u16> = weight.par_iter().map(|value| round_to_bf16(*value)).collect();
        Self { kept: Kept::narrow(Format::Bf16, &bits, inputs), inputs, outputs: n_outputs(weight, inputs) }
    }

    /// Rounds the weight to 8-bit integers, one scale per output; inputs stay as they are. For layers whose inputs must
    /// not be rounded, or that have few rows, where only the weight's size counts.
    ///
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack_int8(weight: &[f32], inputs: usize) -> Self {
        let outputs = n_outputs(weight, inputs);
        let mut lines = vec![[0; PANEL]; outputs.div_ceil(PANEL) * inputs];
        let mut scales = vec![[0.0; PANEL]; outputs.div_ceil(PANEL)];
        let work = lines.par_chunks_mut(inputs).zip(&mut scales).zip(weight.par_chunks(PANEL * inputs));
        work.for_each(|((lines, scales), rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                scales[output] = scale_of(row);
                let inverse_scale = 1.0 / scales[output];
                lines.iter_mut().zip(row).for_each(|(line, value)| line[output] = level(*value, inverse_scale));
            }
        });
        Self { kept: Kept::Levels(lines, scales), inputs, outputs }
    }

    /// `out = epilogue(x · weightᵀ)`
    ///
    /// # Shapes
    /// - x: `(rows, inputs)`; out: `(rows, outputs)`
    pub fn multiply(&self, x: &Input<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let rows = x.n_rows(self.inputs);
        compute(&SingleProduct { x: x.single(), rows, weight: self }, epilogue, out);
    }

    pub fn bytes(&self) -> usize {
        match &self.kept {
            Kept::Single(lines) => size_of_val(&**lines),
            Kept::Narrow(_, lines) => size_of_val(&**lines),
            Kept::Levels(lines, scales) => size_of_val(&**lines) + size_of_val(&**scales),
        }
    }
}

struct SingleProduct<'a> {
    /// `(tiles, inputs)`
    x: &'a [[f32; TILE_ROWS]],
    rows: usize,
    weight: &'a SingleWeight,
}

impl Product for SingleProduct<'_> {
    type Line = Line;

    const BLOCK: usize = 1024;

    fn extent(&self) -> (usize, usize) {
        (self.rows, self.weight.outputs)
    }

    fn n_lines(&self) -> usize {
        self.weight.inputs
    }

    fn lines<'a>(&'a self, panel: usize, lines: Range<usize>, scratch: &'a mut Vec<Line>) -> &'a [Line] {
        let first = panel * self.weight.inputs;
        let range = first + lines.start..first + lines.end;
        match &self.weight.kept {
            Kept::Single(lines) => &lines[range],
            Kept::Narrow(format, lines) => {
                let widened = room_for(range.len(), scratch);
                widen_bits(*format, &lines[range], widened);
                widened
            }
            Kept::Levels(lines, scales) => {
                let widened = room_for(range.len(), scratch);
                widen_levels(&lines[range], &scales[panel], widened);
                widened
            }
        }
    }

    fn add_to(&self, place: Place, block: Block<'_, Line>, sums: &mut Tile) {
        let x = &self.x[place.tile() * self.weight.inputs..][block.range()];
        if place.n_rows == 1 {
            row_f32(x, block.lines, &mut sums[0]);
        } else {
            tile(x, block.lines, sums);
        }
    }
}

/// So many lines of no particular value.
fn room_for(n: usize, scratch: &mut Vec<Line>) -> &mut [Line] {
    if scratch.len() < n {
        *scratch = unspecified(n);
    }
    &mut scratch[..n]
}

fn single_lines(weight: &[f32], inputs: usize) -> Vec<Line> {
    let mut lines = vec![PanelLine([0.0; PANEL]); n_outputs(weight, inputs).div_ceil(PANEL) * inputs];
    lines.par_chunks_mut(inputs).zip(weight.par_chunks(PANEL * inputs)).for_each(|(lines, rows)| {
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            for (line, value) in lines.iter_mut().zip(row) {
                line.0[output] = *value;
            }
        }
    });
    lines
}

dispatched! {
    fn widen_bits(format: Format, lines: &[[u16; PANEL]], out: &mut [Line]) {
        for (out, line) in out.iter_mut().zip(lines) {
            for (out, bits) in out.0.iter_mut().zip(line) {
                *out = format.value(*bits);
            }
        }
    }
}

dispatched! {
    fn widen_levels(levels: &[[i8; PANEL]], scales: &[f32; PANEL], lines: &mut [Line]) {
        for (line, levels) in lines.iter_mut().zip(levels) {
            for ((out, level), scale) in line.0.iter_mut().zip(levels).zip(scales) {
                *out = f32::from(*level) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{Activation, activate};
    use crate::testing::{BF16_BITS, F16_BITS, numbers, numbers_of_bits, product};

    #[track_caller]
    fn check(rows: usize, inputs: usize, outputs: usize, weight: &[f32], packed: &SingleWeight) {
        let x = numbers(rows * inputs, 1);
        let bias = numbers(outputs, 3);
        let mut expected = product(&x, weight, inputs);
        expected.chunks_mut(outputs).for_each(|row| row.iter_mut().zip(&bias).for_each(|(x, bias)| *x += bias));
        activate(Activation::GeluTanh, &mut expected);
        let mut out = vec![f32::NAN; rows * outputs];
        let epilogue = Epilogue { bias: Some(&bias), activation: Some(Activation::GeluTanh) };
        packed.multiply(&Input::of(&x, inputs), epilogue, &mut out);
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
            let weight = numbers(outputs * inputs, 2);
            check(rows, inputs, outputs, &weight, &SingleWeight::pack(&weight, inputs));
        }
    }

    #[test]
    fn numbers_that_fit_16_bits_take_16_bits_and_lose_nothing() {
        let (rows, inputs, outputs) = (13, 1100, 33);
        for bits in [BF16_BITS, F16_BITS] {
            let weight = numbers_of_bits(outputs * inputs, 2, bits);
            let packed = SingleWeight::pack(&weight, inputs);
            assert_eq!(packed.bytes(), 2 * 64 * inputs);
            check(rows, inputs, outputs, &weight, &packed);
        }
    }

    #[test]
    fn a_rounded_weight_gives_the_product_of_its_levels() {
        let (rows, inputs, outputs) = (13, 1100, 33);
        let weight = numbers(outputs * inputs, 2);
        let packed = SingleWeight::pack_int8(&weight, inputs);
        assert!(packed.bytes() < 64 * (inputs + 5));
        let rounded = |row: &[f32]| {
            let scale = scale_of(row);
            row.iter().map(|value| f32::from(level(*value, 1.0 / scale)) * scale).collect::<Vec<f32>>()
        };
        let rounded: Vec<f32> = weight.chunks(inputs).flat_map(rounded).collect();
        check(rows, inputs, outputs, &rounded, &packed);
    }

    #[test]
    fn no_rows_are_no_product() {
        SingleWeight::pack(&[1.0; 6], 3).multiply(&Input::of(&[], 3), Epilogue::default(), &mut []);
    }
}
