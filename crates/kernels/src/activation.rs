//! Activations and the small element-wise steps between layers, one pass each, in place.

use crate::dispatch::dispatched;
use crate::math;
use rayon::prelude::*;

/// Elements that one thread takes at a time: small enough for a core's second-level cache.
const CHUNK: usize = 32 * 1024;

/// The non-linearities of the models, by their reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`: FLUX's `gelu-approximate`, T5's `gelu_new`.
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`: the exact GELU.
    GeluErf,
    /// `x sigmoid(1.702 x)`: CLIP's.
    QuickGelu,
    /// `x sigmoid(x)`.
    Silu,
}

/// Applies an activation to every element.
pub fn activate(activation: Activation, values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| activate_here(activation, chunk));
}

/// [`activate`] on the caller's own thread.
pub(crate) fn activate_here(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::GeluTanh => gelu_tanh(values),
        Activation::GeluErf => gelu_erf(values),
        Activation::QuickGelu => quick_gelu(values),
        Activation::Silu => silu(values),
    }
}

/// `values *= factors`, element by element.
pub fn multiply(values: &mut [f32], factors: &[f32]) {
    assert_eq!(values.len(), factors.len(), "multiply: lengths differ");
    values
        .par_chunks_mut(CHUNK)
        .zip(factors.par_chunks(CHUNK))
        .for_each(|(chunk, factors)| multiply_chunk(chunk, factors));
}

/// `values += gate * update`: the gated residual of a modulated block. `gate` has one factor per column.
///
/// # Shapes
/// - values, update: `(rows, n)`; gate: `(n)`
pub fn add_gated(values: &mut [f32], gate: &[f32], update: &[f32]) {
    let n = gate.len();
    assert_eq!(values.len(), update.len(), "add_gated: lengths differ");
    assert!(n > 0 && values.len().is_multiple_of(n), "add_gated: rows are not whole");
    values.par_chunks_mut(n).zip(update.par_chunks(n)).with_min_len(row_batch(n)).for_each(|(row, update)| {
        add_gated_row(row, gate, update);
    });
}

/// Rows of `n` elements that make a chunk worth a thread's while.
pub(crate) fn row_batch(n: usize) -> usize {
    (CHUNK / n).max(1)
}

dispatched! {
    fn gelu_tanh(chunk: &mut [f32]) {
        for x in chunk {
            let inner = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x = 0.5 * *x * (1.0 + math::tanh(inner));
        }
    }
}

dispatched! {
    fn gelu_erf(chunk: &mut [f32]) {
        for x in chunk {
            *x = 0.5 * *x * (1.0 + math::erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

dispatched! {
    fn quick_gelu(chunk: &mut [f32]) {
        for x in chunk {
            *x /= 1.0 + math::exp(-1.702 * *x);
        }
    }
}

dispatched! {
    fn silu(chunk: &mut [f32]) {
        for x in chunk {
            *x /= 1.0 + math::exp(-*x);
        }
    }
}

dispatched! {
    fn multiply_chunk(chunk: &mut [f32], factors: &[f32]) {
        for (x, factor) in chunk.iter_mut().zip(factors) {
            *x *= factor;
        }
    }
}

dispatched! {
    fn add_gated_row(row: &mut [f32], gate: &[f32], update: &[f32]) {
        for ((x, gate), update) in row.iter_mut().zip(gate).zip(update) {
            *x += gate * update;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(activation: Activation, x: f32, expected: f64) {
        let mut values = [x];
        activate(activation, &mut values);
        assert!((f64::from(values[0]) - expected).abs() < 3e-7, "{activation:?}({x}) = {}", values[0]);
    }

    #[test]
    fn the_flavors_of_gelu_differ_as_they_should() {
        check(Activation::GeluTanh, 1.0, 0.841_191_990_607_477);
        check(Activation::GeluErf, 1.0, 0.841_344_746_068_543);
        check(Activation::QuickGelu, 1.0, 0.845_795_769_240_856);
        check(Activation::Silu, 1.0, 0.731_058_578_630_005);
        check(Activation::GeluTanh, -1.5, -0.100_428_4);
        check(Activation::Silu, -100.0, 0.0);
    }

    #[test]
    fn a_gated_residual_scales_each_column() {
        let mut values = vec![1.0, 2.0, 3.0, 4.0];
        add_gated(&mut values, &[10.0, 0.5], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(values, [11.0, 3.0, 33.0, 6.0]);
    }
}
