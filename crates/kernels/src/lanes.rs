//! Sixteen numbers at a time: one body, written once over [`Lanes`], compiled for each instruction set and chosen at run
//! time.
//!
//! [`crate::dispatch::dispatched`] is enough where the compiler sees the vectors by itself. Where sums must stay in
//! registers, or neighbors trade places, a kernel is a [`Task`], which is handed the processor's own vectors.

use crate::dispatch::{self, Level};
use crate::math;

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// One vector in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

impl Line {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);

    /// The numbers of adjacent lines.
    #[inline(always)]
    pub(crate) fn numbers(lines: &[Self]) -> &[f32] {
        // SAFETY: a line is its numbers and nothing else, so lines that lie side by side are numbers that do.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines) / size_of::<f32>()) }
    }

    /// The numbers of adjacent lines.
    #[inline(always)]
    pub(crate) fn numbers_mut(lines: &mut [Self]) -> &mut [f32] {
        // SAFETY: as above, and the lines are exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines) / size_of::<f32>()) }
    }
}

/// A tile of sums that stays in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Eight rows of up to three vectors.
    EightByThree,
    /// Four rows of one vector.
    FourByOne,
}

/// An instruction set that the processor has: whoever holds a value of it may use it.
pub(crate) trait Lanes: Copy {
    type Vector: Copy;
    /// How many sums the registers hold beside what they are made of.
    const ROOM: Room;

