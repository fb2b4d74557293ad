//! What packed weights are multiplied by, laid out for the tiles.

use super::int8::{BLOCK_INPUTS, GROUP, OFFSET, Rows, level, n_blocks, scale_of};
use crate::dispatch::dispatched;
use crate::memory::unspecified;
use crate::tile::TILE_ROWS;
use crate::unit::{Bf16Pair, Unit};
use rayon::prelude::*;
use std::cell::OnceCell;
use std::ops::Range;

/// Rows of one matrix, or of several side by side. They are laid out once for each number format that weights want, when
/// the first of them does: layers that read the same input share it.
pub struct Input<'a> {
    rows: Joined<'a>,
    single: OnceCell<Vec<[f32; TILE_ROWS]>>,
    bf16: OnceCell<Vec<[Bf16Pair; TILE_ROWS]>>,
    int8: OnceCell<Quantized>,
}

/// Some columns of an [`Input`].
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// `(rows, width)`
    pub values: &'a [f32],
    pub width: usize,
}

/// An input in 8-bit integers.
pub(super) struct Quantized {
    /// `(tiles, groups)`
    pub(super) levels: Vec<[[i8; GROUP]; TILE_ROWS]>,
    /// `(tiles, blocks)`
    pub(super) rows: Vec<Rows>,
}

impl<'a> Input<'a> {
    /// # Shapes
    /// - values: `(rows, width)`
    pub fn of(values: &'a [f32], width: usize) -> Self {
        Self::joined(vec![Columns { values, width }])
    }

    /// Each row of the first part, followed by the same one of the next.
    pub fn joined(parts: Vec<Columns<'a>>) -> Self {
        let n_rows = parts.first().map_or(0, |part| part.values.len() / part.width.max(1));
        let fits = |part: &Columns<'_>| part.width > 0 && part.values.len() == n_rows * part.width;
        assert!(parts.iter().all(fits), "a packed product: the input's rows are not whole");
        let rows = Joined { parts, n_rows };
        Self { rows, single: OnceCell::new(), bf16: OnceCell::new(), int8: OnceCell::new() }
    }

    /// Rows, if each has as many inputs as a weight wants.
    pub(super) fn n_rows(&self, inputs: usize) -> usize {
        assert_eq!(inputs, self.rows.width(), "a packed product: the input does not fit the weight");
        self.rows.n_rows
    }

    /// `(tiles, inputs)`
    pub(super) fn single(&self) -> &[[f32; TILE_ROWS]] {
        self.single.get_or_init(|| self.rows.units())
    }

    /// `(tiles, pairs)`
    pub(super) fn bf16(&self) -> &[[Bf16Pair; TILE_ROWS]] {
        self.bf16.get_or_init(|| self.rows.units())
    }

    pub(super) fn int8(&self) -> &Quantized {
        self.int8.get_or_init(|| {
            let (joined, width) = (&self.rows, self.rows.width());
            let (n_groups, n_blocks) = (width.div_ceil(GROUP), n_blocks(width));
            let mut levels = unspecified(joined.n_tiles() * n_groups);
            let mut rows = vec![Rows::default(); joined.n_tiles() * n_blocks];
            let work = levels.par_chunks_mut(n_groups).zip(rows.par_chunks_mut(n_blocks));
            work.enumerate().for_each(|(tile, (lines, rows))| {
                joined.for_each_block(tile, lines, GROUP, [0; GROUP], |(idx, block), row, units| {
                    let (scale, total) = quantize(row, units.as_flattened_mut());
                    rows[block].scales[idx] = scale;
                    rows[block].corrections[idx] = -OFFSET * total;
                });
            });
            Quantized { levels, rows }
        })
    }
}

/// Rows whose elements lie in several places.
struct Joined<'a> {
    parts: Vec<Columns<'a>>,
    n_rows: usize,
}

