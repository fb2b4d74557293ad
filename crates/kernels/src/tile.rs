//! Tiles of products: the sums of a few rows for a panel of columns, which stay in registers while the rows' factors and
//! the panel's lines pass by.

use crate::lanes::{LANES, Lanes, Room, Task};
use crate::memory::Plain;
use crate::unit::Unit;

/// Columns of a panel: two vectors.
pub(crate) const PANEL: usize = 2 * LANES;
/// Rows of a tile: with two vectors of sums each, they and a panel's line fill the 32 registers of AVX-512.
pub(crate) const TILE_ROWS: usize = 12;

/// Sums of a panel's columns.
pub(crate) type Tile = [[f32; PANEL]; TILE_ROWS];

/// What one step of a product meets side by side: a unit of every column.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct PanelLine<U>(pub(crate) [U; PANEL]);

// SAFETY: numbers side by side, as many as fill the line to its alignment.
unsafe impl Plain for PanelLine<f32> {
    const ODD: Self = Self([f32::ODD; PANEL]);
}

/// The products of a tile's rows and a panel's lines, added up in f32.
///
/// The factor of line `l` and row `r` is number `l * LINE_STRIDE + r * ROW_STRIDE`.
pub(crate) struct Sums<'a, U, S, const LINE_STRIDE: usize, const ROW_STRIDE: usize> {
    pub(crate) factors: &'a [U],
    pub(crate) lines: &'a [PanelLine<U>],
    /// The first columns of the panel that are wanted; perhaps a few more are computed.
    pub(crate) n_columns: usize,
    pub(crate) sink: S,
}

/// What becomes of the sums. Its function must be `#[inline(always)]`.
pub(crate) trait Sink {
    /// Takes the sums of one row and of a vector's columns, from `column` on.
    fn take<L: Lanes>(&mut self, lanes: L, row: usize, column: usize, sums: L::Vector);
}

/// Adds the sums to what was there.
pub(crate) struct AddTo<'a>(pub(crate) &'a mut Tile);

impl Sink for AddTo<'_> {
    #[inline(always)]
    fn take<L: Lanes>(&mut self, lanes: L, row: usize, column: usize, sums: L::Vector) {
        if let Some(place) = self.0[row][column..].first_chunk_mut() {
            lanes.store_numbers(lanes.add(lanes.load_numbers(place), sums), place);
        }
    }
}

impl<U: Unit, S: Sink, const LINE_STRIDE: usize, const ROW_STRIDE: usize> Task
    for Sums<'_, U, S, LINE_STRIDE, ROW_STRIDE>
{
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match L::ROOM {
            Room::TwentyFour if self.n_columns > LANES => self.compute::<L, TILE_ROWS, 2>(lanes),
            Room::TwentyFour => self.compute::<L, TILE_ROWS, 1>(lanes),
            Room::Six => self.compute::<L, 6, 1>(lanes),
        }
    }
}

