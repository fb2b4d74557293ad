//! The vectors of x86 processors: one of AVX-512, or two of AVX2.

use super::{LANES, Lanes, Line, Room, Task, add_bf16_products_singly};
use crate::narrow::F16_RESCALE;
use std::arch::x86_64::{
    __m256, __m512, __m512bh, _mm_loadu_si128, _mm_sfence, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps,
    _mm256_load_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_store_ps, _mm256_storeu_ps, _mm256_stream_ps,
    _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_alignr_epi32, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbf16_ps,
    _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_ps, _mm512_loadu_ps, _mm512_mask_blend_epi16, _mm512_maskz_loadu_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_rcp14_ps,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_shuffle_f32x4, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_store_ps, _mm512_storeu_ps, _mm512_stream_ps, _mm512_sub_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;

/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn run_avx512(task: impl Task) {
    task.run(Avx512::<false> { found: () });
}

/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn run_avx512_bf16(task: impl Task) {
    task.run(Avx512::<true> { found: () });
}

/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2(task: impl Task) {
    task.run(Avx2 { found: () });
}

/// Made only by [`run_avx512`], or, if it knows `BF16`, by [`run_avx512_bf16`], on a processor that has it.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BF16: bool> {
    #[expect(dead_code, reason = "nobody else can make a value")]
    found: (),
}

/// Made only by [`run_avx2`], on a processor that has it.
#[derive(Clone, Copy)]
pub(super) struct Avx2 {
    #[expect(dead_code, reason = "nobody else can make a value")]
    found: (),
}

