//! Sixteen numbers at a time: one body, written once over [`Lanes`], compiled for each instruction set and chosen at run
//! time.
//!
//! [`crate::dispatch::dispatched`] is enough where the compiler sees the vectors by itself. Where sums must stay in
//! registers, or neighbors trade places, a kernel is a [`Task`], which is handed the processor's own vectors.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::dispatch::{self, Level};
use crate::math;
use crate::narrow::Format;

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

    /// Numbers as lines where lines can lie, with what is before and behind them.
    #[inline(always)]
    pub(crate) fn within(numbers: &mut [f32]) -> (&mut [f32], &mut [Self], &mut [f32]) {
        // SAFETY: a line is its numbers and nothing else, and any numbers are a line.
        unsafe { numbers.align_to_mut() }
    }

    /// The numbers of adjacent lines.
    #[cfg(test)]
    pub(crate) fn numbers_mut(lines: &mut [Self]) -> &mut [f32] {
        // SAFETY: as above, and the lines are exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines) / size_of::<f32>()) }
    }
}

/// How many vectors of sums stay in registers, beside what they are sums of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of AVX-512 alone"))]
    TwentyFour,
    Six,
}

/// An instruction set that the processor has: whoever holds a value of it may use it.
pub(crate) trait Lanes: Copy {
    type Vector: Copy;
    const ROOM: Room;

