//! Products with packed weights, at the shapes of FLUX.1's linear layers, CLIP's, and a modulation's.

use crate::meter::{Work, measure, numbers};
use criterion::Criterion;
use kernels::packed::{Bf16Weight, Epilogue, Input, Int8Weight, SingleWeight};

/// Rows, inputs, outputs.
const SHAPES: [(usize, usize, usize); 3] = [(1536, 3072, 12288), (77, 768, 3072), (1, 3072, 18432)];

pub(crate) fn bench(criterion: &mut Criterion) {
    for (rows, inputs, outputs) in SHAPES {
        let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let operations = 2 * rows * inputs * outputs;
        let shape = format!("{rows}x{inputs}x{outputs}");
        let mut out = vec![0.0; rows * outputs];
        let single = SingleWeight::pack(&weight, inputs);
        measure(criterion, &format!("linear f32 {shape}"), Work::F32(operations), || {
            single.multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
        });
        let bf16 = Bf16Weight::pack(&weight, inputs);
        measure(criterion, &format!("linear bf16 {shape}"), Work::Bf16(operations), || {
            bf16.multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
        });
        let int8 = Int8Weight::pack(&weight, inputs);
        measure(criterion, &format!("linear int8 {shape}"), Work::Int8(operations), || {
            int8.multiply(&Input::of(&x, inputs), Epilogue::default(), &mut out);
        });
    }
}
