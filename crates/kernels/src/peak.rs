//! What this processor can do at most, measured: arithmetic that never leaves its registers, and copies that do not fit
//! its caches. What a kernel reaches is told as a share of it.

#[cfg(target_arch = "x86_64")]
use crate::dispatch::Vnni;
use crate::dispatch::{self, Level, dispatched};
use crate::lanes::{LANES, Lanes, Room, Task};
use crate::unit::{Bf16Pair, Unit};
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rounds of one measurement. The best one counts: what else runs on the machine only ever slows one down.
const ROUNDS: usize = 8;
/// How long a round takes: all of them together are done within 0.3 s.
const ROUND: Duration = Duration::from_millis(2);
/// Bytes that are copied, and as many that they are copied to: with both, more than most processors' last cache holds.
const COPIED_BYTES: usize = 32 << 20;
/// The same for one thread of many, whose caches add up.
const COPIED_BYTES_A_THREAD: usize = 8 << 20;
/// Bytes that are copied between two looks at the clock.
const COPY_CHUNK: usize = 1 << 20;

/// The fastest that each kind of work goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Of [`Kind::F32`].
    pub f32: Rate,
    /// Of [`Kind::Bf16`].
    pub bf16: Rate,
    /// Of [`Kind::Int8`].
    pub int8: Rate,
    /// Of copies: bytes read and bytes written, both counted.
    pub copy: Rate,
}

/// Thousand millions a second: of operations (a multiplication and an addition are two) or of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub one_thread: f64,
    /// Of the thread pool that kernels run on.
    pub all_threads: f64,
}

/// What is multiplied and added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floating point.
    F32,
    /// bfloat16, added up in 32-bit floating point.
    Bf16,
    /// 8-bit integers, added up in 32 bits.
    Int8,
}

/// Measures every peak, in some 0.3 s.
pub fn measure() -> Peaks {
    let arithmetic = |kind| {
        let multiply_adds = loop_of(kind).run;
        Rate::of(|| 2.0 * multiply_adds())
    };
    Peaks { f32: arithmetic(Kind::F32), bf16: arithmetic(Kind::Bf16), int8: arithmetic(Kind::Int8), copy: copy_rate() }
}

/// The instructions that a kind's peak is measured with: the widest of this processor that kernels know.
pub fn instructions(kind: Kind) -> &'static str {
    loop_of(kind).instructions
}

impl Peaks {
    /// Of several measurements the best of each kind, for a machine that other programs keep busy.
    pub fn best_of(n_measurements: usize) -> Self {
        let better = |a: Self, b: Self| Self {
            f32: a.f32.better(b.f32),
            bf16: a.bf16.better(b.bf16),
            int8: a.int8.better(b.int8),
            copy: a.copy.better(b.copy),
        };
        (1..n_measurements).fold(measure(), |best, _| better(best, measure()))
    }
}

impl Rate {
    fn better(self, other: Self) -> Self {
        Self { one_thread: self.one_thread.max(other.one_thread), all_threads: self.all_threads.max(other.all_threads) }
    }

    /// Of work that says how much it has done.
    fn of(work: impl Fn() -> f64 + Sync) -> Self {
        Self {
            one_thread: best(|| speed(&work)),
            all_threads: best(|| rayon::broadcast(|_| speed(&work)).iter().sum()),
        }
    }
}

fn best(round: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(round).take(ROUNDS).fold(0.0, f64::max)
}

/// How much work this thread does in a round, thousand millions a second.
fn speed(mut work: impl FnMut() -> f64) -> f64 {
    let begin = Instant::now();
    let mut done = 0.0;
    loop {
        done += work();
        let elapsed = begin.elapsed();
        if elapsed >= ROUND {
            return done / elapsed.as_secs_f64() / 1e9;
        }
    }
}

