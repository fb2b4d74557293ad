//! Tiles by the instructions that x86 has for 8-bit integers.

use super::Operands;
use crate::tile::{PANEL, TILE_ROWS, Tile};
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32,
    _mm256_dpbusd_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_storeu_ps, _mm256_xor_si256, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_storeu_ps,
};

/// Rows that AVX2 adds up at once.
const ROWS: usize = 4;
/// Rows that 256-bit vectors with VNNI add up at once: with two vectors each, a line's two and a factor, 15 of 16 registers.
const VNNI_ROWS: usize = 6;
/// Columns that 256-bit vectors add up at once: two of them.
const COLUMNS: usize = 16;

#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn tile_int8_vnni(operands: &Operands<'_>, totals: &mut Tile) {
    let Operands { levels, rows, lines, scales } = operands;
    let mut sums = [[_mm512_setzero_si512(); 2]; TILE_ROWS];
    for (sums, correction) in sums.iter_mut().zip(&rows.corrections) {
        *sums = [_mm512_set1_epi32(*correction); 2];
    }
    for (levels, line) in levels.iter().zip(*lines) {
        let line = line.0.as_ptr().cast::<__m512i>();
        // SAFETY: a line is two vectors long and aligned to one.
        let (left, right) = unsafe { (_mm512_load_si512(line), _mm512_load_si512(line.add(1))) };
        for (sums, x) in sums.iter_mut().zip(levels) {
            let x = _mm512_set1_epi32(i32::from_ne_bytes(x.map(|level| level as u8)));
            sums[0] = _mm512_dpbusd_epi32(sums[0], left, x);
            sums[1] = _mm512_dpbusd_epi32(sums[1], right, x);
        }
    }
    let scales = scales.as_ptr();
    // SAFETY: the scales of a panel are two vectors long.
    let scales = unsafe { [_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16))] };
    for ((total, sums), row_scale) in totals.iter_mut().zip(&sums).zip(&rows.scales) {
        let row_scale = _mm512_set1_ps(*row_scale);
        for ((place, sum), scale) in total.as_chunks_mut::<16>().0.iter_mut().zip(sums).zip(scales) {
            let place = place.as_mut_ptr();
            let scale = _mm512_mul_ps(row_scale, scale);
            // SAFETY: the place is one vector long.
            unsafe {
                let total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*sum), scale, _mm512_loadu_ps(place));
                _mm512_storeu_ps(place, total);
            }
        }
    }
}

/// Declares a tile of 256-bit vectors: AVX-VNNI and AVX-512 VNNI have the same operation, otherwise encoded, so that what
/// processors with the one run is tested on those with the other.
macro_rules! tile_int8_in_256 {
    ($name:ident, $features:literal, $add_dot_products:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(operands: &Operands<'_>, totals: &mut Tile) {
            #[inline]
            #[target_feature(enable = $features)]
            fn sums(operands: &Operands<'_>, (first_row, first_column): (usize, usize)) -> [[__m256i; 2]; VNNI_ROWS] {
                assert!(first_row + VNNI_ROWS <= TILE_ROWS && first_column + COLUMNS <= PANEL, "a tile does not fit");
                let mut sums = [[_mm256_setzero_si256(); 2]; VNNI_ROWS];
                for (sums, correction) in sums.iter_mut().zip(&operands.rows.corrections[first_row..]) {
                    *sums = [_mm256_set1_epi32(*correction); 2];
                }
                for (levels, line) in operands.levels.iter().zip(operands.lines) {
                    // SAFETY: the columns are within the line.
                    let (left, right) = unsafe {
                        let line = line.0.as_ptr().add(first_column);
                        (_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(COLUMNS / 2).cast()))
                    };
                    for (sums, x) in sums.iter_mut().zip(&levels[first_row..]) {
                        let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|level| level as u8)));
                        sums[0] = $add_dot_products(sums[0], left, x);
                        sums[1] = $add_dot_products(sums[1], right, x);
                    }
                }
                sums
            }

            for first_row in (0..TILE_ROWS).step_by(VNNI_ROWS) {
                for first_column in (0..PANEL).step_by(COLUMNS) {
                    let sums = sums(operands, (first_row, first_column));
                    add_scaled(operands, (first_row, first_column), &sums, totals);
                }
            }
        }
    };
}

tile_int8_in_256!(tile_int8_avx_vnni, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);
tile_int8_in_256!(tile_int8_vnni_in_256, "avx2,fma,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

/// Here weights are signed, so that there is nothing to correct.
#[target_feature(enable = "avx2,fma")]
pub(super) fn tile_int8_avx2(operands: &Operands<'_>, totals: &mut Tile) {
    for first_row in (0..TILE_ROWS).step_by(ROWS) {
        for first_column in (0..PANEL).step_by(COLUMNS) {
            let sums = sums_avx2(operands, (first_row, first_column));
            add_scaled(operands, (first_row, first_column), &sums, totals);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn sums_avx2(operands: &Operands<'_>, (first_row, first_column): (usize, usize)) -> [[__m256i; 2]; ROWS] {
    assert!(first_row + ROWS <= TILE_ROWS && first_column + COLUMNS <= PANEL, "a tile does not fit");
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for (levels, line) in operands.levels.iter().zip(operands.lines) {
        // SAFETY: the columns are within the line.
        let (left, right) = unsafe {
            let line = line.0.as_ptr().add(first_column);
            (_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(COLUMNS / 2).cast()))
        };
        let weights = [_mm256_xor_si256(left, offset), _mm256_xor_si256(right, offset)];
        let sizes = [_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])];
        for (sums, x) in sums.iter_mut().zip(&levels[first_row..]) {
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|x| x as u8)));
            for ((sum, weight), size) in sums.iter_mut().zip(weights).zip(sizes) {
                // A weight's sign goes to its factor: of sizes up to 127 no pair of products overflows 16 bits.
                let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, weight));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    sums
}

/// Scales the sums of some rows and columns, from the first ones on, and adds them to the totals.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_scaled<const ROWS: usize>(
    operands: &Operands<'_>,
    (first_row, first_column): (usize, usize),
    sums: &[[__m256i; 2]; ROWS],
    totals: &mut Tile,
) {
    assert!(first_column + COLUMNS <= PANEL, "a tile does not fit");
    let scales = operands.scales[first_column..].as_ptr();
    // SAFETY: the scales of a panel's columns are two vectors long.
    let scales = unsafe { [_mm256_loadu_ps(scales), _mm256_loadu_ps(scales.add(8))] };
    let rows = totals[first_row..].iter_mut().zip(sums).zip(&operands.rows.scales[first_row..]);
    for ((totals, sums), row_scale) in rows {
        let row_scale = _mm256_set1_ps(*row_scale);
        for (idx, (sum, scale)) in sums.iter().zip(scales).enumerate() {
            let scale = _mm256_mul_ps(row_scale, scale);
            // SAFETY: the columns are within the row.
            unsafe {
                let place = totals.as_mut_ptr().add(first_column + 8 * idx);
                _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, _mm256_loadu_ps(place)));
            }
        }
    }
}
