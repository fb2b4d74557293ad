//! Packed weights in 8-bit integers: symmetric, one scale per output; inputs are quantized per row as they come.
//!
//! The product itself is exact, in 32-bit integers; what is lost is lost by rounding weights and inputs.

use super::tile::tile_int8;
use super::{Epilogue, PANEL, Place, Product, TILE_ROWS, Tile, compute, interleave};
use crate::dispatch::dispatched;
use rayon::prelude::*;
use std::ops::Range;

/// Inputs that one instruction multiplies and adds up.
pub(super) const GROUP: usize = 4;
/// Added to every weight so that it is unsigned, as the instruction wants one of its operands.
pub(super) const OFFSET: i32 = 128;
/// Largest magnitude of a quantized number: symmetric, so that there is no -128.
const LEVEL_MAX: f32 = 127.0;
/// Most inputs of a layer: the sum of more products could leave 32 bits.
const INPUTS_MAX: usize = (i32::MAX / (255 * 127)) as usize / GROUP * GROUP;

/// One line of a panel: the weights of its outputs for one group of inputs, output by output.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [[u8; GROUP]; PANEL]);

/// The weight of a linear layer in 8-bit integers.
pub struct Int8Weight {
    /// `(panels, groups)`
    lines: Vec<Line>,
    /// `(outputs)`: what one level of an output's weights is worth.
    scales: Vec<f32>,
    inputs: usize,
}

/// An input in 8-bit integers.
struct Quantized {
    /// `(tiles, groups)`
    levels: Vec<[[i8; GROUP]; TILE_ROWS]>,
    /// `(rows)`: what one level of a row is worth.
    scales: Vec<f32>,
    /// `(rows)`: the offset's part of a row's sums.
    offsets: Vec<i32>,
}

impl Int8Weight {
    /// # Shapes
    /// - weight: `(outputs, inputs)`, at most 66,308 inputs
    pub fn pack(weight: &[f32], inputs: usize) -> Self {
        assert!((1..=INPUTS_MAX).contains(&inputs), "a packed weight: {inputs} inputs");
        assert!(weight.len().is_multiple_of(inputs), "a packed weight: rows are not whole");
        let n_groups = inputs.div_ceil(GROUP);
        let n_panels = (weight.len() / inputs).div_ceil(PANEL);
        let mut lines = vec![Line([[OFFSET as u8; GROUP]; PANEL]); n_panels * n_groups];
        let scales =
            lines.par_chunks_mut(n_groups).zip(weight.par_chunks(PANEL * inputs)).flat_map_iter(|(lines, rows)| {
                let pack_row = |(output, row)| pack_row(row, lines, output);
                rows.chunks_exact(inputs).enumerate().map(pack_row).collect::<Vec<f32>>()
            });
        let scales = scales.collect();
        Self { lines, scales, inputs }
    }

    /// `out = epilogue(x · weightᵀ)`
    ///
    /// # Shapes
    /// - x: `(rows, inputs)`; out: `(rows, outputs)`
    pub fn multiply(&self, x: &[f32], epilogue: Epilogue<'_>, out: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.inputs), "a packed product: the input's rows are not whole");
        compute(&Int8Product { x: Quantized::of(x, self.inputs), weight: self }, epilogue, out);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.scales)
    }
}

struct Int8Product<'a> {
    x: Quantized,
    weight: &'a Int8Weight,
}

impl Product for Int8Product<'_> {
    type Sum = i32;

    fn extent(&self) -> (usize, usize) {
        (self.x.scales.len(), self.weight.scales.len())
    }

    fn n_lines(&self) -> usize {
        self.weight.inputs.div_ceil(GROUP)
    }

    fn add_to(&self, place: Place, lines: Range<usize>, sums: &mut Tile<i32>) {
        let n_lines = self.n_lines();
        let panel = &self.weight.lines[place.panel * n_lines..][lines.clone()];
        tile_int8(&self.x.levels[place.tile() * n_lines..][lines], panel, sums);
    }

    fn values(&self, place: Place, sums: &Tile<i32>, values: &mut Tile<f32>) {
        let scales = self.weight.scales.chunks(PANEL).nth(place.panel).unwrap_or_default();
        let rows = place.first_row..place.first_row + place.n_rows;
        for ((row, sums), values) in rows.zip(sums).zip(values) {
            dequantize(sums, self.x.offsets[row], self.x.scales[row], scales, values);
        }
    }
}

impl Quantized {
    fn of(x: &[f32], inputs: usize) -> Self {
        let n_groups = inputs.div_ceil(GROUP);
        let rows = x.len() / inputs;
        let mut levels = vec![[0; GROUP]; rows * n_groups];
        let per_row = levels.par_chunks_mut(n_groups).zip(x.par_chunks(inputs)).map(|(levels, row)| {
            let scale = scale_of(row);
            let mut sum = 0;
            quantize(row, scale, levels.as_flattened_mut(), &mut sum);
            (scale, OFFSET * sum)
        });
        let (scales, offsets) = per_row.unzip();
        Self { levels: interleave(&levels, n_groups), scales, offsets }
    }
}

