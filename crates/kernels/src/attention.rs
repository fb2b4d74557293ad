//! Scaled dot-product attention by online softmax: no score matrix larger than one block.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv:1805.02867); Dao et al.,
//! "FlashAttention" (arXiv:2205.14135).

use crate::dispatch::dispatched;
use crate::math;
use crate::matmul::{Matrix, Mode, Target, Threads, multiply};
use rayon::prelude::*;

/// Queries that one thread takes at a time.
const QUERY_BLOCK: usize = 256;
/// Keys whose scores are held at a time.
const KEY_BLOCK: usize = 512;

/// Queries, keys and values of one sequence, heads interleaved as linear layers leave them.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// `(queries, heads, dim)`
    pub q: &'a [f32],
    /// `(keys, heads, dim)`
    pub k: &'a [f32],
    /// `(keys, heads, dim)`
    pub v: &'a [f32],
    pub n_heads: usize,
    pub dim: usize,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    pub mask: Mask<'a>,
}

/// What is added to the scores.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    None,
    /// A query sees its own position and what stands before it.
    Causal,
    /// `(heads, queries, keys)`, added to the scaled scores.
    Bias(&'a [f32]),
}

/// Attends; the output has the layout of the queries.
///
/// # Shapes
/// - out: `(queries, heads, dim)`
pub fn attend(attention: Attention<'_>, out: &mut [f32]) {
    let Attention { q, k, v, n_heads, dim, .. } = attention;
    let width = n_heads * dim;
    assert!(width > 0 && q.len().is_multiple_of(width) && k.len().is_multiple_of(width), "attend: ragged heads");
    assert_eq!(k.len(), v.len(), "attend: keys and values differ in length");
    assert_eq!(q.len(), out.len(), "attend: the output does not fit");
    let n_queries = q.len() / width;
    let n_keys = k.len() / width;
    if let Mask::Bias(bias) = attention.mask {
        assert_eq!(bias.len(), n_heads * n_queries * n_keys, "attend: the bias does not fit");
    }
    // Each head's rows are brought together first: products then read memory in order.
    let (q, k, v) = (split_heads(q, n_heads, dim), split_heads(k, n_heads, dim), split_heads(v, n_heads, dim));
    let mut split_out = vec![0.0; out.len()];
    let block = query_block(n_queries);
    let heads = split_out.par_chunks_mut(n_queries * dim).enumerate();
    heads.for_each(|(head, out)| {
        let (k, v) = (&k[head * n_keys * dim..][..n_keys * dim], &v[head * n_keys * dim..][..n_keys * dim]);
        let q = &q[head * n_queries * dim..][..n_queries * dim];
        out.par_chunks_mut(block * dim).zip(q.par_chunks(block * dim)).enumerate().for_each(|(idx, (out, q))| {
            let place = Place { head, first_query: idx * block, n_queries, n_keys };
            attend_block(&attention, place, &HeadRows { q, k, v }, out);
        });
    });
    out.par_chunks_mut(width).enumerate().for_each(|(token, row)| {
        for (head, row) in row.chunks_mut(dim).enumerate() {
            row.copy_from_slice(&split_out[(head * n_queries + token) * dim..][..dim]);
        }
    });
}

/// `(tokens, heads, dim)` to `(heads, tokens, dim)`.
fn split_heads(values: &[f32], n_heads: usize, dim: usize) -> Vec<f32> {
    let width = n_heads * dim;
    let n_tokens = values.len() / width;
    let mut split = vec![0.0; values.len()];
    split.par_chunks_mut((n_tokens * dim).max(1)).enumerate().for_each(|(head, rows)| {
        for (row, token) in rows.chunks_mut(dim).zip(values.chunks(width)) {
            row.copy_from_slice(&token[head * dim..][..dim]);
        }
    });
    split
}

/// Short sequences get smaller blocks, so that several threads have work; a function of the shape alone.
fn query_block(n_queries: usize) -> usize {
    n_queries.div_ceil(4).next_multiple_of(16).min(QUERY_BLOCK)
}

/// Which queries of the whole a block holds.
#[derive(Clone, Copy)]
struct Place {
    head: usize,
    first_query: usize,
    n_queries: usize,
    n_keys: usize,
}

/// One head's rows, `(rows, dim)` each: a block's queries, all keys, all values.
struct HeadRows<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

fn attend_block(attention: &Attention<'_>, place: Place, rows: &HeadRows<'_>, out: &mut [f32]) {
    let dim = attention.dim;
    let n_queries = out.len() / dim;
    let queries = Matrix::row_major(rows.q, n_queries, dim);
    let mut scores = vec![0.0; n_queries * KEY_BLOCK.min(place.n_keys)];
    let mut maxima = vec![f32::NEG_INFINITY; n_queries];
    let mut sums = vec![0.0; n_queries];
    out.fill(0.0);
    for (block_idx, (k, v)) in rows.k.chunks(KEY_BLOCK * dim).zip(rows.v.chunks(KEY_BLOCK * dim)).enumerate() {
        let first_key = block_idx * KEY_BLOCK;
        if matches!(attention.mask, Mask::Causal) && first_key >= place.first_query + n_queries {
            break;
        }
        let n_keys = k.len() / dim;
        let scores = &mut scores[..n_queries * n_keys];
        let keys = Matrix::row_major(k, n_keys, dim).transposed();
        let target = Target { values: scores, row_stride: n_keys, mode: Mode::Overwrite };
        multiply(queries, keys, attention.scale, target, Threads::One);
        for (row, scores) in scores.chunks_mut(n_keys).enumerate() {
            apply_mask(attention.mask, place, MaskRow { query: place.first_query + row, first_key }, scores);
            absorb(scores, &mut maxima[row], &mut sums[row], &mut out[row * dim..(row + 1) * dim]);
        }
        let target = Target { values: out, row_stride: dim, mode: Mode::Accumulate };
        let weights = Matrix::row_major(scores, n_queries, n_keys);
        multiply(weights, Matrix::row_major(v, n_keys, dim), 1.0, target, Threads::One);
    }
    for (row, sum) in out.chunks_mut(dim).zip(&sums) {
        for value in row {
            *value /= sum;
        }
    }
}