fn copy_rate() -> Rate {
    let n_threads = rayon::current_num_threads();
    let n_bytes = COPIED_BYTES.max(n_threads * COPIED_BYTES_A_THREAD);
    // Ones, because a page of zeros need not be memory of its own.
    let (source, mut target) = (vec![1; n_bytes], vec![1; n_bytes]);
    let mut whole = Copy { source: &source, target: &mut target, done: 0 };
    let one_thread = best(|| speed(|| whole.go_on()));
    let part = n_bytes.div_ceil(n_threads);
    let parts = source.chunks(part).zip(target.chunks_mut(part));
    let parts: Vec<Mutex<Copy<'_>>> =
        parts.map(|(source, target)| Mutex::new(Copy { source, target, done: 0 })).collect();
    let round = || {
        let speeds = rayon::broadcast(|thread| {
            let mut part = parts[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
            speed(|| part.go_on())
        });
        speeds.iter().sum()
    };
    Rate { one_thread, all_threads: best(round) }
}

/// A copy that begins anew at its end.
struct Copy<'a> {
    source: &'a [u8],
    target: &'a mut [u8],
    done: usize,
}

impl Copy<'_> {
    /// Bytes that were read and written.
    fn go_on(&mut self) -> f64 {
        let end = (self.done + COPY_CHUNK).min(self.source.len());
        let range = self.done..end;
        self.done = if end == self.source.len() { 0 } else { end };
        black_box(&mut self.target[range.clone()]).copy_from_slice(black_box(&self.source[range.clone()]));
        2.0 * range.len() as f64
    }
}

/// Arithmetic of one kind, some 20 µs of it.
struct Loop {
    instructions: &'static str,
    /// Does multiply-adds and counts them by themselves: every product is one times one, so their sum is their number.
    run: fn() -> f64,
}

/// Times that a loop goes around: no sum of ones leaves the numbers that f32 has.
const TURNS: usize = 4096;

fn loop_of(kind: Kind) -> Loop {
    let portable = |run| Loop { instructions: "portable", run };
    match kind {
        Kind::F32 => match vectors() {
            Some(instructions) => Loop { instructions, run: chains::<f32> },
            None => portable(portable::f32_loop),
        },
        Kind::Bf16 if dispatch::multiplies_bf16() => Loop { instructions: "AVX-512 BF16", run: chains::<Bf16Pair> },
        Kind::Bf16 => portable(portable::bf16_loop),
        Kind::Int8 => integer_loop().unwrap_or(portable(portable::int8_loop)),
    }
}

/// What f32 is multiplied with, if the kernels know more than what the compiler makes of plain loops.
fn vectors() -> Option<&'static str> {
    match dispatch::level() {
        Level::Portable => None,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => Some("AVX2 FMA"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 => Some("AVX-512"),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Some("NEON"),
    }
}

/// 8-bit integers by the processor's own instruction for them, if it has one.
#[cfg(target_arch = "x86_64")]
fn integer_loop() -> Option<Loop> {
    let (instructions, run): (_, fn() -> f64) = match dispatch::vnni() {
        // SAFETY: the processor has AVX-512F and AVX-512 VNNI.
        Some(Vnni::Wide) => ("AVX-512 VNNI", || unsafe { x86::integer_chains() }),
        // SAFETY: the processor has AVX2 and AVX-VNNI.
        Some(Vnni::Narrow) => ("AVX-VNNI", || unsafe { x86::integer_chains_avx() }),
        // SAFETY: the processor has AVX2, AVX-512VL and AVX-512 VNNI.
        Some(Vnni::NarrowOfAvx512) => ("AVX-512 VNNI in 256 bits", || unsafe { x86::integer_chains_in_256() }),
        // SAFETY: the processor has AVX2.
        None if dispatch::level() >= Level::Avx2 => ("AVX2 pairs", || unsafe { x86::integer_pairs() }),
        None => return None,
    };
    Some(Loop { instructions, run })
}

/// As above.
#[cfg(target_arch = "aarch64")]
fn integer_loop() -> Option<Loop> {
    if !dispatch::multiplies_int8() {
        return None;
    }
    // SAFETY: the processor has the dot product.
    Some(Loop { instructions: "NEON dot product", run: || unsafe { neon::integer_chains() } })
}

/// As above.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn integer_loop() -> Option<Loop> {
    None
}

fn chains<U: Unit>() -> f64 {
    let mut sum = 0.0;
    U::run(dispatch::level(), Chains::<U> { sum: &mut sum, unit: PhantomData });
    sum
}