impl<const BF16: bool> Lanes for Avx512<BF16> {
    type Vector = __m512;
    const ROOM: Room = Room::TwentyFour;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: a value of this type exists only where the processor has the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &Line) -> __m512 {
        // SAFETY: as above; a line is one aligned vector.
        unsafe { _mm512_load_ps(from.0.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut Line) {
        // SAFETY: as above.
        unsafe { _mm512_store_ps(to.0.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn stream(self, x: __m512, to: &mut Line) {
        // SAFETY: as above; a line is aligned as streams must be.
        unsafe { _mm512_stream_ps(to.0.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn finish_streams(self) {
        // SAFETY: every processor with these vectors has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub_from(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn load_numbers(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: as above; the numbers are one vector, aligned or not.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store_numbers(self, x: __m512, to: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16; LANES]) -> __m512 {
        // SAFETY: as above; the bits are half a vector, aligned or not.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16; LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast())) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // A quotient of 14 bits and, of what is left of `a`, another: a fraction of the time of a division.
        // SAFETY: as above.
        unsafe {
            let about = _mm512_rcp14_ps(b);
            let quotient = _mm512_mul_ps(a, about);
            _mm512_fmadd_ps(about, _mm512_fnmadd_ps(b, quotient, a), quotient)
        }
    }

    #[inline(always)]
    fn clamp(self, x: __m512, low: f32, high: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(low)), _mm512_set1_ps(high)) }
    }

    #[inline(always)]
    fn power_of_two(self, n: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
    }

    #[inline(always)]
    fn join_bf16(self, first: __m512, second: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let up = |x| _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
            let low = _mm512_srli_epi32::<16>(up(first));
            _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaa_aaaa, low, up(second)))
        }
    }

    #[inline(always)]
    fn add_bf16_products(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if BF16 {
            // SAFETY: a value of this type exists only where the processor has the instruction; any bits are bf16.
            unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
        } else {
            add_bf16_products_singly(self, a, b, sum)
        }
    }

    #[inline(always)]
    fn load_within(self, row: &[f32], start: isize) -> __m512 {
        let all = LANES as isize;
        let n_before = start.saturating_neg().clamp(0, all);
        let end = (row.len() as isize - start).clamp(0, all);
        let inside = ((1u32 << end) - 1) & !((1u32 << n_before) - 1);
        // SAFETY: as above; only lanes are read whose place lies within the row.
        unsafe { _mm512_maskz_loadu_ps(inside as u16, row.as_ptr().wrapping_offset(start)) }
    }

    #[inline(always)]
    fn doubled(self, x: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let halves = _mm512_setr_epi32(0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8);
            _mm512_permutexvar_ps(halves, x)
        }
    }

    /// As for the others, with [`exp2`].
    #[inline(always)]
    fn silu(self, x: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let exponent = _mm512_mul_ps(x, _mm512_set1_ps(-std::f32::consts::LOG2_E));
            // Beyond, the result is next to nothing.
            let exponent = _mm512_min_ps(exponent, _mm512_set1_ps(126.0));
            let power = exp2(exponent);
            self.div(x, _mm512_add_ps(power, _mm512_set1_ps(1.0)))
        }
    }

    #[inline(always)]
    fn unzip(self, [a, b]: [__m512; 2]) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
        }
    }

    #[inline(always)]
    fn every_fourth(self, row: &[Line; 5]) -> [__m512; 6] {
        let [r0, r1, r2, r3, r4] = [&row[0], &row[1], &row[2], &row[3], &row[4]].map(|line| self.load(line));
        // SAFETY: as above.
        unsafe {
            let next = _mm512_castps_si512(r4);
            // The first eight of a pair of vectors' numbers, and the second eight.
            let first = |k| {
                let low = _mm512_permutex2var_ps(r0, fourths(k), r1);
                let high = _mm512_permutex2var_ps(r2, fourths(k), r3);
                _mm512_shuffle_f32x4::<0b01_00_01_00>(low, high)
            };
            let (k0, k1, k2, k3) = (first(0), first(1), first(2), first(3));
            let k4 = _mm512_alignr_epi32::<1>(next, _mm512_castps_si512(k0));
            let after = _mm512_alignr_epi32::<1>(next, next);
            let k5 = _mm512_alignr_epi32::<1>(after, _mm512_castps_si512(k1));
            [k0, k1, k2, k3, _mm512_castsi512_ps(k4), _mm512_castsi512_ps(k5)]
        }
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [__m512; 4], row: &mut [Line; 4]) {
        // SAFETY: as above.
        unsafe {
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let low = |ab, cd| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
            let high = |ab, cd| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
            // Quarter q of the k-th holds all four of tile 4 q + k.
            let (t0, t1) = (low(ab_low, cd_low), high(ab_low, cd_low));
            let (t2, t3) = (low(ab_high, cd_high), high(ab_high, cd_high));
            let (t01_low, t01_high) =
                (_mm512_shuffle_f32x4::<0b01_00_01_00>(t0, t1), _mm512_shuffle_f32x4::<0b11_10_11_10>(t0, t1));
            let (t23_low, t23_high) =
                (_mm512_shuffle_f32x4::<0b01_00_01_00>(t2, t3), _mm512_shuffle_f32x4::<0b11_10_11_10>(t2, t3));
            self.store(_mm512_shuffle_f32x4::<0b10_00_10_00>(t01_low, t23_low), &mut row[0]);
            self.store(_mm512_shuffle_f32x4::<0b11_01_11_01>(t01_low, t23_low), &mut row[1]);
            self.store(_mm512_shuffle_f32x4::<0b10_00_10_00>(t01_high, t23_high), &mut row[2]);
            self.store(_mm512_shuffle_f32x4::<0b11_01_11_01>(t01_high, t23_high), &mut row[3]);
        }
    }
}

/// `2^(k/16)`, for [`exp2`].
const SIXTEENTHS: [f32; 16] = [
    1.0,
    1.044_273_7,
    1.090_507_7,
    1.138_788_6,
    1.189_207_1,
    1.241_857_8,
    1.296_839_6,
    1.354_255_6,
    std::f32::consts::SQRT_2,
    1.476_826_2,
    1.542_210_8,
    1.610_490_3,
    1.681_792_9,
    1.756_252_2,
    1.834_008_1,
    1.915_206_6,
];

/// `2^r` for `|r| <= 1/32` as a polynomial: Taylor's, relative error below 1e-8.
const NEAR_0: [f32; 4] = [1.0, std::f32::consts::LN_2, 0.240_226_5, 0.055_504_11];

