//! The number formats that layers multiply in, and which of them is fastest here.

use kernels::packed::{Bf16Weight, Epilogue, Input, Int8Weight, SingleWeight};
use kernels::peak::Kind;
use kernels::products::Products;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The number format of a layer's products. Sums, norms, softmax and all that passes between layers are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// Weights and inputs as they are.
    #[default]
    F32,
    /// Weights and inputs are rounded to 8 significant bits. Where the processor does not multiply bf16, only weights are.
    Bf16,
    /// Weights and inputs are rounded to 8-bit integers, each block of a row with a scale of its own.
    Int8,
}

impl Precision {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// What attention and convolutions multiply, which have no int8 of their own (ADR 0010).
    pub(crate) fn products(self) -> (Products, Kind) {
        let products = match self {
            Self::F32 => Products::F32,
            Self::Bf16 | Self::Int8 => Products::Bf16.here(),
        };
        (products, if products == Products::Bf16 { Kind::Bf16 } else { Kind::F32 })
    }

    /// The fastest one on this processor, measured once, in some 50 ms. What is not clearly faster than a more exact one
    /// is not worth its loss.
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Precision> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let [f32, bf16, int8] = durations();
            let best =
                if f32.as_secs_f64() > WORTHWHILE * bf16.as_secs_f64() { (Self::Bf16, bf16) } else { (Self::F32, f32) };
            if best.1.as_secs_f64() > WORTHWHILE * int8.as_secs_f64() { Self::Int8 } else { best.0 }
        })
    }
}

/// How much faster a rounder format must be.
const WORTHWHILE: f64 = 1.25;
/// Rows, inputs and outputs of the layer that is timed: large enough to be typical, small enough for a moment.
const TIMED: [usize; 3] = [192, 1024, 1024];
/// Of each format; the shortest counts, since what disturbs a measurement makes it longer.
const N_TIMED: usize = 3;

/// How long one product takes in f32, bf16 and int8.
fn durations() -> [Duration; 3] {
    let [rows, inputs, outputs] = TIMED;
    let pattern = |n: usize| -> Vec<f32> { (0..n).map(|idx| (idx * 37 % 101) as f32 / 101.0 - 0.503).collect() };
    let (x, weight) = (pattern(rows * inputs), pattern(outputs * inputs));
    let mut out = vec![0.0; rows * outputs];
    let mut shortest = |multiply: &dyn Fn(&mut [f32])| {
        let time = |_| {
            let begun = Instant::now();
            multiply(&mut out);
            begun.elapsed()
        };
        (0..N_TIMED).map(time).min().unwrap_or_default()
    };
    let single = SingleWeight::pack(&weight, inputs);
    let f32 = shortest(&|out| single.multiply(&Input::of(&x, inputs), Epilogue::default(), out));
    let bf16 = Bf16Weight::pack(&weight, inputs);
    let bf16 = shortest(&|out| bf16.multiply(&Input::of(&x, inputs), Epilogue::default(), out));
    let int8 = Int8Weight::pack(&weight, inputs);
    let int8 = shortest(&|out| int8.multiply(&Input::of(&x, inputs), Epilogue::default(), out));
    [f32, bf16, int8]
}