/// Sums that go on side by side, as many as there are registers for: more than the processor begins before it has
/// finished the first.
struct Chains<'a, U> {
    sum: &'a mut f64,
    unit: PhantomData<U>,
}

impl<U: Unit> Task for Chains<'_, U> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match L::ROOM {
            Room::TwentyFour => self.go_on::<L, 12>(lanes),
            Room::Six => self.go_on::<L, 6>(lanes),
        }
    }
}

impl<U: Unit> Chains<'_, U> {
    #[inline(always)]
    fn go_on<L: Lanes, const N: usize>(self, lanes: L) {
        let ones = U::join(lanes, [lanes.splat(black_box(1.0)); 2]);
        let mut sums = [lanes.splat(0.0); N];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = U::add_product(lanes, ones, ones, *sum);
            }
        }
        for sum in sums {
            let mut numbers = [0.0; LANES];
            lanes.store_numbers(sum, &mut numbers);
            *self.sum += numbers.iter().copied().map(f64::from).sum::<f64>();
        }
    }
}

/// What the compiler makes of plain loops. Operands come from an array: what never changes it would multiply once.
mod portable {
    use super::{TURNS, black_box, dispatched};

    /// Sums that go on side by side.
    const LANES: usize = 64;

    type Operands<T> = [[T; LANES]; 64];

    pub(super) fn f32_loop() -> f64 {
        let (left, right) = (black_box([[1.0f32; LANES]; 64]), black_box([[1.0f32; LANES]; 64]));
        let mut sums = [0.0; LANES];
        for _ in 0..TURNS / left.len() {
            multiply_add_f32(black_box(&left), black_box(&right), &mut sums);
        }
        sums.iter().copied().map(f64::from).sum()
    }

    pub(super) fn bf16_loop() -> f64 {
        const ONE: u16 = 0x3f80;
        let (left, right) = (black_box([[ONE; LANES]; 64]), black_box([[ONE; LANES]; 64]));
        let mut sums = [0.0; LANES];
        for _ in 0..TURNS / left.len() {
            multiply_add_bf16(black_box(&left), black_box(&right), &mut sums);
        }
        sums.iter().copied().map(f64::from).sum()
    }

    pub(super) fn int8_loop() -> f64 {
        let (left, right) = (black_box([[1i8; LANES]; 64]), black_box([[1i8; LANES]; 64]));
        let mut sums = [0; LANES];
        for _ in 0..TURNS / left.len() {
            multiply_add_int8(black_box(&left), black_box(&right), &mut sums);
        }
        sums.iter().copied().map(f64::from).sum()
    }

    dispatched! {
        fn multiply_add_f32(left: &Operands<f32>, right: &Operands<f32>, sums: &mut [f32; LANES]) {
            for (left, right) in left.iter().zip(right) {
                for lane in 0..LANES {
                    sums[lane] += left[lane] * right[lane];
                }
            }
        }
    }

    dispatched! {
        fn multiply_add_bf16(left: &Operands<u16>, right: &Operands<u16>, sums: &mut [f32; LANES]) {
            for (left, right) in left.iter().zip(right) {
                for lane in 0..LANES {
                    let widened = |bits: u16| f32::from_bits(u32::from(bits) << 16);
                    sums[lane] += widened(left[lane]) * widened(right[lane]);
                }
            }
        }
    }