impl Joined<'_> {
    fn width(&self) -> usize {
        self.parts.iter().map(|part| part.width).sum()
    }

    fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(TILE_ROWS)
    }

    /// `(tiles, units of inputs)`
    fn units<U: Unit>(&self) -> Vec<[U; TILE_ROWS]> {
        let n_units = self.width().div_ceil(U::NUMBERS);
        let mut tiles = unspecified(self.n_tiles() * n_units);
        tiles.par_chunks_mut(n_units).enumerate().for_each(|(tile, lines)| {
            self.for_each_block(tile, lines, U::NUMBERS, U::ZERO, |_, row, units| U::along(row, units));
        });
        tiles
    }

    /// Lays out a tile's rows side by side, a block of their inputs at a time, `group` inputs to a unit: `convert` is told
    /// the row and the block, and given the inputs. What is missing in a unit, and rows that are not there, are zeros.
    #[inline(always)]
    fn for_each_block<U: Copy>(
        &self,
        tile: usize,
        lines: &mut [[U; TILE_ROWS]],
        group: usize,
        zero: U,
        mut convert: impl FnMut((usize, usize), &[f32], &mut [U]),
    ) {
        let first_row = tile * TILE_ROWS;
        let mut scratch = [0.0; BLOCK_INPUTS];
        let mut units = [zero; BLOCK_INPUTS];
        let n_rows = TILE_ROWS.min(self.n_rows - first_row);
        for (block, lines) in lines.chunks_mut(BLOCK_INPUTS / group).enumerate() {
            let first = block * BLOCK_INPUTS;
            let inputs = first..self.width().min(first + BLOCK_INPUTS);
            let units = &mut units[..lines.len()];
            for idx in 0..n_rows {
                let row = self.read(first_row + idx, inputs.clone(), &mut scratch);
                if let Some(last) = units.last_mut() {
                    *last = zero;
                }
                convert((idx, block), row, units);
                lines.iter_mut().zip(&*units).for_each(|(line, unit)| line[idx] = *unit);
            }
            lines.iter_mut().for_each(|line| line[n_rows..].fill(zero));
        }
    }

    /// Some of a row: in the scratch, if they lie in several parts.
    fn read<'s>(&'s self, row: usize, inputs: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let (mut start, n) = (inputs.start, inputs.len());
        let mut n_read = 0;
        for part in &self.parts {
            if start >= part.width {
                start -= part.width;
                continue;
            }
            let here = &part.values[row * part.width..(row + 1) * part.width][start..];
            if n_read == 0 && here.len() >= n {
                return &here[..n];
            }
            let here = &here[..here.len().min(n - n_read)];
            scratch[n_read..n_read + here.len()].copy_from_slice(here);
            n_read += here.len();
            start = 0;
            if n_read == n {
                break;
            }
        }
        &scratch[..n]
    }
}

dispatched! {
    /// A block's levels; gives what one is worth, and their sum.
    fn quantize(block: &[f32], levels: &mut [i8]) -> (f32, i32) {
        let scale = scale_of(block);
        let inverse_scale = 1.0 / scale;
        for (place, value) in levels.iter_mut().zip(block) {
            *place = level(*value, inverse_scale);
        }
        (scale, levels.iter().map(|level| i32::from(*level)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// Parts of these widths lie side by side as one matrix would.
    #[track_caller]
    fn check(n_rows: usize, widths: &[usize]) {
        let width = widths.iter().sum::<usize>();
        let parts: Vec<Vec<f32>> = (1..).zip(widths).map(|(seed, width)| numbers(n_rows * width, seed)).collect();
        let mut whole = Vec::new();
        for row in 0..n_rows {
            for (part, width) in parts.iter().zip(widths) {
                whole.extend(&part[row * width..(row + 1) * width]);
            }
        }
        let columns = parts.iter().zip(widths).map(|(values, width)| Columns { values, width: *width }).collect();
        let (joined, whole) = (Input::joined(columns), Input::of(&whole, width));
        assert_eq!((joined.single(), joined.bf16()), (whole.single(), whole.bf16()));
        let (ours, theirs) = (joined.int8(), whole.int8());
        assert_eq!(ours.levels, theirs.levels);
        assert!(
            ours.rows.iter().zip(&theirs.rows).all(|(a, b)| (a.scales, a.corrections) == (b.scales, b.corrections))
        );
    }

    #[test]
    fn parts_side_by_side_are_one_matrix() {
        check(1, &[1]);
        check(13, &[3, 4]);
        check(25, &[500, 20, 3, 700]);
        check(12, &[512, 2048]);
    }

    #[test]
    fn rows_and_inputs_that_are_not_there_are_zeros() {
        let values = numbers(13 * 5, 1);
        let input = Input::of(&values, 5);
        let (single, bf16, int8) = (input.single(), input.bf16(), input.int8());
        assert_eq!((single.len(), bf16.len(), int8.levels.len()), (2 * 5, 2 * 3, 2 * 2));
        assert_eq!(single[9][0].to_bits(), values[13 * 5 - 1].to_bits());
        assert!(single[5..].iter().all(|line| line[1..].iter().all(|x| x.to_bits() == 0)));
        assert!(bf16[2].iter().all(|pair| pair.0[0] != 0 && pair.0[1] == 0));
        assert!(int8.levels[1].iter().all(|group| group[0] != 0 && group[1..] == [0; 3]));
        assert_eq!(int8.levels[3][1..], [[0; 4]; TILE_ROWS - 1]);
    }
}