impl<U: Unit, S: Sink, const LINE_STRIDE: usize, const ROW_STRIDE: usize> Sums<'_, U, S, LINE_STRIDE, ROW_STRIDE> {
    #[inline(always)]
    fn compute<L: Lanes, const ROWS: usize, const VECTORS: usize>(self, lanes: L) {
        const { assert!(TILE_ROWS.is_multiple_of(ROWS) && PANEL.is_multiple_of(VECTORS * LANES)) };
        const { assert!(size_of::<U>() == size_of::<f32>() && align_of::<U>() == align_of::<f32>()) };
        let Self { factors, lines, n_columns, mut sink } = self;
        let n_factors = lines.len().saturating_sub(1) * LINE_STRIDE + (TILE_ROWS - 1) * ROW_STRIDE + 1;
        assert!(factors.len() >= n_factors && n_columns <= PANEL, "a tile does not fit");
        for first_row in (0..TILE_ROWS).step_by(ROWS) {
            for first_column in (0..n_columns).step_by(VECTORS * LANES) {
                let mut sums = [[lanes.splat(0.0); VECTORS]; ROWS];
                let mut factor = factors.as_ptr().cast::<f32>().wrapping_add(first_row * ROW_STRIDE);
                for line in lines {
                    let mut values = [lanes.splat(0.0); VECTORS];
                    for (idx, value) in values.iter_mut().enumerate() {
                        // SAFETY: a step takes whole vectors of units, of which a panel has a whole number; a unit is as
                        // long as a number, lies where one can, and any bits are one.
                        *value =
                            lanes.load_numbers(unsafe { &*line.0.as_ptr().add(first_column + idx * LANES).cast() });
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the assertion above keeps the factor of every line and row within the factors; and as
                        // above.
                        let factor = lanes.splat(unsafe { *factor.add(row * ROW_STRIDE) });
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = U::add_product(lanes, factor, value, *sum);
                        }
                    }
                    factor = factor.wrapping_add(LINE_STRIDE);
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (idx, sums) in sums.into_iter().enumerate() {
                        sink.take(lanes, first_row + row, first_column + idx * LANES, sums);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Level;
    use crate::testing::numbers;
    use crate::unit::Bf16Pair;

    const N_LINES: usize = 37;
    /// Rows that lie one after the other, with some room between them.
    const LONG: usize = N_LINES + 3;

    fn units<U: Unit>(n: usize, seed: u32) -> Vec<U> {
        let mut units = vec![U::ZERO; n];
        U::along(&numbers(n * U::NUMBERS, seed), &mut units);
        units
    }

    /// The sums of every instruction set, of both layouts of the factors, against the definition in f64.
    #[track_caller]
    fn check<U: Unit>(values: impl Fn(U) -> Vec<f64>) {
        let lines: Vec<_> = units(N_LINES * PANEL, 1).as_chunks().0.iter().map(|line| PanelLine(*line)).collect();
        let interleaved: Vec<U> = units(N_LINES * TILE_ROWS, 2);
        let mut apart = vec![U::ZERO; TILE_ROWS * LONG];
        for (idx, unit) in interleaved.iter().enumerate() {
            apart[idx % TILE_ROWS * LONG + idx / TILE_ROWS] = *unit;
        }
        let exact = |row: usize, column: usize| -> f64 {
            let product = |line: usize| -> f64 {
                let (a, b) = (values(interleaved[line * TILE_ROWS + row]), values(lines[line].0[column]));
                a.iter().zip(&b).map(|(a, b)| a * b).sum()
            };
            1.0 + (0..N_LINES).map(product).sum::<f64>()
        };
        for level in Level::ALL {
            for n_columns in [LANES, PANEL] {
                let mut sums = [[[1.0; PANEL]; TILE_ROWS]; 2];
                let [ours, theirs] = &mut sums;
                let lines = &lines[..];
                U::run(
                    *level,
                    Sums::<_, _, TILE_ROWS, 1> { factors: &interleaved, lines, n_columns, sink: AddTo(ours) },
                );
                U::run(*level, Sums::<_, _, 1, LONG> { factors: &apart, lines, n_columns, sink: AddTo(theirs) });
                for (row, column) in (0..TILE_ROWS).flat_map(|row| (0..n_columns).map(move |column| (row, column))) {
                    for sums in &sums {
                        let off = (f64::from(sums[row][column]) - exact(row, column)).abs();
                        assert!(off < 1e-5, "{level:?}, {n_columns} columns: row {row}, column {column} by {off:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_adds_up_the_same_single_numbers() {
        check(|unit: f32| vec![f64::from(unit)]);
    }

    #[test]
    fn every_instruction_set_adds_up_the_same_bf16() {
        check(|unit: Bf16Pair| unit.0.iter().map(|bits| f64::from(f32::from_bits(u32::from(*bits) << 16))).collect());
    }

    #[test]
    #[should_panic(expected = "a tile does not fit")]
    fn factors_that_are_too_few_are_refused() {
        let (factors, lines, mut tile) = ([0.0; TILE_ROWS], [PanelLine([0.0; PANEL]); 2], [[0.0; PANEL]; TILE_ROWS]);
        let sink = AddTo(&mut tile);
        let sums = Sums::<f32, _, TILE_ROWS, 1> { factors: &factors, lines: &lines, n_columns: PANEL, sink };
        f32::run(Level::Portable, sums);
    }
}
