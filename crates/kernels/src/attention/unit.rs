//! What the two products multiply at a time: one f32, or two bf16 whose products one instruction adds up.

use super::pack::Line;
use super::tile::{self, LANES, Scores, Tile};
use super::{PANEL, TILE_ROWS};
use crate::products::multiplies_bf16;

/// One lane's share of a multiplication.
pub(super) trait Unit: Copy + Send + Sync {
    /// Numbers of a unit; a panel has a whole number of units.
    const NUMBERS: usize;
    const ZERO: Self;

    /// A unit of these numbers; what is missing is zero.
    fn of(values: &[f32]) -> Self;

    fn set(&mut self, idx: usize, value: f32);

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

    fn of(values: &[f32]) -> Self {
        values[0]
    }

    fn set(&mut self, _idx: usize, value: f32) {
        *self = value;
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

    fn of(values: &[f32]) -> Self {
        Self([rounded(values[0]), values.get(1).copied().map_or(0, rounded)])
    }

    fn set(&mut self, idx: usize, value: f32) {
        self.0[idx] = rounded(value);
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

/// To the nearest bf16, to the even one of two.
fn rounded(value: f32) -> u16 {
    const QUIET_NAN: u16 = 0x7fc0;
    let bits = value.to_bits();
    let up = 0x7fff + (bits >> 16 & 1);
    if value.is_nan() { QUIET_NAN } else { ((bits + up) >> 16) as u16 }
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
    fn numbers_round_to_the_nearest_bf16() {
        for (value, bits) in
            [(1.0, 0x3f80), (-2.0, 0xc000), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (0.0, 0)]
        {
            assert_eq!(rounded(value), bits, "{value}");
        }
        assert_eq!(rounded(f32::INFINITY), 0x7f80);
        assert_eq!(rounded(f32::NAN), 0x7fc0);
        assert_eq!(Pair::of(&[1.0]).0, [0x3f80, 0]);
    }
}
