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

/// `out = left + right`, element by element.
pub fn add(left: &[f32], right: &[f32], out: &mut [f32]) {
    assert!(left.len() == right.len() && left.len() == out.len(), "add: lengths differ");
    let inputs = left.par_chunks(CHUNK).zip(right.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, (left, right))| add_chunk(left, right, out));
}

/// `out = left * right`, element by element.
pub fn multiply(left: &[f32], right: &[f32], out: &mut [f32]) {
    assert!(left.len() == right.len() && left.len() == out.len(), "multiply: lengths differ");
    let inputs = left.par_chunks(CHUNK).zip(right.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, (left, right))| multiply_chunk(left, right, out));
}

/// The first half of every row, times the activated second half.
///
/// # Shapes
/// - values: `(rows, 2n)`; out: `(rows, n)`
pub fn gate_halves(activation: Activation, values: &[f32], n: usize, out: &mut [f32]) {
    assert!(n > 0 && out.len().is_multiple_of(n), "gate_halves: rows are not whole");
    assert_eq!(values.len(), 2 * out.len(), "gate_halves: lengths differ");
    let batch = row_batch(2 * n);
    out.par_chunks_mut(batch * n).zip(values.par_chunks(batch * 2 * n)).for_each(|(out, rows)| {
        let mut gates = vec![0.0; n];
        for (out, row) in out.chunks_exact_mut(n).zip(rows.chunks_exact(2 * n)) {
            gates.copy_from_slice(&row[n..]);
            activate_here(activation, &mut gates);
            multiply_chunk(&row[..n], &gates, out);
        }
    });
}

/// `out = values + gate * update`: the gated residual of a modulated block. `gate` has one factor per column.
///
/// # Shapes
/// - values, update, out: `(rows, n)`; gate: `(n)`
pub fn add_gated(values: &[f32], gate: &[f32], update: &[f32], out: &mut [f32]) {
    let n = gate.len();
    assert!(values.len() == update.len() && values.len() == out.len(), "add_gated: lengths differ");
    assert!(n > 0 && values.len().is_multiple_of(n), "add_gated: rows are not whole");
    let inputs = values.par_chunks(n).zip(update.par_chunks(n));
    out.par_chunks_mut(n).zip(inputs).with_min_len(row_batch(n)).for_each(|(out, (row, update))| {
        add_gated_row(row, gate, update, out);
    });
}

/// Rows of `n` elements that make a chunk worth a thread's while.
pub(crate) fn row_batch(n: usize) -> usize {
    (CHUNK / n).max(1)
}

dispatched! {
    fn gelu_tanh(chunk: &mut [f32]) {
        // (1 + tanh y) / 2 is 1 / (1 + e^-2y): one exponential instead of a tangent of two branches.
        const FACTOR: f32 = -2.0 * 0.797_884_6 * std::f32::consts::LOG2_E;
        for x in chunk {
            let exponent = FACTOR * (*x + 0.044_715 * *x * *x * *x);
            // Beyond this the quotient is nothing, and the exponential would leave its range.
            *x /= 1.0 + math::exp2(if exponent > 126.0 { 126.0 } else { exponent });
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
    fn add_chunk(left: &[f32], right: &[f32], out: &mut [f32]) {
        for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
            *out = left + right;
        }
    }
}

dispatched! {
    fn multiply_chunk(left: &[f32], right: &[f32], out: &mut [f32]) {
        for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
            *out = left * right;
        }
    }
}

dispatched! {
    fn add_gated_row(row: &[f32], gate: &[f32], update: &[f32], out: &mut [f32]) {
        for (((out, x), gate), update) in out.iter_mut().zip(row).zip(gate).zip(update) {
            *out = x + gate * update;
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
        check(Activation::GeluTanh, -40.0, 0.0);
        check(Activation::GeluTanh, 40.0, 40.0);
        check(Activation::Silu, -100.0, 0.0);
    }

    #[test]
    fn a_gated_residual_scales_each_column() {
        let mut out = [0.0; 4];
        add_gated(&[1.0, 2.0, 3.0, 4.0], &[10.0, 0.5], &[1.0, 2.0, 3.0, 4.0], &mut out);
        assert_eq!(out, [11.0, 3.0, 33.0, 6.0]);
    }

    #[test]
    fn sums_and_products_are_by_element() {
        let (left, right): (Vec<f32>, Vec<f32>) = (0..CHUNK + 3).map(|i| (i as f32, (i % 5) as f32)).unzip();
        let (mut sums, mut products) = (vec![0.0; CHUNK + 3], vec![0.0; CHUNK + 3]);
        add(&left, &right, &mut sums);
        multiply(&left, &right, &mut products);
        for (idx, (left, right)) in left.iter().zip(&right).enumerate() {
            assert_eq!((sums[idx], products[idx]), (left + right, left * right));
        }
    }

    #[test]
    fn the_second_half_of_a_row_gates_the_first() {
        let mut out = [0.0; 4];
        gate_halves(Activation::Silu, &[2.0, 3.0, 0.0, 1.0, 4.0, 5.0, -100.0, 1.0], 2, &mut out);
        let silu_of_one = 0.731_058_6;
        let expected = [0.0, 3.0 * silu_of_one, 0.0, 5.0 * silu_of_one];
        assert!(out.iter().zip(expected).all(|(ours, theirs)| (ours - theirs).abs() < 1e-6), "{out:?}");
    }
}
