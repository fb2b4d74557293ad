//! The inner loops: one tile of rows and one panel of a packed weight, sums in registers.

use super::{PANEL, TILE_ROWS, Tile, int8, single};

/// `sums += rows · lines`
///
/// # Shapes
/// - rows: `(lines)`, the rows of the tile side by side
pub(super) fn tile_f32(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], sums: &mut Tile<f32>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512F.
        unsafe { x86::tile_f32_avx512(rows, lines, sums) };
        return;
    }
    portable_f32(rows, lines, sums);
}

/// `sums += rows · lines`, the offset of the lines included.
///
/// # Shapes
/// - rows: `(lines)`, the rows of the tile side by side
pub(super) fn tile_int8(rows: &[[[i8; int8::GROUP]; TILE_ROWS]], lines: &[int8::Line], sums: &mut Tile<i32>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has AVX-512F and VNNI.
        unsafe { x86::tile_int8_vnni(rows, lines, sums) };
        return;
    }
    portable_int8(rows, lines, sums);
}

crate::dispatch::dispatched! {
    fn portable_f32(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], totals: &mut Tile<f32>) {
        for (idx, totals) in totals.iter_mut().enumerate() {
            let mut sums = [0.0f32; PANEL];
            for (row, line) in rows.iter().zip(lines) {
                for (sum, weight) in sums.iter_mut().zip(&line.0) {
                    *sum += row[idx] * weight;
                }
            }
            for (total, sum) in totals.iter_mut().zip(&sums) {
                *total += sum;
            }
        }
    }
}

crate::dispatch::dispatched! {
    fn portable_int8(rows: &[[[i8; int8::GROUP]; TILE_ROWS]], lines: &[int8::Line], sums: &mut Tile<i32>) {
        for (idx, sums) in sums.iter_mut().enumerate() {
            for (row, line) in rows.iter().zip(lines) {
                let x = row[idx].map(i32::from);
                for (sum, weight) in sums.iter_mut().zip(&line.0) {
                    let w = weight.map(i32::from);
                    *sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{int8, single};
    use crate::packed::{TILE_ROWS, Tile};
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_ps,
        _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) fn tile_f32_avx512(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], totals: &mut Tile<f32>) {
        let mut sums: [[__m512; 2]; TILE_ROWS] = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
        for (row, line) in rows.iter().zip(lines) {
            let line = line.0.as_ptr();
            // SAFETY: a line is two vectors long and aligned to one.
            let (left, right) = unsafe { (_mm512_load_ps(line), _mm512_load_ps(line.add(16))) };
            for (sums, x) in sums.iter_mut().zip(row) {
                let x = _mm512_set1_ps(*x);
                sums[0] = _mm512_fmadd_ps(x, left, sums[0]);
                sums[1] = _mm512_fmadd_ps(x, right, sums[1]);
            }
        }
        for (total, sums) in totals.iter_mut().zip(&sums) {
            let place = total.as_mut_ptr();
            // SAFETY: a row of the tile is two vectors long.
            unsafe {
                _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), sums[0]));
                _mm512_storeu_ps(place.add(16), _mm512_add_ps(_mm512_loadu_ps(place.add(16)), sums[1]));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn tile_int8_vnni(
        rows: &[[[i8; int8::GROUP]; TILE_ROWS]],
        lines: &[int8::Line],
        totals: &mut Tile<i32>,
    ) {
        let mut sums: [[__m512i; 2]; TILE_ROWS] = [[_mm512_setzero_si512(); 2]; TILE_ROWS];
        for (row, line) in rows.iter().zip(lines) {
            let line = line.0.as_ptr().cast::<__m512i>();
            // SAFETY: a line is two vectors long and aligned to one.
            let (left, right) = unsafe { (_mm512_load_si512(line), _mm512_load_si512(line.add(1))) };
            for (sums, x) in sums.iter_mut().zip(row) {
                let x = _mm512_set1_epi32(i32::from_ne_bytes(x.map(|level| level as u8)));
                sums[0] = _mm512_dpbusd_epi32(sums[0], left, x);
                sums[1] = _mm512_dpbusd_epi32(sums[1], right, x);
            }
        }
        for (total, sums) in totals.iter_mut().zip(&sums) {
            let place = total.as_mut_ptr().cast::<__m512i>();
            // SAFETY: a row of the tile is two vectors long.
            unsafe {
                _mm512_storeu_si512(place, _mm512_add_epi32(_mm512_loadu_si512(place), sums[0]));
                _mm512_storeu_si512(place.add(1), _mm512_add_epi32(_mm512_loadu_si512(place.add(1)), sums[1]));
            }
        }
    }
}
