//! What the two products multiply at a time: one f32, or two bf16 whose products one instruction adds up.

use super::pack::Line;
use super::tile::{self, LANES, Scores, Tile};
use super::{PANEL, TILE_ROWS};
use crate::dispatch::dispatched;
use crate::narrow::round_to_bf16;
use crate::products::multiplies_bf16;

/// One lane's share of a multiplication.
pub(super) trait Unit: Copy + Send + Sync {
    /// Numbers of a unit; a panel has a whole number of units.
    const NUMBERS: usize;
    const ZERO: Self;

    /// Units of numbers that lie one after the other; what is missing in the last one is zero.
    fn along(values: &[f32], units: &mut [Self]);

    /// Units of the numbers of one row and, if it has two, of the next.
    fn across(rows: [&[f32]; 2], units: &mut [Self]);

    /// [`tile::score`] in this format.
    fn score(rows: &[[Self; TILE_ROWS]], lines: &[Line<Self>], first_column: usize, scores: &mut Scores);

    /// Brings a block's weights into this format, where [`Unit::weigh`] reads them.
    fn settle(scores: &mut Scores, n_keys: usize);

    /// [`tile::weigh`] in this format.
    fn weigh(scores: &Scores, lines: &[Line<Self>], corrections: &[f32; LANES], sums: (usize, &mut Tile));
}

impl Unit for f32 {
    const NUMBERS: usize = 1;
    const ZERO: Self = 0.0;

    fn along(values: &[f32], units: &mut [Self]) {
        units.copy_from_slice(values);
    }

    fn across([row, _]: [&[f32]; 2], units: &mut [Self]) {
        units.copy_from_slice(row);
    }

    fn score(rows: &[[Self; TILE_ROWS]], lines: &[Line<Self>], first_column: usize, scores: &mut Scores) {
        tile::score(rows, lines, first_column, scores);
    }

    fn settle(_scores: &mut Scores, _n_keys: usize) {}

    fn weigh(scores: &Scores, lines: &[Line<Self>], corrections: &[f32; LANES], sums: (usize, &mut Tile)) {
        tile::weigh(scores, lines, corrections, sums);
    }
}

/// Two numbers in bf16. Only where the processor [multiplies them itself](multiplies_bf16).
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct Pair([u16; 2]);

impl Unit for Pair {
    const NUMBERS: usize = 2;
    const ZERO: Self = Self([0; 2]);

    fn along(values: &[f32], units: &mut [Self]) {
        let (pairs, last) = values.as_chunks();
        join_along(pairs, units);
        if let [last] = last {
            units[pairs.len()] = Self([round_to_bf16(*last), 0]);
        }
    }

    fn across([row, next]: [&[f32]; 2], units: &mut [Self]) {
        join_across(row, next, units);
    }

    fn score(rows: &[[Self; TILE_ROWS]], lines: &[Line<Self>], first_column: usize, scores: &mut Scores) {
        assert!(rows.len() == lines.len() && first_column + PANEL <= tile::ROW_STRIDE, "attend: a panel does not fit");
        assert!(multiplies_bf16(), "attend: this processor does not multiply bf16");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F and BF16.
        unsafe {
            x86::score(rows, lines, first_column, scores);
        }
    }

    fn settle(scores: &mut Scores, n_keys: usize) {
        assert!(multiplies_bf16(), "attend: this processor does not multiply bf16");
        // A unit that is half full has a weight of zero beside it.
        scores.clear_from(n_keys);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F and BF16.
        unsafe {
            x86::settle(scores, n_keys);
        }
    }

    fn weigh(scores: &Scores, lines: &[Line<Self>], corrections: &[f32; LANES], (n_columns, sums): (usize, &mut Tile)) {
        assert!(lines.len() <= tile::ROW_STRIDE, "attend: a block does not fit");
        assert!(multiplies_bf16(), "attend: this processor does not multiply bf16");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F and BF16.
        unsafe {
            match n_columns.div_ceil(LANES) {
                1 => x86::weigh::<1>(scores, lines, corrections, sums),
                _ => x86::weigh::<2>(scores, lines, corrections, sums),
            }
        }
    }
}

