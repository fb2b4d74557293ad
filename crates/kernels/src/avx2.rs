//! The inner loops of products with AVX2, whose sixteen registers hold the sums of a few rows and half a panel.

use crate::target::PANEL;
use std::arch::x86_64::{
    __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_xor_si256,
};
use std::mem::transmute;

/// Rows of f32 that are added up at once.
const ROWS: usize = 6;
/// Rows of 8-bit integers that are added up at once: they are multiplied with more on the way.
pub(crate) const INTEGER_ROWS: usize = 4;
/// Columns that are added up at once: two vectors of eight.
pub(crate) const COLUMNS: usize = PANEL / 2;

/// What lines are multiplied by: for line `l` and row `r` the number at `l * line_stride + r * row_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) line_stride: usize,
    pub(crate) row_stride: usize,
}

/// The sums of `n_rows` rows for the first `n_columns` columns of a panel: `take` is told the row, the first of
/// [`COLUMNS`] columns, and their sums.
///
/// # Shapes
/// - lines: `(lines, PANEL)`
#[target_feature(enable = "avx2,fma")]
pub(crate) fn for_each_row<'a>(
    factors: Factors<'_>,
    lines: impl ExactSizeIterator<Item = &'a [f32; PANEL]> + Clone,
    (n_rows, n_columns): (usize, usize),
    mut take: impl FnMut(usize, usize, &[f32; COLUMNS]),
) {
    for first_row in (0..n_rows).step_by(ROWS) {
        for first_column in (0..n_columns).step_by(COLUMNS) {
            let sums = sums(factors, lines.clone(), (first_row, first_column));
            for (row, sums) in (first_row..).zip(&sums) {
                take(row, first_column, sums);
            }
        }
    }
}

/// The sums of [`ROWS`] rows from the first one on, for [`COLUMNS`] columns from the first one on.
///
/// # Shapes
/// - lines: `(lines, PANEL)`
#[target_feature(enable = "avx2,fma")]
fn sums<'a>(
    factors: Factors<'_>,
    lines: impl ExactSizeIterator<Item = &'a [f32; PANEL]>,
    first: (usize, usize),
) -> [[f32; COLUMNS]; ROWS] {
    let Factors { values, line_stride, row_stride } = factors;
    let (first_row, first_column) = first;
    let last = lines.len().saturating_sub(1) * line_stride + (first_row + ROWS - 1) * row_stride;
    assert!(last < values.len() && first_column + COLUMNS <= PANEL, "a tile does not fit");
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let mut factor = values.as_ptr().wrapping_add(first_row * row_stride);
    for line in lines {
        // SAFETY: the columns are within the line, and the assertion keeps every factor within the values.
        unsafe {
            let line = line.as_ptr().add(first_column);
            let (left, right) = (_mm256_loadu_ps(line), _mm256_loadu_ps(line.add(COLUMNS / 2)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*factor.add(row * row_stride));
                sums[0] = _mm256_fmadd_ps(x, left, sums[0]);
                sums[1] = _mm256_fmadd_ps(x, right, sums[1]);
            }
        }
        factor = factor.wrapping_add(line_stride);
    }
    // SAFETY: two vectors of eight are sixteen numbers.
    unsafe { transmute::<[[__m256; 2]; ROWS], [[f32; COLUMNS]; ROWS]>(sums) }
}

/// The same of 8-bit integers, of [`INTEGER_ROWS`] rows, four inputs of a line at a time.
///
/// # Shapes
/// - rows: `(lines, all rows)`; lines: `(lines, PANEL)`, each number 128 more than it is: the sums are of what it is
#[target_feature(enable = "avx2")]
pub(crate) fn integer_sums<'a, const ALL_ROWS: usize>(
    rows: &[[[i8; 4]; ALL_ROWS]],
    lines: impl Iterator<Item = &'a [[u8; 4]; PANEL]>,
    first: (usize, usize),
) -> [[i32; COLUMNS]; INTEGER_ROWS] {
    let (first_row, first_column) = first;
    assert!(first_row + INTEGER_ROWS <= ALL_ROWS && first_column + COLUMNS <= PANEL, "a tile does not fit");
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_si256(); 2]; INTEGER_ROWS];
    for (row, line) in rows.iter().zip(lines) {
        // SAFETY: the columns are within the line.
        let (left, right) = unsafe {
            let line = line.as_ptr().add(first_column);
            (_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(COLUMNS / 2).cast()))
        };
        let weights = [_mm256_xor_si256(left, offset), _mm256_xor_si256(right, offset)];
        let sizes = [_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])];
        for (sums, x) in sums.iter_mut().zip(&row[first_row..]) {
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|x| x as u8)));
            for ((sum, weight), size) in sums.iter_mut().zip(weights).zip(sizes) {
                // A weight's sign goes to its factor: of sizes up to 127 no pair of products overflows 16 bits.
                let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, weight));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    // SAFETY: two vectors of eight are sixteen numbers.
    unsafe { transmute::<[[__m256i; 2]; INTEGER_ROWS], [[i32; COLUMNS]; INTEGER_ROWS]>(sums) }
}