#[derive(Clone, Copy)]
struct MaskRow {
    query: usize,
    first_key: usize,
}

fn apply_mask(mask: Mask<'_>, place: Place, row: MaskRow, scores: &mut [f32]) {
    match mask {
        Mask::None => {}
        Mask::Causal => {
            let n_visible = (row.query + 1).saturating_sub(row.first_key).min(scores.len());
            scores[n_visible..].fill(f32::NEG_INFINITY);
        }
        Mask::Bias(bias) => {
            let start = (place.head * place.n_queries + row.query) * place.n_keys + row.first_key;
            for (score, bias) in scores.iter_mut().zip(&bias[start..]) {
                *score += bias;
            }
        }
    }
}

dispatched! {
    /// Turns scores into weights relative to the new maximum, and rescales what was summed under the old one.
    fn absorb(scores: &mut [f32], maximum: &mut f32, sum: &mut f32, weighted: &mut [f32]) {
        let mut highest = [f32::NEG_INFINITY; 16];
        for chunk in scores.chunks(16) {
            for (highest, score) in highest.iter_mut().zip(chunk) {
                *highest = if *score > *highest { *score } else { *highest };
            }
        }
        let block_maximum = highest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let new_maximum = maximum.max(block_maximum);
        if new_maximum == f32::NEG_INFINITY {
            // Nothing is visible yet: no weight, not a NaN.
            scores.fill(0.0);
            return;
        }
        let correction = math::exp(*maximum - new_maximum);
        if correction != 1.0 {
            *sum *= correction;
            for value in weighted {
                *value *= correction;
            }
        }
        *maximum = new_maximum;
        let mut sums = [0.0f32; 16];
        for chunk in scores.chunks_mut(16) {
            for (score, sum) in chunk.iter_mut().zip(&mut sums) {
                *score = math::exp(*score - new_maximum);
                *sum += *score;
            }
        }
        *sum += sums.iter().sum::<f32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// The definition, in f64, with the whole score matrix.
    fn plainly(attention: Attention<'_>) -> Vec<f32> {
        let Attention { q, k, v, n_heads, dim, scale, mask } = attention;
        let width = n_heads * dim;
        let (n_queries, n_keys) = (q.len() / width, k.len() / width);
        let mut out = vec![0.0; q.len()];
        for head in 0..n_heads {
            for query in 0..n_queries {
                let at = |values: &[f32], row: usize, i: usize| f64::from(values[row * width + head * dim + i]);
                let weights: Vec<f64> = (0..n_keys)
                    .map(|key| {
                        let dot: f64 = (0..dim).map(|i| at(q, query, i) * at(k, key, i)).sum();
                        let added = match mask {
                            Mask::None => 0.0,
                            Mask::Causal => {
                                if key > query {
                                    f64::NEG_INFINITY
                                } else {
                                    0.0
                                }
                            }
                            Mask::Bias(bias) => f64::from(bias[(head * n_queries + query) * n_keys + key]),
                        };
                        (dot * f64::from(scale) + added).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                for i in 0..dim {
                    let value: f64 = (0..n_keys).map(|key| weights[key] * at(v, key, i)).sum();
                    out[query * width + head * dim + i] = (value / sum) as f32;
                }
            }
        }
        out
    }

    #[track_caller]
    fn check(n_queries: usize, n_keys: usize, n_heads: usize, dim: usize, mask: Mask<'_>) {
        let width = n_heads * dim;
        let (q, k, v) = (numbers(n_queries * width, 1), numbers(n_keys * width, 2), numbers(n_keys * width, 3));
        let attention = Attention { q: &q, k: &k, v: &v, n_heads, dim, scale: (dim as f32).powf(-0.5), mask };
        let mut out = vec![f32::NAN; q.len()];
        attend(attention, &mut out);
        for (idx, (got, expected)) in out.iter().zip(plainly(attention)).enumerate() {
            assert!((got - expected).abs() < 2e-6, "element {idx}: {got} instead of {expected}");
        }
    }

    #[test]
    fn blocks_give_what_the_definition_gives() {
        check(1, 1, 1, 1, Mask::None);
        check(3, 5, 2, 8, Mask::None);
        check(200, 600, 3, 32, Mask::None);
        check(129, 257, 1, 64, Mask::None);
    }

    #[test]
    fn a_causal_mask_hides_the_future() {
        check(77, 77, 4, 8, Mask::Causal);
        check(300, 300, 2, 8, Mask::Causal);
    }

    #[test]
    fn a_bias_is_added_per_head() {
        check(70, 70, 2, 16, Mask::Bias(&numbers(2 * 70 * 70, 9)));
        check(270, 270, 2, 4, Mask::Bias(&numbers(2 * 270 * 270, 9)));
    }
}