dispatched! {
    fn join_along(values: &[[f32; 2]], units: &mut [Pair]) {
        for (unit, pair) in units.iter_mut().zip(values) {
            *unit = Pair([round_to_bf16(pair[0]), round_to_bf16(pair[1])]);
        }
    }
}

dispatched! {
    fn join_across(row: &[f32], next: &[f32], units: &mut [Pair]) {
        for ((unit, first), second) in units.iter_mut().zip(row).zip(next) {
            *unit = Pair([round_to_bf16(*first), round_to_bf16(*second)]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Line, Pair, Scores, TILE_ROWS, Tile};
    use crate::attention::tile::ROW_STRIDE;
    use crate::attention::tile::x86::add_corrected;
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    };
    use std::mem::transmute;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn score(rows: &[[Pair; TILE_ROWS]], lines: &[Line<Pair>], first_column: usize, scores: &mut Scores) {
        let mut sums = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
        for (row, line) in rows.iter().zip(lines) {
            let line = load::<2>(line);
            for (sums, pair) in sums.iter_mut().zip(row) {
                let x = spread(*pair);
                sums[0] = _mm512_dpbf16_ps(sums[0], x, line[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, line[1]);
            }
        }
        for (row, sums) in scores.0.iter_mut().zip(&sums) {
            let row = &mut row[first_column..first_column + 2 * LANES];
            // SAFETY: what was sliced is two vectors long.
            unsafe {
                _mm512_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(LANES), sums[1]);
            }
        }
    }

    /// Every row's weights, in place: their pairs fill the first half of what they did.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn settle(scores: &mut Scores, n_keys: usize) {
        for row in &mut scores.0 {
            let n_vectors = n_keys.div_ceil(2 * LANES);
            assert!(n_vectors * 2 * LANES <= row.len(), "attend: a block does not fit");
            let row = row.as_mut_ptr();
            for idx in 0..n_vectors {
                // SAFETY: there are so many pairs of vectors; each is read before its half of the room is written.
                unsafe {
                    let (low, high) = (row.add(idx * 2 * LANES), row.add(idx * 2 * LANES + LANES));
                    let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
                    _mm512_storeu_si512(row.add(idx * LANES).cast(), transmute::<__m512bh, __m512i>(pairs));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn weigh<const VECTORS: usize>(
        scores: &Scores,
        lines: &[Line<Pair>],
        corrections: &[f32; LANES],
        tile: &mut Tile,
    ) {
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; TILE_ROWS];
        let weights = scores.0.as_ptr().cast::<Pair>();
        for (idx, line) in lines.iter().enumerate() {
            let line = load::<VECTORS>(line);
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: there are so many rows; the caller has checked that a row has a place for every line, and has
                // settled the weights.
                let weight = spread(unsafe { *weights.add(row * ROW_STRIDE + idx) });
                for (sum, line) in sums.iter_mut().zip(line) {
                    *sum = _mm512_dpbf16_ps(*sum, weight, line);
                }
            }
        }
        add_corrected(tile, &sums, corrections);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn spread(pair: Pair) -> __m512bh {
        // SAFETY: both are as long, and any bits are bf16.
        unsafe { transmute(_mm512_set1_epi32(transmute::<Pair, i32>(pair))) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load<const VECTORS: usize>(line: &Line<Pair>) -> [__m512bh; VECTORS] {
        const { assert!(VECTORS <= 2) };
        // SAFETY: a line is two vectors long, and any bits are bf16.
        std::array::from_fn(|idx| unsafe { transmute(_mm512_loadu_si512(line.0.as_ptr().add(idx * LANES).cast())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hold_what_lies_side_by_side_and_what_lies_below() {
        let (row, next) = ([1.0, -2.0, 0.5], [4.0, 0.0, -1.0]);
        let mut along = [Pair::ZERO; 2];
        Pair::along(&row, &mut along);
        assert_eq!(along.map(|pair| pair.0), [[0x3f80, 0xc000], [0x3f00, 0]]);
        let mut across = [Pair::ZERO; 3];
        Pair::across([&row, &next], &mut across);
        assert_eq!(across.map(|pair| pair.0), [[0x3f80, 0x4080], [0xc000, 0], [0x3f00, 0xbf80]]);
    }
}
