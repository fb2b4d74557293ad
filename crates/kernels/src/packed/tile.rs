//! The inner loops: one tile of rows and one panel of a packed weight, sums in registers.

use super::int8::Operands;
use super::{PANEL, TILE_ROWS, Tile, bf16, single};
use crate::dispatch::dispatched;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{self, Level};
use crate::narrow::Format;
use crate::products::multiplies_bf16;

/// `sums += rows · lines`
///
/// # Shapes
/// - rows: `(lines)`, the rows of the tile side by side
pub(super) fn tile_f32(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], sums: &mut Tile<f32>) {
    #[cfg(target_arch = "x86_64")]
    match dispatch::level() {
        // SAFETY: the processor has AVX-512F.
        Level::Avx512 => return unsafe { x86::tile_f32_avx512(rows, lines, sums) },
        // SAFETY: the processor has AVX2 and FMA.
        Level::Avx2 => return unsafe { avx2::tile_f32(rows, lines, sums) },
        Level::Portable => {}
    }
    portable_f32(rows, lines, sums);
}

dispatched! {
    /// [`tile_f32`] of the tile's first row alone, for inputs that have no other: bound by the memory that the lines come
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

/// `sums += rows · lines`, in bf16 with sums in f32.
///
/// # Shapes
/// - rows: `(lines)`, the rows of the tile side by side
pub(super) fn tile_bf16(rows: &[[[u16; bf16::PAIR]; TILE_ROWS]], lines: &[bf16::Line], sums: &mut Tile<f32>) {
    #[cfg(target_arch = "x86_64")]
    if multiplies_bf16() {
        // SAFETY: the processor has AVX-512F and BF16.
        unsafe { x86::tile_bf16_avx512(rows, lines, sums) };
        return;
    }
    portable_bf16(rows, lines, sums);
}

/// `sums += rows · lines`, in 8-bit integers with whole sums, which are then scaled.
pub(super) fn tile_int8(operands: &Operands<'_>, sums: &mut Tile<f32>) {
    #[cfg(target_arch = "x86_64")]
    {
        if dispatch::has_vnni() {
            // SAFETY: the processor has AVX-512F and VNNI.
            return unsafe { x86::tile_int8_vnni(operands, sums) };
        }
        if dispatch::level() >= Level::Avx2 {
            // SAFETY: the processor has AVX2.
            return unsafe { avx2::tile_int8(operands, sums) };
        }
    }
    portable_int8(operands, sums);
}

dispatched! {
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

dispatched! {
    fn portable_bf16(rows: &[[[u16; bf16::PAIR]; TILE_ROWS]], lines: &[bf16::Line], totals: &mut Tile<f32>) {
        let widen = |bits: u16| Format::Bf16.value(bits);
        for (idx, totals) in totals.iter_mut().enumerate() {
            let mut sums = [0.0f32; PANEL];
            for (row, line) in rows.iter().zip(lines) {
                let x = row[idx].map(widen);
                for (sum, weight) in sums.iter_mut().zip(&line.0) {
                    *sum += x[0] * widen(weight[0]) + x[1] * widen(weight[1]);
                }
            }
            for (total, sum) in totals.iter_mut().zip(&sums) {
                *total += sum;
            }
        }
    }
}

dispatched! {
    fn portable_int8(operands: &Operands<'_>, totals: &mut Tile<f32>) {
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Operands, single};
    use crate::avx2::{COLUMNS, Factors, INTEGER_ROWS, for_each_row, integer_sums};
    use crate::packed::{PANEL, TILE_ROWS, Tile};

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn tile_f32(rows: &[[f32; TILE_ROWS]], lines: &[single::Line], totals: &mut Tile<f32>) {
        let factors = Factors { values: rows.as_flattened(), line_stride: TILE_ROWS, row_stride: 1 };
        for_each_row(factors, lines.iter().map(|line| &line.0), (TILE_ROWS, PANEL), |row, first, sums| {
            totals[row][first..].iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        });
    }

    /// Here weights are signed, so that there is nothing to correct.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn tile_int8(operands: &Operands<'_>, totals: &mut Tile<f32>) {
        let Operands { levels, rows, lines, scales } = operands;
        for (totals, first_row) in totals.chunks_exact_mut(INTEGER_ROWS).zip((0..).step_by(INTEGER_ROWS)) {
            for first in (0..PANEL).step_by(COLUMNS) {
                let sums = integer_sums(levels, lines.iter().map(|line| &line.0), (first_row, first));
                for ((totals, sums), row_scale) in totals.iter_mut().zip(sums).zip(&rows.scales[first_row..]) {
                    let totals = totals[first..].iter_mut().zip(sums).zip(&scales[first..]);
                    totals.for_each(|((total, sum), scale)| *total += sum as f32 * (row_scale * scale));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Operands, bf16, single};
    use crate::packed::{TILE_ROWS, Tile};
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
        _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
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
        add_to(totals, &sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn tile_bf16_avx512(
        rows: &[[[u16; bf16::PAIR]; TILE_ROWS]],
        lines: &[bf16::Line],
        totals: &mut Tile<f32>,
    ) {
        let mut sums: [[__m512; 2]; TILE_ROWS] = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
        for (row, line) in rows.iter().zip(lines) {
            let line = line.0.as_ptr().cast::<__m512bh>();
            // SAFETY: a line is two vectors long and aligned to one.
            let (left, right) = unsafe { (line.read(), line.add(1).read()) };
            for (sums, x) in sums.iter_mut().zip(row) {
                let pair = i32::from(x[0]) | i32::from(x[1]) << 16;
                // SAFETY: both are 512 bits, and any bits are bf16.
                let x: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(pair)) };
                sums[0] = _mm512_dpbf16_ps(sums[0], left, x);
                sums[1] = _mm512_dpbf16_ps(sums[1], right, x);
            }
        }
        add_to(totals, &sums);
    }

    #[target_feature(enable = "avx512f")]
    fn add_to(totals: &mut Tile<f32>, sums: &[[__m512; 2]; TILE_ROWS]) {
        for (total, sums) in totals.iter_mut().zip(sums) {
            let place = total.as_mut_ptr();
            // SAFETY: a row of the tile is two vectors long.
            unsafe {
                _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), sums[0]));
                _mm512_storeu_ps(place.add(16), _mm512_add_ps(_mm512_loadu_ps(place.add(16)), sums[1]));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn tile_int8_vnni(operands: &Operands<'_>, totals: &mut Tile<f32>) {
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
}

#[cfg(test)]
mod tests {
    use super::super::int8::{self, Rows};
    use super::*;
    use crate::testing::numbers;

    const LINES: usize = 37;

    fn tile(seed: u32) -> Tile<f32> {
        let numbers = numbers(TILE_ROWS * PANEL, seed);
        std::array::from_fn(|row| std::array::from_fn(|idx| numbers[row * PANEL + idx]))
    }

    /// The form that this processor takes and the one that every processor can take, from the same sums.
    #[track_caller]
    fn check(here: impl Fn(&mut Tile<f32>), anywhere: impl Fn(&mut Tile<f32>)) {
        let (mut ours, mut portable) = (tile(3), tile(3));
        here(&mut ours);
        anywhere(&mut portable);
        for (ours, portable) in ours.as_flattened().iter().zip(portable.as_flattened()) {
            assert!((ours - portable).abs() < 1e-4 * portable.abs().max(1.0), "{ours} {portable}");
        }
        assert_ne!(portable, tile(3));
    }

    #[test]
    fn every_processor_adds_up_the_same_single_numbers() {
        let rows: Vec<[f32; TILE_ROWS]> = numbers(LINES * TILE_ROWS, 1).as_chunks().0.to_vec();
        let lines: Vec<_> = numbers(LINES * PANEL, 2).as_chunks().0.iter().map(|line| single::Line(*line)).collect();
        check(|sums| tile_f32(&rows, &lines, sums), |sums| portable_f32(&rows, &lines, sums));
    }

    #[test]
    fn every_processor_adds_up_the_same_bf16() {
        let bits = |x: f32| (x.to_bits() >> 16) as u16;
        let pairs = |n: usize, seed: u32| -> Vec<[u16; 2]> {
            numbers(2 * n, seed).as_chunks::<2>().0.iter().map(|pair| pair.map(bits)).collect()
        };
        let rows: Vec<[[u16; 2]; TILE_ROWS]> = pairs(LINES * TILE_ROWS, 1).as_chunks().0.to_vec();
        let lines: Vec<_> = pairs(LINES * PANEL, 2).as_chunks().0.iter().map(|line| bf16::Line(*line)).collect();
        check(|sums| tile_bf16(&rows, &lines, sums), |sums| portable_bf16(&rows, &lines, sums));
    }

    #[test]
    fn every_processor_adds_up_the_same_levels() {
        let groups = |n: usize, seed: u32| -> Vec<[i8; 4]> {
            numbers(4 * n, seed).as_chunks::<4>().0.iter().map(|group| group.map(|x| (x * 63.5) as i8)).collect()
        };
        let levels: Vec<[[i8; 4]; TILE_ROWS]> = groups(LINES * TILE_ROWS, 1).as_chunks().0.to_vec();
        let line =
            |line: &[[i8; 4]; PANEL]| int8::Line(line.map(|group| group.map(|x| (i32::from(x) + int8::OFFSET) as u8)));
        let lines: Vec<_> = groups(LINES * PANEL, 2).as_chunks().0.iter().map(line).collect();
        let total = |row: usize| levels.iter().flat_map(|line| line[row]).map(i32::from).sum::<i32>();
        let rows =
            Rows { scales: [0.25; TILE_ROWS], corrections: std::array::from_fn(|row| -int8::OFFSET * total(row)) };
        let scales = std::array::from_fn(|idx| idx as f32 / 4096.0);
        let operands = Operands { levels: &levels, rows: &rows, lines: &lines, scales: &scales };
        check(|sums| tile_int8(&operands, sums), |sums| portable_int8(&operands, sums));
    }
}