    dispatched! {
        fn multiply_add_int8(left: &Operands<i8>, right: &Operands<i8>, sums: &mut [i32; LANES]) {
            for (left, right) in left.iter().zip(right) {
                for lane in 0..LANES {
                    sums[lane] += i32::from(left[lane]) * i32::from(right[lane]);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{TURNS, black_box};
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32, _mm256_madd_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_setzero_si512,
    };
    use std::mem::transmute;

    /// Declares a loop over twelve sums of these vectors.
    macro_rules! chains {
        ($name:ident, $features:literal, $zero:ident, $splat:ident, $add_dot_products:ident, $lanes:literal) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name() -> f64 {
                let (left, right) = black_box(($splat(1), $splat(1)));
                let mut sums = [$zero(); 12];
                for _ in 0..TURNS {
                    for sum in &mut sums {
                        *sum = $add_dot_products(*sum, left, right);
                    }
                }
                // SAFETY: so many numbers are one vector.
                let numbers = |sum| unsafe { transmute::<_, [i32; $lanes]>(sum) };
                sums.into_iter().flat_map(numbers).map(f64::from).sum()
            }
        };
    }

    /// 16-bit integers, which 8-bit ones are widened to. Each sum has a factor of its own, read anew at each turn: equal
    /// products would be computed once.
    #[target_feature(enable = "avx2")]
    pub(super) fn integer_pairs() -> f64 {
        let (left, right) = ([_mm256_set1_epi16(1); 12], black_box(_mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..TURNS {
            for (sum, left) in sums.iter_mut().zip(black_box(&left)) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*left, right));
            }
        }
        // SAFETY: so many numbers are one vector.
        let numbers = |sum| unsafe { transmute::<_, [i32; 8]>(sum) };
        sums.into_iter().flat_map(numbers).map(f64::from).sum()
    }

    chains!(integer_chains, "avx512f,avx512vnni", _mm512_setzero_si512, _mm512_set1_epi8, _mm512_dpbusd_epi32, 16);
    chains!(integer_chains_avx, "avx2,avxvnni", _mm256_setzero_si256, _mm256_set1_epi8, _mm256_dpbusd_avx_epi32, 8);
    chains!(
        integer_chains_in_256,
        "avx2,avx512vl,avx512vnni",
        _mm256_setzero_si256,
        _mm256_set1_epi8,
        _mm256_dpbusd_epi32,
        8
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{TURNS, black_box};
    use crate::packed::add_dot_products;
    use std::arch::aarch64::{vaddvq_s32, vdupq_n_s8, vdupq_n_s32};

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn integer_chains() -> f64 {
        let (left, right) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
        let mut sums = [vdupq_n_s32(0); 24];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = add_dot_products::<0>(*sum, left, right);
            }
        }
        sums.iter().map(|sum| f64::from(vaddvq_s32(*sum))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_count(run: fn() -> f64, a_turn: usize) {
        assert_eq!(run() as usize, TURNS * a_turn);
    }

    #[test]
    fn loops_do_as_much_as_they_say() {
        for run in [portable::f32_loop, portable::bf16_loop, portable::int8_loop] {
            check_count(run, 64);
        }
        for kind in [Kind::F32, Kind::Bf16, Kind::Int8] {
            let Loop { instructions, run } = loop_of(kind);
            let a_turn = match instructions {
                "portable" => 64,
                "AVX2 FMA" | "NEON" => 6 * 16,
                "AVX2 pairs" => 12 * 16,
                "AVX-512" => 12 * 16,
                "AVX-512 BF16" => 12 * 32,
                "AVX-512 VNNI" => 12 * 64,
                "AVX-VNNI" | "AVX-512 VNNI in 256 bits" => 12 * 32,
                "NEON dot product" => 24 * 16,
                other => panic!("how much is {other}?"),
            };
            check_count(run, a_turn);
        }
    }

    /// A loop that the compiler saw through would be faster than any processor.
    #[test]
    fn every_peak_is_one_that_a_processor_can_have() {
        let Peaks { f32, bf16, int8, copy } = measure();
        for (rate, most_a_thread) in [(f32, 1e3), (bf16, 2e3), (int8, 4e3), (copy, 1e3)] {
            assert!(rate.one_thread > 0.01 && rate.one_thread < most_a_thread, "{rate:?}");
            let n_threads = rayon::current_num_threads() as f64;
            assert!(rate.all_threads > 0.01 && rate.all_threads < most_a_thread * n_threads, "{rate:?}");
        }
    }

    #[test]
    fn a_copy_goes_around() {
        let (source, mut target) = (vec![3; COPY_CHUNK + 1], vec![0; COPY_CHUNK + 1]);
        let mut copy = Copy { source: &source, target: &mut target, done: 0 };
        assert_eq!([copy.go_on(), copy.go_on(), copy.go_on()].map(|n| n as usize / 2), [COPY_CHUNK, 1, COPY_CHUNK]);
        assert_eq!(source, target);
    }
}