    fn splat(self, x: f32) -> Self::Vector;
    fn load(self, from: &Line) -> Self::Vector;
    fn store(self, x: Self::Vector, to: &mut Line);
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a b`
    fn mul_sub_from(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    fn load_numbers(self, from: &[f32; LANES]) -> Self::Vector;
    fn store_numbers(self, x: Self::Vector, to: &mut [f32; LANES]);
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Each number, but at least `low` and at most `high`.
    fn clamp(self, x: Self::Vector, low: f32, high: f32) -> Self::Vector;
    /// `2^n` of whole numbers from -126 to 127.
    fn power_of_two(self, n: Self::Vector) -> Self::Vector;

    /// `x sigmoid(x)`, within `1.5e-7 (1 + |x|)` of the result's size where that exceeds 1e-35.
    #[inline(always)]
    fn silu(self, x: Self::Vector) -> Self::Vector {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
        let round = self.splat(12_582_912.0);
        // Beyond, the result is `x` or next to nothing.
        let exponent = self.clamp(self.mul(x, self.splat(-std::f32::consts::LOG2_E)), -126.0, 126.0);
        let n = self.sub(self.add(exponent, round), round);
        let r = self.sub(exponent, n);
        let mut p = self.splat(math::EXP2[6]);
        for coefficient in math::EXP2[..6].iter().rev() {
            p = self.mul_add(p, r, self.splat(*coefficient));
        }
        self.div(x, self.mul_add(p, self.power_of_two(n), self.splat(1.0)))
    }

    /// Numbers of a row from `start` on; zeros where that is before the row or behind it.
    #[inline(always)]
    fn load_within(self, row: &[f32], start: isize) -> Self::Vector {
        let mut line = Line::ZERO;
        match usize::try_from(start).ok().and_then(|start| row.get(start..start + LANES)) {
            Some(numbers) => line.0.copy_from_slice(numbers),
            None => {
                for (x, idx) in line.0.iter_mut().zip(start..) {
                    *x = usize::try_from(idx).ok().and_then(|idx| row.get(idx)).copied().unwrap_or(0.0);
                }
            }
        }
        self.load(&line)
    }

    /// Lane `t` is lane `(t + 1) / 2` of the vector.
    #[inline(always)]
    fn doubled(self, x: Self::Vector) -> Self::Vector {
        let (mut from, mut to) = (Line::ZERO, Line::ZERO);
        self.store(x, &mut from);
        for (t, to) in to.0.iter_mut().enumerate() {
            *to = from.0[t.div_ceil(2)];
        }
        self.load(&to)
    }

    /// Lane `t` of the `k`-th vector is number `4 t + k` of the row.
    #[inline(always)]
    fn every_fourth(self, row: &[Line; 5]) -> [Self::Vector; 6] {
        let at = |idx: usize| row[idx / LANES].0[idx % LANES];
        let mut vectors = [self.splat(0.0); 6];
        for (k, vector) in vectors.iter_mut().enumerate() {
            let mut line = Line::ZERO;
            for (t, x) in line.0.iter_mut().enumerate() {
                *x = at(4 * t + k);
            }
            *vector = self.load(&line);
        }
        vectors
    }

    /// Number `4 t + k` of the row is lane `t` of the `k`-th vector.
    #[inline(always)]
    fn interleave(self, vectors: [Self::Vector; 4], row: &mut [Line; 4]) {
        for (k, vector) in vectors.into_iter().enumerate() {
            let mut line = Line::ZERO;
            self.store(vector, &mut line);
            for (t, x) in line.0.iter().enumerate() {
                let idx = 4 * t + k;
                row[idx / LANES].0[idx % LANES] = *x;
            }
        }
    }
}

/// What is compiled for each instruction set. `run`, and all that it calls, must be `#[inline(always)]`.
pub(crate) trait Task {
    fn run<L: Lanes>(self, lanes: L);
}

/// Runs a task with the widest vectors that the processor has, up to those of `level`.
pub(crate) fn run(level: Level, task: impl Task) {
    match level.min(dispatch::level()) {
        // SAFETY: `dispatch::level` found every feature that the function enables on this processor.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::run_avx512(task) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::run_avx2(task) },
        Level::Portable => task.run(Portable),
    }
}

/// Any processor; the compiler makes of it what it can.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Lanes for Portable {
    type Vector = [f32; LANES];
    const ROOM: Room = Room::FourByOne;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Line) -> Self::Vector {
        from.0
    }

    #[inline(always)]
    fn store(self, x: Self::Vector, to: &mut Line) {
        to.0 = x;
    }

    #[inline(always)]
    fn add(self, mut a: Self::Vector, b: Self::Vector) -> Self::Vector {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    }

    #[inline(always)]
    fn sub(self, mut a: Self::Vector, b: Self::Vector) -> Self::Vector {
        a.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
        a
    }

    #[inline(always)]
    fn mul(self, mut a: Self::Vector, b: Self::Vector) -> Self::Vector {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn load_numbers(self, from: &[f32; LANES]) -> Self::Vector {
        *from
    }

    #[inline(always)]
    fn store_numbers(self, x: Self::Vector, to: &mut [f32; LANES]) {
        *to = x;
    }

    #[inline(always)]
    fn div(self, mut a: Self::Vector, b: Self::Vector) -> Self::Vector {
        a.iter_mut().zip(b).for_each(|(a, b)| *a /= b);
        a
    }

    #[inline(always)]
    fn clamp(self, mut x: Self::Vector, low: f32, high: f32) -> Self::Vector {
        for x in &mut x {
            *x = if *x > low { *x } else { low };
            *x = if *x < high { *x } else { high };
        }
        x
    }

    #[inline(always)]
    fn power_of_two(self, mut n: Self::Vector) -> Self::Vector {
        n.iter_mut().for_each(|n| *n = math::power_of_two(*n));
        n
    }

    #[inline(always)]
    fn mul_sub_from(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.sub(c, self.mul(a, b))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Lanes, Line, Room, Task};
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_epi32, _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtps_epi32, _mm256_div_ps,
        _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_load_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps,
        _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_store_ps, _mm256_storeu_ps,
        _mm256_sub_ps, _mm512_add_ps, _mm512_alignr_epi32, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512,
        _mm512_castsi512_ps, _mm512_div_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_ps, _mm512_loadu_ps,
        _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_permutex2var_ps,
        _mm512_permutexvar_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setr_epi32, _mm512_shuffle_f32x4,
        _mm512_store_ps, _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
        _mm512_unpacklo_ps,
    };

    /// # Safety
    /// The processor must have the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn run_avx512(task: impl Task) {
        task.run(Avx512 { found: () });
    }

    /// # Safety
    /// The processor must have the features.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2(task: impl Task) {
        task.run(Avx2 { found: () });
    }

    /// Made only by [`run_avx512`], on a processor that has it.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512 {
        #[expect(dead_code, reason = "nobody else can make a value")]
        found: (),
    }

    /// Made only by [`run_avx2`], on a processor that has it.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2 {
        #[expect(dead_code, reason = "nobody else can make a value")]
        found: (),
    }

    impl Lanes for Avx512 {
        type Vector = __m512;
        const ROOM: Room = Room::EightByThree;

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
        fn div(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_div_ps(a, b) }
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
        const ROOM: Room = Room::FourByOne;

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
        fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: as above.
            unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn clamp(self, x: [__m256; 2], low: f32, high: f32) -> [__m256; 2] {
            // SAFETY: as above.
            unsafe { x.map(|x| _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(low)), _mm256_set1_ps(high))) }
        }

        #[inline(always)]
        fn power_of_two(self, n: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: as above.
            unsafe {
                n.map(|n| {
                    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
                })
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes sixty-eight numbers apart and puts sixty-four of them together again.
    struct Shuffle<'a> {
        row: &'a [Line; 5],
        apart: &'a mut [Line; 6],
        together: &'a mut [Line; 4],
    }

    impl Task for Shuffle<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let vectors = lanes.every_fourth(self.row);
            for (line, vector) in self.apart.iter_mut().zip(vectors) {
                lanes.store(vector, line);
            }
            lanes.interleave([vectors[0], vectors[1], vectors[2], vectors[3]], self.together);
        }
    }

    struct Silu<'a>(&'a mut [f32; LANES]);

    impl Task for Silu<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            lanes.store_numbers(lanes.silu(lanes.load_numbers(self.0)), self.0);
        }
    }

    #[test]
    fn every_instruction_set_knows_silu() {
        for first in (-2000..2000).step_by(LANES) {
            let exact = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let x: [f32; LANES] = std::array::from_fn(|lane| (first + lane as i32) as f32 * 0.06);
            for level in Level::ALL {
                let mut out = x;
                run(*level, Silu(&mut out));
                for (x, out) in x.into_iter().zip(out) {
                    let off = (f64::from(out) - exact(x)).abs();
                    let allowed = 1.5e-7 * (1.0 + f64::from(x.abs())) * exact(x).abs() + 1e-35;
                    assert!(off <= allowed, "{level:?}: silu({x}) = {out}");
                }
            }
        }
        for level in Level::ALL {
            let mut out = [f32::NAN; LANES];
            run(*level, Silu(&mut out));
            assert!(out.iter().all(|x| x.is_nan()), "{level:?} hides what is not a number");
        }
    }

    #[test]
    fn every_instruction_set_takes_rows_apart_and_puts_them_together() {
        let mut row = [Line::ZERO; 5];
        Line::numbers_mut(&mut row).iter_mut().enumerate().for_each(|(idx, x)| *x = idx as f32);
        for level in Level::ALL {
            let (mut apart, mut together) = ([Line::ZERO; 6], [Line::ZERO; 4]);
            run(*level, Shuffle { row: &row, apart: &mut apart, together: &mut together });
            for (k, line) in apart.iter().enumerate() {
                let expected: Vec<f32> = (0..LANES).map(|t| (4 * t + k) as f32).collect();
                assert_eq!(line.0[..], expected, "{level:?}, vector {k}");
            }
            assert_eq!(Line::numbers(&together), &Line::numbers(&row)[..64], "{level:?}");
        }
    }
}
