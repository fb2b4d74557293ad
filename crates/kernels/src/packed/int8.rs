//! Packed weights in 8-bit integers: symmetric, one scale for every [`BLOCK_INPUTS`] inputs of an output; inputs are
//! quantized as they come, with as many scales a row.
//!
//! A block's product is exact, in 32-bit integers; what is lost is lost by rounding weights and inputs. Blocks keep the
//! loss where it arises: an input channel that is far larger than the others coarsens its own block only.

use super::input::Quantized;
use super::tile::tile_int8;
use super::{Block, Epilogue, Input, Place, Product, compute, n_outputs, panels};
use crate::math::ROUND;
use crate::tile::{PANEL, PanelLine, TILE_ROWS, Tile};
use rayon::prelude::*;
use std::ops::Range;

/// Inputs that one instruction multiplies and adds up.
pub(super) const GROUP: usize = 4;
/// Groups that share a scale.
const BLOCK: usize = 128;
/// Inputs that share a scale.
pub(super) const BLOCK_INPUTS: usize = BLOCK * GROUP;
/// Added to every weight so that it is unsigned, as the instruction wants one of its operands.
pub(super) const OFFSET: i32 = 128;
/// Largest magnitude of a quantized number: symmetric, so that there is no -128.
const LEVEL_MAX: f32 = 127.0;

/// One line of a panel: the weights of its outputs for one group of inputs, output by output.
pub(super) type Line = PanelLine<[u8; GROUP]>;

/// The weight of a linear layer in 8-bit integers.
pub struct Int8Weight {
    /// `(panels, groups)`
    lines: Vec<Line>,
    /// `(panels, blocks)`: what one level of an output's weights is worth.
    scales: Vec<[f32; PANEL]>,
    inputs: usize,
    outputs: usize,
}

/// What belongs to each row of a tile in one block.
#[derive(Clone, Copy, Default)]
pub(super) struct Rows {
    /// What one level is worth.
    pub(super) scales: [f32; TILE_ROWS],
    /// What the offset of the weights adds to a row's sums, negated.
    pub(super) corrections: [i32; TILE_ROWS],
}

/// What makes one tile of sums: a block of some rows, and of a panel.
pub(super) struct Operands<'a> {
    /// `(groups)`
    pub(super) levels: &'a [[[i8; GROUP]; TILE_ROWS]],
    pub(super) rows: &'a Rows,
    /// `(groups)`
    pub(super) lines: &'a [Line],
    pub(super) scales: &'a [f32; PANEL],
}

impl Int8Weight {
    /// # Shapes
    /// - weight: `(outputs, inputs)`
    pub fn pack(weight: &[f32], inputs: usize) -> Self {
        let outputs = n_outputs(weight, inputs);
        let (mut levels, mut scales) = (vec![0; weight.len()], vec![0.0; outputs * n_blocks(inputs)]);
        let rows = levels.par_chunks_mut(inputs).zip(weight.par_chunks(inputs));
        rows.zip(scales.par_chunks_mut(n_blocks(inputs))).for_each(|((levels, row), scales)| {
            let blocks = levels.chunks_mut(BLOCK_INPUTS).zip(row.chunks(BLOCK_INPUTS));
            for ((levels, block), scale) in blocks.zip(scales) {
                *scale = scale_of(block);
                let inverse_scale = 1.0 / *scale;
                let unsigned = |value: &f32| (i32::from(level(*value, inverse_scale)) + OFFSET) as u8;
                levels.iter_mut().zip(block).for_each(|(place, value)| *place = unsigned(value));
            }
        });
        Self {
            lines: panels(&levels, inputs, OFFSET as u8).into_iter().map(PanelLine).collect(),
            scales: panels::<_, 1>(&scales, n_blocks(inputs), 0.0).into_iter().map(|line| line.map(|[x]| x)).collect(),
            inputs,
            outputs,
        }
    }

    /// `out = epilogue(x · weightᵀ)`
    ///
    /// # Shapes
    /// - x: `(rows, inputs)`; out: `(rows, outputs)`
    pub fn multiply(&self, x: &Input<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let rows = x.n_rows(self.inputs);
        compute(&Int8Product { x: x.int8(), rows, weight: self }, epilogue, out);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.scales)
    }
}

struct Int8Product<'a> {
    x: &'a Quantized,
    rows: usize,
    weight: &'a Int8Weight,
}

impl Product for Int8Product<'_> {
    type Line = Line;

    const BLOCK: usize = BLOCK;

    fn extent(&self) -> (usize, usize) {
        (self.rows, self.weight.outputs)
    }

    fn n_lines(&self) -> usize {
        self.weight.inputs.div_ceil(GROUP)
    }

    fn lines<'a>(&'a self, panel: usize, lines: Range<usize>, _scratch: &'a mut Vec<Line>) -> &'a [Line] {
        &self.weight.lines[panel * self.n_lines()..][lines]
    }

    fn add_to(&self, place: Place, block: Block<'_, Line>, sums: &mut Tile) {
        let (n_blocks, idx) = (n_blocks(self.weight.inputs), block.first / BLOCK);
        let levels = &self.x.levels[place.tile() * self.n_lines()..][block.range()];
        let rows = &self.x.rows[place.tile() * n_blocks + idx];
        let scales = &self.weight.scales[place.panel * n_blocks + idx];
        tile_int8(&Operands { levels, rows, lines: block.lines, scales }, sums);
    }
}

