//! How much arithmetic the layers of this thread have done: what a speed is told from.

use kernels::peak::Kind;
use std::cell::Cell;
use std::ops::Sub;

/// Operations of matrix products, convolutions and attention, by the number format that they were done in: a
/// multiplication and an addition are two. A convolution counts as if it were done directly, however it is done; what
/// is small beside these (norms, activations) is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub f32: u64,
    pub bf16: u64,
    pub int8: u64,
}

thread_local! {
    /// A thread's own, because an engine belongs to one thread.
    static DONE: Cell<Work> = const { Cell::new(Work { f32: 0, bf16: 0, int8: 0 }) };
}

/// What this thread has done since it began.
pub fn done() -> Work {
    DONE.get()
}

/// Counts this many multiplications, each with its addition.
pub(crate) fn note(kind: Kind, multiplications: usize) {
    let mut done = DONE.get();
    let count = match kind {
        Kind::F32 => &mut done.f32,
        Kind::Bf16 => &mut done.bf16,
        Kind::Int8 => &mut done.int8,
    };
    *count += 2 * multiplications as u64;
    DONE.set(done);
}

/// What was done between two looks.
impl Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { f32: self.f32 - earlier.f32, bf16: self.bf16 - earlier.bf16, int8: self.int8 - earlier.int8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Heads, Mask, attend};
    use crate::conv::{Conv2d, Form};
    use crate::files::ModelFiles;
    use crate::linear::Linear;
    use crate::{Result, Weights, values};
    use candle_core::Tensor;
    use safetensors::tensor::{Dtype, TensorView};
    use std::sync::Arc;

    /// Zeros for every name.
    fn weights(tensors: &[(&str, &[usize])]) -> Weights {
        let n_bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>();
        let zeros = vec![0; tensors.iter().map(|(_, shape)| n_bytes(shape)).max().unwrap_or(0)];
        let view = |shape: &[usize]| TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..n_bytes(shape)]).unwrap();
        let file = safetensors::serialize(tensors.iter().map(|(name, shape)| (*name, view(shape))), None).unwrap();
        Weights::open(&ModelFiles::Embedded(Arc::from([("part/model.safetensors", &*file.leak())])), "part").unwrap()
    }

    fn zeros(shape: &[usize]) -> Tensor {
        values::tensor(vec![0.0; shape.iter().product()], shape).unwrap()
    }

    #[track_caller]
    fn check(layer: impl FnOnce() -> Result<Tensor>, multiplications: u64) {
        let before = done();
        layer().unwrap();
        assert_eq!(done() - before, Work { f32: 2 * multiplications, ..Work::default() });
    }

    #[test]
    fn layers_count_what_their_definition_multiplies() {
        let weights = weights(&[("weight", &[5, 3]), ("conv.weight", &[4, 2, 3, 3])]);
        let linear = Linear::without_bias(&weights, 3, 5).unwrap();
        check(|| linear.forward(&zeros(&[2, 7, 3])), 2 * 7 * 3 * 5);
        let conv = Conv2d::without_bias(&weights.at("conv"), Form::same(2, 4)).unwrap();
        check(|| conv.forward(&zeros(&[3, 2, 6, 5])), 3 * 4 * 6 * 5 * 2 * 9);
        let (q, k) = (zeros(&[2, 6, 8]), zeros(&[2, 4, 8]));
        check(|| attend(&q, &k, &k, Heads::plain(2, 4)), 2 * 2 * 6 * 4 * 8);
        let causal = Heads { mask: Mask::Causal, ..Heads::plain(2, 4) };
        check(|| attend(&k, &k, &k, causal), 2 * 2 * (1 + 2 + 3 + 4) * 8);
    }

    #[test]
    fn a_thread_counts_its_own() {
        note(Kind::Int8, 3);
        let of_another = std::thread::spawn(|| {
            note(Kind::Bf16, 5);
            done()
        });
        assert_eq!(of_another.join().unwrap(), Work { bf16: 10, ..Work::default() });
        let ours = done();
        assert!(ours.int8 >= 6 && ours.bf16 == 0, "{ours:?}");
    }
}
