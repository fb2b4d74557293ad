//! Rotary position embedding of interleaved pairs, in place.

use crate::dispatch::dispatched;
use rayon::prelude::*;

/// Turns each pair `(x[2i], x[2i+1])` of every head by the position's angle.
///
/// # Shapes
/// - values: `(tokens, heads, dim)`; cos, sin: `(tokens, dim / 2)`
pub fn rotate_pairs(values: &mut [f32], n_heads: usize, cos: &[f32], sin: &[f32], dim: usize) {
    let n_tokens = cos.len() / (dim / 2);
    assert_eq!(values.len(), n_tokens * n_heads * dim, "rotate_pairs: the values do not fit the angles");
    assert_eq!(cos.len(), sin.len(), "rotate_pairs: the angles differ in length");
    let tokens = values.par_chunks_mut(n_heads * dim);
    tokens.zip(cos.par_chunks(dim / 2)).zip(sin.par_chunks(dim / 2)).with_min_len(16).for_each(
        |((heads, cos), sin)| {
            for head in heads.chunks_mut(dim) {
                rotate_head(head, cos, sin);
            }
        },
    );
}

dispatched! {
    pub(crate) fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (real, imaginary) = (pair[0], pair[1]);
            pair[0] = real * cos - imaginary * sin;
            pair[1] = imaginary * cos + real * sin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_a_pair() {
        let mut values = vec![1.0, 2.0, 3.0, 4.0];
        rotate_pairs(&mut values, 2, &[0.0], &[1.0], 2);
        assert_eq!(values, [-2.0, 1.0, -4.0, 3.0]);
    }
}
