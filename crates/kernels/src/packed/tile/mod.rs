//! The inner loops: one tile of rows and one panel of a packed weight, sums in registers.

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::int8::Operands;
use super::single;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::Vnni;
use crate::dispatch::{self, dispatched};
use crate::tile::{AddTo, PANEL, PanelLine, Sums, TILE_ROWS, Tile};
use crate::unit::Unit;

/// `sums += rows · lines`
///
/// # Shapes
/// - rows: `(lines)`, the rows of the tile side by side
pub(super) fn tile<U: Unit>(rows: &[[U; TILE_ROWS]], lines: &[PanelLine<U>], sums: &mut Tile) {
    let (factors, sink) = (rows.as_flattened(), AddTo(sums));
    U::run(dispatch::level(), Sums::<_, _, TILE_ROWS, 1> { factors, lines, n_columns: PANEL, sink });
}

dispatched! {
    /// [`tile`] of the tile's first row alone, for inputs that have no other: bound by the memory that the lines come
    /// from, where a whole tile would be bound by its arithmetic.
    pub(super) fn row_f32(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], totals: &mut [f32; PANEL]) {
        let mut sums = [0.0f32; PANEL];
        for (row, line) in rows.iter().zip(lines) {
            for (sum, weight) in sums.iter_mut().zip(&line.0) {
                *sum += row[0] * weight;
            }
        }
        for (total, sum) in totals.iter_mut().zip(&sums) {
            *total += sum;
        }
    }
}

/// `sums += rows · lines`, in 8-bit integers with whole sums, which are then scaled.
pub(super) fn tile_int8(operands: &Operands<'_>, sums: &mut Tile) {
    assert_eq!(operands.levels.len(), operands.lines.len(), "a tile does not fit");
    #[cfg(target_arch = "x86_64")]
    {
        match dispatch::vnni() {
            // SAFETY: the processor has AVX-512F and AVX-512 VNNI.
            Some(Vnni::Wide) => return unsafe { x86::tile_int8_vnni(operands, sums) },
            // SAFETY: the processor has AVX2, FMA and AVX-VNNI.
            Some(Vnni::Narrow) => return unsafe { x86::tile_int8_avx_vnni(operands, sums) },
            // SAFETY: the processor has AVX2, FMA, AVX-512VL and AVX-512 VNNI.
            Some(Vnni::NarrowOfAvx512) => return unsafe { x86::tile_int8_vnni_in_256(operands, sums) },
            None => {}
        }
        if dispatch::level() >= dispatch::Level::Avx2 {
            // SAFETY: the processor has AVX2 and FMA.
            return unsafe { x86::tile_int8_avx2(operands, sums) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    if dispatch::multiplies_int8() {
        // SAFETY: the processor has the dot product.
        return unsafe { neon::tile_int8(operands, sums) };
    }
    portable_int8(operands, sums);
}

dispatched! {
    fn portable_int8(operands: &Operands<'_>, totals: &mut Tile) {
        let Operands { levels, rows, lines, scales } = operands;
        for (idx, totals) in totals.iter_mut().enumerate() {
            let mut sums = [rows.corrections[idx]; PANEL];
            for (levels, line) in levels.iter().zip(*lines) {
                let x = levels[idx].map(i32::from);
                for (sum, weight) in sums.iter_mut().zip(&line.0) {
                    let w = weight.map(i32::from);
                    *sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
                }
            }
            for ((total, sum), scale) in totals.iter_mut().zip(&sums).zip(*scales) {
                *total += *sum as f32 * (rows.scales[idx] * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::int8::{self, Rows};
    use crate::testing::numbers;

    const LINES: usize = 37;

    fn tile(seed: u32) -> Tile {
        let numbers = numbers(TILE_ROWS * PANEL, seed);
        std::array::from_fn(|row| std::array::from_fn(|idx| numbers[row * PANEL + idx]))
    }

    /// The form that this processor takes and the one that every processor can take, from the same sums.
    #[track_caller]
    fn check(here: impl Fn(&mut Tile), anywhere: impl Fn(&mut Tile)) {
        let (mut ours, mut portable) = (tile(3), tile(3));
        here(&mut ours);
        anywhere(&mut portable);
        for (ours, portable) in ours.as_flattened().iter().zip(portable.as_flattened()) {
            assert!((ours - portable).abs() < 1e-4 * portable.abs().max(1.0), "{ours} {portable}");
        }
        assert_ne!(portable, tile(3));
    }

    #[test]
    fn every_processor_adds_up_the_same_levels() {
        let groups = |n: usize, seed: u32| -> Vec<[i8; 4]> {
            numbers(4 * n, seed).as_chunks::<4>().0.iter().map(|group| group.map(|x| (x * 63.5) as i8)).collect()
        };
        let levels: Vec<[[i8; 4]; TILE_ROWS]> = groups(LINES * TILE_ROWS, 1).as_chunks().0.to_vec();
        let line =
            |line: &[[i8; 4]; PANEL]| PanelLine(line.map(|group| group.map(|x| (i32::from(x) + int8::OFFSET) as u8)));
        let lines: Vec<_> = groups(LINES * PANEL, 2).as_chunks().0.iter().map(line).collect();
        let total = |row: usize| levels.iter().flat_map(|line| line[row]).map(i32::from).sum::<i32>();
        let rows =
            Rows { scales: [0.25; TILE_ROWS], corrections: std::array::from_fn(|row| -int8::OFFSET * total(row)) };
        let scales = std::array::from_fn(|idx| idx as f32 / 4096.0);
        let operands = Operands { levels: &levels, rows: &rows, lines: &lines, scales: &scales };
        check(|sums| tile_int8(&operands, sums), |sums| portable_int8(&operands, sums));
    }
}