pub(super) fn n_blocks(inputs: usize) -> usize {
    inputs.div_ceil(BLOCK_INPUTS)
}

/// What one level is worth, so that the largest number is the largest level. Never zero.
#[inline(always)]
pub(super) fn scale_of(block: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = block.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if value.abs() > *lane { value.abs() } else { *lane };
        }
    }
    let largest = lanes.iter().copied().chain(rest.iter().map(|value| value.abs())).fold(0.0, f32::max);
    if largest > 0.0 && largest.is_finite() { largest / LEVEL_MAX } else { 1.0 }
}

/// The nearest level, ties to even; of no number, zero.
#[inline(always)]
pub(super) fn level(value: f32, inverse_scale: f32) -> i8 {
    // The sum's lowest bits are the nearest whole number.
    ((value * inverse_scale).clamp(-LEVEL_MAX, LEVEL_MAX) + ROUND).to_bits() as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, product};

    /// The same product from the same levels, in the plainest way.
    fn plain(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
        let levels = |block: &[f32]| -> (Vec<i64>, f32) {
            let scale = scale_of(block);
            (block.iter().map(|value| i64::from(level(*value, 1.0 / scale))).collect(), scale)
        };
        let dot = |x: &[f32], w: &[f32]| {
            let ((x, x_scale), (w, w_scale)) = (levels(x), levels(w));
            x.iter().zip(&w).map(|(x, w)| x * w).sum::<i64>() as f32 * (x_scale * w_scale)
        };
        let row =
            |x: &[f32], w: &[f32]| x.chunks(BLOCK_INPUTS).zip(w.chunks(BLOCK_INPUTS)).map(|(x, w)| dot(x, w)).sum();
        x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(|w| row(x, w)).collect::<Vec<f32>>()).collect()
    }

    #[test]
    fn every_shape_gives_the_product_of_its_levels() {
        for (rows, inputs, outputs) in [(1, 1, 1), (12, 8, 32), (13, 7, 33), (5, 64, 31), (193, 50, 300), (3, 2503, 65)]
        {
            let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            let mut out = vec![f32::NAN; rows * outputs];
            Int8Weight::pack(&weight, inputs).multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
            // The sums of blocks are added up in f32, in an order of their own.
            for (ours, theirs) in out.iter().zip(plain(&x, &weight, inputs)) {
                assert!(
                    (ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0),
                    "{rows}x{inputs}x{outputs}: {ours} {theirs}"
                );
            }
        }
    }

    #[test]
    fn a_large_channel_spoils_its_own_block_only() {
        let inputs = 4 * BLOCK_INPUTS;
        let (mut x, weight) = (numbers(inputs, 1), numbers(inputs, 2));
        x[7] = 1000.0;
        let error = |x: &[f32], weight: &[f32]| {
            let (mut out, inputs) = ([0.0], x.len());
            Int8Weight::pack(weight, inputs).multiply(&Input::of(x, inputs), Epilogue::default(), &mut out);
            (out[0] - product(x, weight, inputs)[0]).abs()
        };
        let (whole, block) = (error(&x, &weight), error(&x[..BLOCK_INPUTS], &weight[..BLOCK_INPUTS]));
        let rest = error(&x[BLOCK_INPUTS..], &weight[BLOCK_INPUTS..]);
        assert!(whole <= block + rest + 1e-3 && rest < 1.0 && block > 3.0, "{whole} {block} {rest}");
    }

    #[test]
    fn levels_are_within_a_percent_of_the_product() {
        let (rows, inputs, outputs) = (40, 512, 64);
        let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let (mut out, exact) = (vec![0.0; rows * outputs], product(&x, &weight, inputs));
        Int8Weight::pack(&weight, inputs).multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
        let error = power(&mut out.iter().zip(&exact).map(|(a, b)| a - b)) / power(&mut exact.iter().copied());
        assert!(error.sqrt() < 0.01, "{}", error.sqrt());
    }

    #[test]
    fn extremes_stay_in_range() {
        let weight = [f32::MAX, -f32::MAX, 0.0, 0.0, 0.0, 0.0];
        let mut out = [f32::NAN; 3];
        Int8Weight::pack(&weight, 2).multiply(&Input::of(&[1.0, 1.0], 2), Epilogue::default(), &mut out);
        assert_eq!(out, [0.0, 0.0, 0.0]);
        let largest = vec![1.0; 100_000];
        let mut out = [0.0];
        Int8Weight::pack(&largest, largest.len()).multiply(
            &Input::of(&largest, largest.len()),
            Epilogue::default(),
            &mut out,
        );
        assert!((out[0] / 1e5 - 1.0).abs() < 1e-3, "{}", out[0]);
    }
}
