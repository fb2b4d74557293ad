//! The inner loops: a tile of queries meets a block of keys, softens its scores, and weighs the block's values.

use super::KEY_BLOCK_MAX;
use crate::dispatch::{self, dispatched};
use crate::lanes::{LANES, Lanes, Task};
use crate::math;
use crate::tile::{PANEL, PanelLine, Sink, Sums, TILE_ROWS, Tile};
use crate::unit::{Unit, in_places};
use std::marker::PhantomData;

/// Scores of a row, and room that keeps rows from being a power of two apart, where they would share a cache's sets.
const ROW_STRIDE: usize = KEY_BLOCK_MAX + LANES;

/// A tile's scores of one block of keys, which become weights.
#[repr(C, align(64))]
pub(super) struct Scores([[f32; ROW_STRIDE]; TILE_ROWS]);

impl Scores {
    pub(super) fn new() -> Self {
        Self([[0.0; ROW_STRIDE]; TILE_ROWS])
    }

    pub(super) fn rows(&mut self, n_keys: usize) -> impl Iterator<Item = &mut [f32]> {
        self.0.iter_mut().map(move |row| &mut row[..n_keys])
    }

    /// Takes the rest of the last vector out of the softmax.
    pub(super) fn hide_from(&mut self, n_keys: usize) {
        for row in &mut self.0 {
            row[n_keys..n_keys.next_multiple_of(LANES)].fill(f32::NEG_INFINITY);
        }
    }

    /// Brings every row's weights into the units in which [`weigh`] reads them: a row's first places.
    pub(super) fn settle<U: Unit>(&mut self, n_keys: usize) {
        if U::NUMBERS == 2 {
            U::run(dispatch::level(), Settle::<U> { scores: self, n_keys, unit: PhantomData });
        }
    }
}

struct Settle<'a, U> {
    scores: &'a mut Scores,
    n_keys: usize,
    unit: PhantomData<U>,
}

impl<U: Unit> Task for Settle<'_, U> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for row in &mut self.scores.0 {
            let (places, _) = row.as_chunks_mut::<LANES>();
            for idx in 0..self.n_keys.div_ceil(2 * LANES) {
                let numbers = [lanes.load_numbers(&places[2 * idx]), lanes.load_numbers(&places[2 * idx + 1])];
                lanes.store_numbers(U::join(lanes, lanes.unzip(numbers)), &mut places[idx]);
            }
        }
    }
}

/// The online softmax of a tile's rows; those beyond the tile fill a vector.
pub(super) struct Softmax {
    maxima: [f32; LANES],
    pub(super) sums: [f32; LANES],
}

impl Softmax {
    pub(super) fn new() -> Self {
        Self { maxima: [f32::NEG_INFINITY; LANES], sums: [0.0; LANES] }
    }

    /// Turns scores into weights relative to the new maxima. What was summed under the old ones is to be multiplied by
    /// the factors that it returns: 1 where a maximum did not move.
    pub(super) fn absorb(&mut self, scores: &mut Scores, n_keys: usize) -> [f32; LANES] {
        let n_lanes = n_keys.next_multiple_of(LANES);
        #[cfg(target_arch = "x86_64")]
        if dispatch::level() >= dispatch::Level::Avx512 {
            // SAFETY: the processor has AVX-512F.
            return unsafe { x86::absorb_avx512(self, scores, n_lanes) };
        }
        portable_absorb(self, scores, n_lanes)
    }
}

/// `scores = rows · lines` for one panel of keys.
///
/// # Shapes
/// - rows: `(units of dim)`, the queries of the tile side by side; lines: `(units of dim)`
pub(super) fn score<U: Unit>(
    rows: &[[U; TILE_ROWS]],
    lines: &[PanelLine<U>],
    first_column: usize,
    scores: &mut Scores,
) {
    assert!(rows.len() == lines.len() && first_column + PANEL <= ROW_STRIDE, "attend: a panel does not fit");
    let (factors, sink) = (rows.as_flattened(), ScoreSink { scores, first_column });
    U::run(dispatch::level(), Sums::<_, _, TILE_ROWS, 1> { factors, lines, n_columns: PANEL, sink });
}

