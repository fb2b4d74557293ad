//! The vectors of 64-bit Arm processors: four of NEON, which all of them have.

use super::{LANES, Lanes, Line, Room};
use std::arch::aarch64::{
    float32x4_t, float32x4x4_t, vaddq_f32, vaddq_s32, vaddq_u32, vandq_u32, vcvtnq_s32_f32, vdivq_f32, vdupq_n_f32,
    vdupq_n_s32, vdupq_n_u32, vextq_f32, vfmaq_f32, vfmsq_f32, vld1q_f32, vld4q_f32, vmaxq_f32, vminq_f32, vmulq_f32,
    vreinterpretq_f32_s32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshlq_n_s32, vshlq_n_u32, vsriq_n_u32,
    vst1q_f32, vst4q_f32, vsubq_f32, vuzp1q_f32, vuzp2q_f32, vzip1q_f32, vzip2q_f32,
};

/// Numbers of one register.
const NUMBERS: usize = 4;

/// NEON, which the compiler takes for granted here.
#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Lanes for Neon {
    type Vector = [float32x4_t; 4];
    const ROOM: Room = Room::Six;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        // SAFETY: every processor that this is compiled for has the instructions.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, from: &Line) -> Self::Vector {
        self.load_numbers(&from.0)
    }

    #[inline(always)]
    fn store(self, x: Self::Vector, to: &mut Line) {
        self.store_numbers(x, &mut to.0);
    }

    #[inline(always)]
    fn load_numbers(self, from: &[f32; LANES]) -> Self::Vector {
        // SAFETY: as above; the numbers are four registers.
        each(|idx| unsafe { vld1q_f32(from.as_ptr().add(NUMBERS * idx)) })
    }

    #[inline(always)]
    fn store_numbers(self, x: Self::Vector, to: &mut [f32; LANES]) {
        for (idx, x) in x.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { vst1q_f32(to.as_mut_ptr().add(NUMBERS * idx), x) };
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vaddq_f32(a[idx], b[idx]) })
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vsubq_f32(a[idx], b[idx]) })
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vmulq_f32(a[idx], b[idx]) })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vfmaq_f32(c[idx], a[idx], b[idx]) })
    }

    #[inline(always)]
    fn mul_sub_from(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vfmsq_f32(c[idx], a[idx], b[idx]) })
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vdivq_f32(a[idx], b[idx]) })
    }

    #[inline(always)]
    fn clamp(self, x: Self::Vector, low: f32, high: f32) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe { vminq_f32(vmaxq_f32(x[idx], vdupq_n_f32(low)), vdupq_n_f32(high)) })
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(n[idx]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn join_bf16(self, first: Self::Vector, second: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe {
            let up = |x| vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x8000));
            vreinterpretq_f32_u32(vsriq_n_u32::<16>(up(second[idx]), up(first[idx])))
        })
    }

    #[inline(always)]
    fn add_bf16_products(self, a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        each(|idx| unsafe {
            let (a, b) = (vreinterpretq_u32_f32(a[idx]), vreinterpretq_u32_f32(b[idx]));
            let low = |x| vreinterpretq_f32_u32(vshlq_n_u32::<16>(x));
            let high = |x| vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff_0000)));
            vfmaq_f32(vfmaq_f32(sum[idx], low(a), low(b)), high(a), high(b))
        })
    }

    #[inline(always)]
    fn doubled(self, x: Self::Vector) -> Self::Vector {
        // SAFETY: as above.
        unsafe {
            // The numbers from 1 to 4, which go between those from 0 to 3, and so on.
            let (between, next) = (vextq_f32::<1>(x[0], x[1]), vextq_f32::<1>(x[1], x[2]));
            [vzip1q_f32(x[0], between), vzip2q_f32(x[0], between), vzip1q_f32(x[1], next), vzip2q_f32(x[1], next)]
        }
    }

    #[inline(always)]
    fn unzip(self, [a, b]: [Self::Vector; 2]) -> [Self::Vector; 2] {
        // SAFETY: as above.
        unsafe {
            [
                [vuzp1q_f32(a[0], a[1]), vuzp1q_f32(a[2], a[3]), vuzp1q_f32(b[0], b[1]), vuzp1q_f32(b[2], b[3])],
                [vuzp2q_f32(a[0], a[1]), vuzp2q_f32(a[2], a[3]), vuzp2q_f32(b[0], b[1]), vuzp2q_f32(b[2], b[3])],
            ]
        }
    }

    #[inline(always)]
    fn every_fourth(self, row: &[Line; 5]) -> [Self::Vector; 6] {
        // SAFETY: as above; a line is sixteen numbers, and so is what is loaded at a time.
        let apart = each(|idx| unsafe { vld4q_f32(row[idx].0.as_ptr()) });
        let [k0, k1, k2, k3] =
            [each(|idx| apart[idx].0), each(|idx| apart[idx].1), each(|idx| apart[idx].2), each(|idx| apart[idx].3)];
        // SAFETY: as above.
        let [after0, after1] = unsafe { [vdupq_n_f32(row[4].0[0]), vdupq_n_f32(row[4].0[1])] };
        [k0, k1, k2, k3, one_later(k0, after0), one_later(k1, after1)]
    }

    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [Self::Vector; 4], row: &mut [Line; 4]) {
        for (idx, line) in row.iter_mut().enumerate() {
            // SAFETY: as above; a line is sixteen numbers, and so is what is stored.
            unsafe { vst4q_f32(line.0.as_mut_ptr(), float32x4x4_t(a[idx], b[idx], c[idx], d[idx])) };
        }
    }
}

/// What `of` makes of each of the four registers.
#[inline(always)]
fn each<T>(of: impl Fn(usize) -> T) -> [T; 4] {
    [of(0), of(1), of(2), of(3)]
}

/// The numbers from the second on, and the first of `next`.
#[inline(always)]
fn one_later(x: [float32x4_t; 4], next: float32x4_t) -> [float32x4_t; 4] {
    // SAFETY: every processor that this is compiled for has the instruction.
    unsafe {
        [vextq_f32::<1>(x[0], x[1]), vextq_f32::<1>(x[1], x[2]), vextq_f32::<1>(x[2], x[3]), vextq_f32::<1>(x[3], next)]
    }
}