    fn splat(self, x: f32) -> Self::Vector;
    fn load(self, from: &Line) -> Self::Vector;
    fn store(self, x: Self::Vector, to: &mut Line);
    /// Stores past the caches, where the processor can: other threads see it once this one has finished its streams.
    #[inline(always)]
    fn stream(self, x: Self::Vector, to: &mut Line) {
        self.store(x, to);
    }
    #[inline(always)]
    fn finish_streams(self) {}
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a b`
    fn mul_sub_from(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    fn load_numbers(self, from: &[f32; LANES]) -> Self::Vector;
    fn store_numbers(self, x: Self::Vector, to: &mut [f32; LANES]);
    /// The numbers behind these bits of bf16.
    #[inline(always)]
    fn widen_bf16(self, bits: &[u16; LANES]) -> Self::Vector {
        self.load_numbers(&bits.map(|bits| Format::Bf16.value(bits)))
    }
    /// The numbers behind these bits of f16.
    #[inline(always)]
    fn widen_f16(self, bits: &[u16; LANES]) -> Self::Vector {
        self.load_numbers(&bits.map(|bits| Format::F16.value(bits)))
    }
    /// `a / b` within 2 ulp, of finite numbers and `b` from 1 to 2^126.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Each number, but at least `low` and at most `high`.
    fn clamp(self, x: Self::Vector, low: f32, high: f32) -> Self::Vector;
    /// `2^n` of whole numbers from -126 to 127.
    fn power_of_two(self, n: Self::Vector) -> Self::Vector;

    /// Two bf16 in the place of each number: the nearest to `first`'s below, the nearest to `second`'s above; of two that
    /// are equally near, the one farther from zero.
    #[inline(always)]
    fn join_bf16(self, first: Self::Vector, second: Self::Vector) -> Self::Vector {
        let (mut low, mut high) = (Line::ZERO, Line::ZERO);
        self.store(first, &mut low);
        self.store(second, &mut high);
        for (low, high) in low.0.iter_mut().zip(high.0) {
            let up = |x: f32| x.to_bits().wrapping_add(0x8000);
            *low = f32::from_bits(up(*low) >> 16 | up(high) & 0xffff_0000);
        }
        self.load(&low)
    }

    /// `sum` and both products of the [joined](Lanes::join_bf16) numbers of `a` and `b`.
    #[inline(always)]
    fn add_bf16_products(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        add_bf16_products_singly(self, a, b, sum)
    }

    /// `x sigmoid(x)`, within `1.5e-7 (1 + |x|)` of the result's size where that exceeds 1e-35.
    #[inline(always)]
    fn silu(self, x: Self::Vector) -> Self::Vector {
        let round = self.splat(math::ROUND);
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

    /// Every second number of two vectors that lie one after the other, from the first on and from the second on.
    #[inline(always)]
    fn unzip(self, numbers: [Self::Vector; 2]) -> [Self::Vector; 2] {
        let (mut row, mut apart) = ([Line::ZERO; 2], [Line::ZERO; 2]);
        for (line, x) in row.iter_mut().zip(numbers) {
            self.store(x, line);
        }
        for (t, pair) in Line::numbers(&row).as_chunks::<2>().0.iter().enumerate() {
            (apart[0].0[t], apart[1].0[t]) = (pair[0], pair[1]);
        }
        [self.load(&apart[0]), self.load(&apart[1])]
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

/// [`Lanes::add_bf16_products`] without an instruction for it.
#[inline(always)]
fn add_bf16_products_singly<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector {
    let mut lines = [Line::ZERO; 3];
    for (line, vector) in lines.iter_mut().zip([a, b, sum]) {
        lanes.store(vector, line);
    }
    let [a, b, mut sum] = lines;
    for ((sum, a), b) in sum.0.iter_mut().zip(a.0).zip(b.0) {
        let (low, high) =
            (|x: f32| f32::from_bits(x.to_bits() << 16), |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000));
        *sum += low(a) * low(b) + high(a) * high(b);
    }
    lanes.load(&sum)
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
        Level::Avx512 | Level::Avx512Bf16 => unsafe { x86::run_avx512(task) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => unsafe { x86::run_avx2(task) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => task.run(neon::Neon),
        Level::Portable => task.run(Portable),
    }
}

/// As [`run`], with [`Lanes::add_bf16_products`] by the processor's own instruction, if it has one.
pub(crate) fn run_bf16(level: Level, task: impl Task) {
    match level.min(dispatch::level()) {
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16 => unsafe { x86::run_avx512_bf16(task) },
        level => run(level, task),
    }
}

/// Any processor; the compiler makes of it what it can.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Lanes for Portable {
    type Vector = [f32; LANES];
    const ROOM: Room = Room::Six;

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

    struct Unzip<'a>(&'a mut [Line; 2]);

    impl Task for Unzip<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let apart = lanes.unzip([lanes.load(&self.0[0]), lanes.load(&self.0[1])]);
            lanes.store(apart[0], &mut self.0[0]);
            lanes.store(apart[1], &mut self.0[1]);
        }
    }

    #[test]
    fn every_instruction_set_parts_even_from_odd() {
        for level in Level::ALL {
            let mut lines = [Line::ZERO; 2];
            Line::numbers_mut(&mut lines).iter_mut().enumerate().for_each(|(idx, x)| *x = idx as f32);
            run(*level, Unzip(&mut lines));
            for (t, (even, odd)) in lines[0].0.iter().zip(lines[1].0).enumerate() {
                assert_eq!((*even, odd), (2.0 * t as f32, 2.0 * t as f32 + 1.0), "{level:?}");
            }
        }
    }

    /// Bits of either 16-bit format, and places for what they mean.
    struct Widen<'a>(&'a [u16; LANES], [&'a mut [f32; LANES]; 2]);

    impl Task for Widen<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let Self(bits, [bf16, f16]) = self;
            lanes.store_numbers(lanes.widen_bf16(bits), bf16);
            lanes.store_numbers(lanes.widen_f16(bits), f16);
        }
    }

    #[test]
    fn every_instruction_set_widens_16_bits() {
        let is_finite_f16 = |bits: u16| bits & 0x7c00 != 0x7c00;
        for level in Level::ALL {
            for first in (0..=u16::MAX).step_by(LANES) {
                let bits: [u16; LANES] = std::array::from_fn(|lane| first + lane as u16);
                let (mut bf16, mut f16) = ([f32::NAN; LANES], [f32::NAN; LANES]);
                run(*level, Widen(&bits, [&mut bf16, &mut f16]));
                for ((bits, bf16), f16) in bits.into_iter().zip(bf16).zip(f16) {
                    assert_eq!(bf16.to_bits(), Format::Bf16.value(bits).to_bits(), "{level:?}: bf16 {bits:x}");
                    if is_finite_f16(bits) {
                        assert_eq!(f16.to_bits(), Format::F16.value(bits).to_bits(), "{level:?}: f16 {bits:x}");
                    }
                }
            }
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