struct ScoreSink<'a> {
    scores: &'a mut Scores,
    first_column: usize,
}

impl Sink for ScoreSink<'_> {
    #[inline(always)]
    fn take<L: Lanes>(&mut self, lanes: L, row: usize, column: usize, sums: L::Vector) {
        if let Some(place) = self.scores.0[row][self.first_column + column..].first_chunk_mut() {
            lanes.store_numbers(sums, place);
        }
    }
}

/// `sums = sums * corrections + scores · lines` for the first columns of one panel of values.
///
/// # Shapes
/// - lines: `(units of keys)`, for scores that have [settled](Scores::settle)
pub(super) fn weigh<U: Unit>(
    scores: &Scores,
    lines: &[PanelLine<U>],
    corrections: &[f32; LANES],
    (n_columns, sums): (usize, &mut Tile),
) {
    assert!(lines.len() <= ROW_STRIDE, "attend: a block does not fit");
    let (factors, sink) = (in_places(scores.0.as_flattened()), WeighSink { totals: sums, corrections });
    U::run(dispatch::level(), Sums::<_, _, 1, ROW_STRIDE> { factors, lines, n_columns, sink });
}

struct WeighSink<'a> {
    totals: &'a mut Tile,
    corrections: &'a [f32; LANES],
}

impl Sink for WeighSink<'_> {
    #[inline(always)]
    fn take<L: Lanes>(&mut self, lanes: L, row: usize, column: usize, sums: L::Vector) {
        if let Some(place) = self.totals[row][column..].first_chunk_mut() {
            let total = lanes.mul_add(lanes.load_numbers(place), lanes.splat(self.corrections[row]), sums);
            lanes.store_numbers(total, place);
        }
    }
}

dispatched! {
    /// `values += factor * added`
    pub(super) fn add_scaled(values: &mut [f32], added: &[f32], factor: f32) {
        for (value, added) in values.iter_mut().zip(added) {
            *value += factor * added;
        }
    }
}

