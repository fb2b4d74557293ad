//! What the benches share: numbers to compute with, and a line that tells a kernel's share of the machine's peak.

use criterion::{Criterion, SamplingMode};
use kernels::peak::{Peaks, Rate};
use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Samples of each bench: the larger ones take seconds each.
const N_SAMPLES: usize = 10;

/// What one call of a kernel does, and which peak that is measured against.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Multiplications and additions in f32.
    F32(usize),
    /// Multiplications and additions of bfloat16.
    Bf16(usize),
    /// Multiplications and additions of 8-bit integers.
    Int8(usize),
    /// Bytes that must be read once and written once.
    Bytes(usize),
}

/// Measures a kernel on all threads, and prints what it reaches below criterion's line.
pub(crate) fn measure(criterion: &mut Criterion, name: &str, work: Work, mut run: impl FnMut()) {
    let times = RefCell::new(Vec::new());
    let mut group = criterion.benchmark_group("kernels");
    group.sample_size(N_SAMPLES).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(500));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|n| {
            let begin = Instant::now();
            for _ in 0..n {
                run();
            }
            let elapsed = begin.elapsed();
            times.borrow_mut().push(elapsed.as_secs_f64() / n as f64);
            elapsed
        });
    });
    group.finish();
    let mut times = times.into_inner();
    times.sort_unstable_by(f64::total_cmp);
    // None if the command line leaves this bench out.
    if let Some(median) = times.get(times.len() / 2) {
        println!("{name}: {}", work.told(*median));
    }
}

/// `n` numbers from -2 to 2, by a linear congruential generator.
pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

impl Work {
    fn told(self, seconds: f64) -> String {
        let Peaks { f32, bf16, int8, copy } = peaks();
        let told = |done: usize, unit: &str, peak: Rate, what: &str| {
            let (rate, peak) = (done as f64 / seconds / 1e9, peak.all_threads);
            format!("{rate:.1} {unit}, {:.0}% of the {what} of {peak:.0} {unit}", 100.0 * rate / peak)
        };
        match self {
            Self::F32(operations) => told(operations, "GFLOP/s", f32, "f32 peak"),
            Self::Bf16(operations) => told(operations, "GFLOP/s", bf16, "bf16 peak"),
            Self::Int8(operations) => told(operations, "GOP/s", int8, "int8 peak"),
            Self::Bytes(bytes) => told(bytes, "GB/s", copy, "copy bandwidth"),
        }
    }
}

/// Measured once, after the first bench has warmed the machine up; the best of several, since it is not alone.
fn peaks() -> Peaks {
    const TRIES: usize = 3;
    static PEAKS: OnceLock<Peaks> = OnceLock::new();
    *PEAKS.get_or_init(|| Peaks::best_of(TRIES))
}