/// Writes one output's weights to its place in a panel's lines; returns its scale.
fn pack_row(row: &[f32], lines: &mut [Line], output: usize) -> f32 {
    let scale = scale_of(row);
    for (line, group) in lines.iter_mut().zip(row.chunks(GROUP)) {
        for (place, value) in line.0[output].iter_mut().zip(group) {
            *place = (level(*value, 1.0 / scale) as i32 + OFFSET) as u8;
        }
    }
    scale
}

/// What one level is worth, so that the largest number is the largest level. Never zero.
fn scale_of(row: &[f32]) -> f32 {
    let mut largest = 0.0;
    largest_magnitude(row, &mut largest);
    if largest > 0.0 && largest.is_finite() { largest / LEVEL_MAX } else { 1.0 }
}

#[inline(always)]
fn level(value: f32, inverse_scale: f32) -> i8 {
    // The cast saturates, and reads no number as zero.
    (value * inverse_scale).round_ties_even().clamp(-LEVEL_MAX, LEVEL_MAX) as i8
}

dispatched! {
    fn largest_magnitude(row: &[f32], largest: &mut f32) {
        let mut lanes = [0.0f32; 16];
        let (chunks, rest) = row.as_chunks::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if value.abs() > *lane { value.abs() } else { *lane };
            }
        }
        *largest = lanes.iter().copied().chain(rest.iter().map(|value| value.abs())).fold(0.0, f32::max);
    }
}

dispatched! {
    fn quantize(row: &[f32], scale: f32, levels: &mut [i8], sum: &mut i32) {
        let inverse_scale = 1.0 / scale;
        let mut total = 0;
        for (place, value) in levels.iter_mut().zip(row) {
            *place = level(*value, inverse_scale);
            total += i32::from(*place);
        }
        *sum = total;
    }
}

dispatched! {
    fn dequantize(sums: &[i32; PANEL], offset: i32, row_scale: f32, scales: &[f32], out: &mut [f32; PANEL]) {
        for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
            *out = (sum - offset) as f32 * (row_scale * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, product};

    /// The same product from the same levels, in the plainest way.
    fn plain(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
        let levels = |row: &[f32]| -> (Vec<i64>, f32) {
            let scale = scale_of(row);
            (row.iter().map(|value| i64::from(level(*value, 1.0 / scale))).collect(), scale)
        };
        let weights: Vec<_> = weight.chunks(inputs).map(levels).collect();
        let product = |row: &[f32]| {
            let (x, x_scale) = levels(row);
            let sum = |w: &[i64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<i64>();
            weights.iter().map(|(w, scale)| sum(w) as f32 * (x_scale * scale)).collect::<Vec<f32>>()
        };
        x.chunks(inputs).flat_map(product).collect()
    }

    #[test]
    fn every_shape_gives_the_product_of_its_levels_exactly() {
        for (rows, inputs, outputs) in [(1, 1, 1), (12, 8, 32), (13, 7, 33), (5, 64, 31), (193, 50, 300), (3, 2503, 65)]
        {
            let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            let mut out = vec![f32::NAN; rows * outputs];
            Int8Weight::pack(&weight, inputs).multiply(&x, Epilogue::default(), &mut out);
            assert_eq!(out, plain(&x, &weight, inputs), "{rows}x{inputs}x{outputs}");
        }
    }

    #[test]
    fn levels_are_within_a_percent_of_the_product() {
        let (rows, inputs, outputs) = (40, 512, 64);
        let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let (mut out, exact) = (vec![0.0; rows * outputs], product(&x, &weight, inputs));
        Int8Weight::pack(&weight, inputs).multiply(&x, Epilogue::default(), &mut out);
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
        let error = power(&mut out.iter().zip(&exact).map(|(a, b)| a - b)) / power(&mut exact.iter().copied());
        assert!(error.sqrt() < 0.01, "{}", error.sqrt());
    }

    #[test]
    fn extremes_stay_in_range() {
        let weight = [f32::MAX, -f32::MAX, 0.0, 0.0, 0.0, 0.0];
        let mut out = [f32::NAN; 3];
        Int8Weight::pack(&weight, 2).multiply(&[1.0, 1.0], Epilogue::default(), &mut out);
        assert_eq!(out, [0.0, 0.0, 0.0]);
        let largest = vec![1.0; INPUTS_MAX];
        let mut out = [0.0];
        Int8Weight::pack(&largest, INPUTS_MAX).multiply(&largest, Epilogue::default(), &mut out);
        assert!((out[0] / INPUTS_MAX as f32 - 1.0).abs() < 1e-3, "{}", out[0]);
    }
}