dispatched! {
    /// Divides every row by a number of its own.
    pub(super) fn divide(tile: &mut Tile, divisors: &[f32; LANES]) {
        for (row, divisor) in tile.iter_mut().zip(divisors) {
            let factor = 1.0 / divisor;
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

dispatched! {
    fn portable_absorb(softmax: &mut Softmax, scores: &mut Scores, n_lanes: usize) -> [f32; LANES] {
        let mut corrections = [1.0; LANES];
        for (row, scores) in scores.0.iter_mut().enumerate() {
            let mut highest = [f32::NEG_INFINITY; LANES];
            for chunk in scores[..n_lanes].chunks_exact(LANES) {
                for (highest, score) in highest.iter_mut().zip(chunk) {
                    *highest = if *score > *highest { *score } else { *highest };
                }
            }
            let maximum = highest.iter().copied().fold(softmax.maxima[row], f32::max);
            // While nothing is visible there is no weight, and not a NaN.
            let base = if maximum == f32::NEG_INFINITY { 0.0 } else { maximum };
            corrections[row] = math::exp2(softmax.maxima[row] - base);
            let mut sums = [0.0f32; LANES];
            for chunk in scores[..n_lanes].chunks_exact_mut(LANES) {
                for (score, sum) in chunk.iter_mut().zip(&mut sums) {
                    *score = math::exp2(*score - base);
                    *sum += *score;
                }
            }
            softmax.maxima[row] = maximum;
            softmax.sums[row] = softmax.sums[row] * corrections[row] + sums.iter().sum::<f32>();
        }
        corrections
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Scores, Softmax};
    use crate::lanes;
    use std::arch::x86_64::{
        __m512, _CMP_EQ_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_mov_ps,
        _mm512_max_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) fn absorb_avx512(softmax: &mut Softmax, scores: &mut Scores, n_lanes: usize) -> [f32; LANES] {
        let mut highest = [f32::NEG_INFINITY; LANES];
        for (highest, scores) in highest.iter_mut().zip(&scores.0) {
            let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
            let maximum = vectors(&scores[..n_lanes]).fold(lowest, |maximum, score| _mm512_max_ps(score, maximum));
            *highest = _mm512_reduce_max_ps(maximum);
        }
        // SAFETY: both are a vector long.
        let (old, highest) = unsafe { (_mm512_loadu_ps(softmax.maxima.as_ptr()), _mm512_loadu_ps(highest.as_ptr())) };
        let maxima = _mm512_max_ps(old, highest);
        // While nothing is visible there is no weight, and not a NaN.
        let is_blind = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(maxima, _mm512_set1_ps(f32::NEG_INFINITY));
        let bases = array(_mm512_mask_mov_ps(maxima, is_blind, _mm512_setzero_ps()));
        let mut sums = [0.0; LANES];
        for ((scores, base), sum) in scores.0.iter_mut().zip(bases).zip(&mut sums) {
            let base = _mm512_set1_ps(base);
            let mut weights = _mm512_setzero_ps();
            for scores in scores[..n_lanes].chunks_exact_mut(LANES) {
                // SAFETY: the chunk is a vector long.
                unsafe {
                    let weight = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores.as_ptr()), base));
                    weights = _mm512_add_ps(weights, weight);
                    _mm512_storeu_ps(scores.as_mut_ptr(), weight);
                }
            }
            *sum = _mm512_reduce_add_ps(weights);
        }
        softmax.maxima = array(maxima);
        // SAFETY: all are a vector long.
        let (bases, old_sums, sums) = unsafe {
            let old_sums = _mm512_loadu_ps(softmax.sums.as_ptr());
            (_mm512_loadu_ps(bases.as_ptr()), old_sums, _mm512_loadu_ps(sums.as_ptr()))
        };
        let corrections = exp2(_mm512_sub_ps(old, bases));
        softmax.sums = array(_mm512_fmadd_ps(old_sums, corrections, sums));
        array(corrections)
    }

    /// [`crate::math::exp2`]
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn exp2(x: __m512) -> __m512 {
        // What comes out of the clamp is 0 at the lower end; a NaN passes, since it is the second operand.
        let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
        // SAFETY: the processor has AVX-512F.
        unsafe { lanes::x86::exp2(x) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn vectors(values: &[f32]) -> impl Iterator<Item = __m512> {
        // SAFETY: a chunk is a vector long.
        values.chunks_exact(LANES).map(|chunk| unsafe { _mm512_loadu_ps(chunk.as_ptr()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn array(vector: __m512) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        // SAFETY: the array is a vector long.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), vector) };
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;
    use crate::unit::Bf16Pair;

    const DIM: usize = 40;
    const N_KEYS: usize = 45;

    type Absorb = fn(&mut Softmax, &mut Scores, usize) -> [f32; LANES];

    fn lines(n: usize, seed: u32) -> Vec<PanelLine<f32>> {
        numbers(n * PANEL, seed).chunks_exact(PANEL).map(|line| PanelLine(line.try_into().unwrap())).collect()
    }

    fn some_scores(seed: u32) -> Scores {
        let mut scores = Scores::new();
        let values = numbers(TILE_ROWS * N_KEYS, seed);
        scores.rows(N_KEYS).zip(values.chunks(N_KEYS)).for_each(|(row, values)| row.copy_from_slice(values));
        scores.hide_from(N_KEYS);
        scores
    }

    /// The form that this processor takes, and the portable one.
    const ABSORBS: [Absorb; 2] =
        [Softmax::absorb, |softmax, scores, n_keys| portable_absorb(softmax, scores, n_keys.next_multiple_of(LANES))];

    #[test]
    fn scores_are_products() {
        let rows: Vec<[f32; TILE_ROWS]> = numbers(DIM * TILE_ROWS, 1).as_chunks().0.to_vec();
        let lines = lines(DIM, 2);
        let mut scores = Scores::new();
        score(&rows, &lines, PANEL, &mut scores);
        for (row, scores) in scores.0.iter().enumerate() {
            for key in 0..PANEL {
                let product =
                    |(x, line): (&[f32; TILE_ROWS], &PanelLine<f32>)| f64::from(x[row]) * f64::from(line.0[key]);
                let exact: f64 = rows.iter().zip(&lines).map(product).sum();
                assert!((f64::from(scores[PANEL + key]) - exact).abs() < 1e-5, "row {row}, key {key}");
            }
        }
    }

    #[test]
    fn weighing_corrects_what_was_there() {
        let (scores, lines, corrections) = (some_scores(3), lines(N_KEYS, 4), numbers(LANES, 5));
        for n_columns in [PANEL, LANES] {
            let mut sums = [[3.0; PANEL]; TILE_ROWS];
            weigh(&scores, &lines, &corrections.clone().try_into().unwrap(), (n_columns, &mut sums));
            for (row, sums) in sums.iter().enumerate() {
                for (column, sum) in sums[..n_columns].iter().enumerate() {
                    let weighed = scores.0[row].iter().zip(&lines);
                    let weighed = weighed.map(|(weight, line)| f64::from(*weight) * f64::from(line.0[column]));
                    let exact = 3.0 * f64::from(corrections[row]) + weighed.sum::<f64>();
                    assert!((f64::from(*sum) - exact).abs() < 2e-5, "row {row}, column {column}");
                }
            }
        }
    }

    #[test]
    fn settled_weights_are_pairs_in_the_first_places() {
        let (plain, mut scores) = (some_scores(3), some_scores(3));
        // As the softmax leaves them.
        scores.0.iter_mut().for_each(|row| row[N_KEYS..].fill(0.0));
        scores.settle::<Bf16Pair>(N_KEYS);
        for (row, plain) in scores.0.iter().zip(&plain.0) {
            let pairs: &[Bf16Pair] = in_places(&row[..N_KEYS.div_ceil(2)]);
            for (idx, value) in plain[..N_KEYS].iter().enumerate() {
                let settled = f32::from_bits(u32::from(pairs[idx / 2].0[idx % 2]) << 16);
                assert!((settled - value).abs() <= value.abs() / 256.0, "{settled} instead of {value}");
            }
            assert_eq!(pairs[N_KEYS / 2].0[1], 0);
        }
    }

    #[test]
    fn every_form_of_the_softmax_gives_weights_sums_and_corrections() {
        for absorb in ABSORBS {
            let mut softmax = Softmax::new();
            let mut past = [(f64::NEG_INFINITY, 0.0); TILE_ROWS];
            for seed in [6, 7, 8] {
                let scores = some_scores(seed);
                let mut weights = some_scores(seed);
                let corrections = absorb(&mut softmax, &mut weights, N_KEYS);
                for (row, (maximum, sum)) in past.iter_mut().enumerate() {
                    let row_scores = scores.0[row][..N_KEYS].iter().map(|score| f64::from(*score));
                    let new_maximum = row_scores.clone().fold(*maximum, f64::max);
                    let correction = (*maximum - new_maximum).exp2();
                    let exact = row_scores.map(|score| (score - new_maximum).exp2());
                    (*maximum, *sum) = (new_maximum, *sum * correction + exact.clone().sum::<f64>());
                    assert!((f64::from(corrections[row]) - correction).abs() < 1e-6, "row {row}");
                    assert!((f64::from(softmax.sums[row]) - *sum).abs() < 1e-5, "row {row}");
                    for (weight, exact) in weights.0[row].iter().zip(exact) {
                        assert!((f64::from(*weight) - exact).abs() < 1e-6, "row {row}: {weight} instead of {exact}");
                    }
                    assert!(weights.0[row][N_KEYS..].iter().all(|weight| *weight == 0.0), "row {row}");
                }
            }
        }
    }

    #[test]
    fn what_is_hidden_has_no_weight_and_what_is_no_number_is_not_hidden() {
        for absorb in ABSORBS {
            let (mut softmax, mut scores) = (Softmax::new(), some_scores(9));
            scores.0[0].fill(f32::NEG_INFINITY);
            scores.0[1][3] = f32::NAN;
            absorb(&mut softmax, &mut scores, N_KEYS);
            assert!(scores.0[0][..N_KEYS].iter().all(|weight| *weight == 0.0) && softmax.sums[0] == 0.0);
            assert!(softmax.sums[1].is_nan());
        }
    }
}