/// `2^x`, within 2 ulp for `x` up to 127: of the nearest sixteenth by a table that fills one register, of the rest by a
/// short polynomial.
///
/// # Safety
/// The processor must have AVX-512F.
#[inline(always)]
pub(crate) unsafe fn exp2(x: __m512) -> __m512 {
    /// Its last bit is worth a sixteenth, so that what is added to it is rounded to sixteenths.
    const ROUND_TO_SIXTEENTHS: f32 = 1.5 * (1 << 19) as f32;
    // SAFETY: the caller's promise; the table is one vector.
    unsafe {
        let round = _mm512_set1_ps(ROUND_TO_SIXTEENTHS);
        let rounded = _mm512_add_ps(x, round);
        let sixteenths = _mm512_sub_ps(rounded, round);
        let r = _mm512_sub_ps(x, sixteenths);
        let mut p = _mm512_set1_ps(NEAR_0[3]);
        for coefficient in NEAR_0[..3].iter().rev() {
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*coefficient));
        }
        // The table is looked up by the last four bits, and scaled by the whole number below.
        let table = _mm512_loadu_ps(SIXTEENTHS.as_ptr());
        let of_sixteenths = _mm512_permutexvar_ps(_mm512_castps_si512(rounded), table);
        _mm512_scalef_ps(_mm512_mul_ps(p, of_sixteenths), sixteenths)
    }
}

/// Every fourth of thirty-two numbers from the `k`-th on, twice.
#[inline(always)]
fn fourths(k: i32) -> std::arch::x86_64::__m512i {
    // SAFETY: its callers hold an `Avx512`.
    unsafe {
        let at = |t| 4 * t + k;
        let (a, b, c, d, e, f, g, h) = (at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
        _mm512_setr_epi32(a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h)
    }
}

impl Lanes for Avx2 {
    type Vector = [__m256; 2];
    const ROOM: Room = Room::Six;

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        // SAFETY: a value of this type exists only where the processor has the instructions.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &Line) -> [__m256; 2] {
        // SAFETY: as above; a line is two aligned vectors.
        unsafe { [_mm256_load_ps(from.0.as_ptr()), _mm256_load_ps(from.0.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, x: [__m256; 2], to: &mut Line) {
        // SAFETY: as above.
        unsafe {
            _mm256_store_ps(to.0.as_mut_ptr(), x[0]);
            _mm256_store_ps(to.0.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn stream(self, x: [__m256; 2], to: &mut Line) {
        // SAFETY: as above; a line is aligned as streams must be.
        unsafe {
            _mm256_stream_ps(to.0.as_mut_ptr(), x[0]);
            _mm256_stream_ps(to.0.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn finish_streams(self) {
        // SAFETY: every processor with these vectors has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn load_numbers(self, from: &[f32; LANES]) -> [__m256; 2] {
        // SAFETY: as above; the numbers are two vectors, aligned or not.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store_numbers(self, x: [__m256; 2], to: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16; LANES]) -> [__m256; 2] {
        let mut values = self.splat(0.0);
        for (value, bits) in values.iter_mut().zip(bits.as_chunks::<8>().0) {
            // SAFETY: as above; the bits are half a vector, aligned or not.
            *value = unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(bits.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            };
        }
        values
    }

    /// As [`Format::value`](crate::narrow::Format::value): not every such processor's list of features names the
    /// instruction for it.
    #[inline(always)]
    fn widen_f16(self, bits: &[u16; LANES]) -> [__m256; 2] {
        let mut values = self.splat(0.0);
        for (value, bits) in values.iter_mut().zip(bits.as_chunks::<8>().0) {
            // SAFETY: as above.
            *value = unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(bits.as_ptr().cast()));
                let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)));
                let magnitude = _mm256_slli_epi32::<13>(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)));
                let value = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(F16_RESCALE));
                _mm256_or_ps(value, _mm256_castsi256_ps(sign))
            };
        }
        values
    }

    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn clamp(self, x: [__m256; 2], low: f32, high: f32) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe {
            let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
            [_mm256_min_ps(_mm256_max_ps(x[0], low), high), _mm256_min_ps(_mm256_max_ps(x[1], low), high)]
        }
    }

    #[inline(always)]
    fn power_of_two(self, n: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let [low, high] =
                [_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias), _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias)];
            [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high))]
        }
    }

    #[inline(always)]
    fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn mul_sub_from(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
    }
}
