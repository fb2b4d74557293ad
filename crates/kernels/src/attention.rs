//! Scaled dot-product attention by online softmax: no score matrix larger than one block.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv:1805.02867); Dao et al.,
//! "FlashAttention" (arXiv:2205.14135).

use crate::dispatch::dispatched;
use crate::math;
use crate::matmul::{Matrix, Mode, Target, Threads, multiply};
use rayon::prelude::*;

/// Queries that one thread takes at a time.
const QUERY_BLOCK: usize = 128;
/// Keys whose scores are held at a time.
const KEY_BLOCK: usize = 256;

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
    // Work is cut into blocks of queries, each thread then walks the heads: output rows are disjoint slices.
    let block = query_block(n_queries, n_heads);
    out.par_chunks_mut(block * width).enumerate().for_each(|(block_idx, out)| {
        let mut scratch = Scratch::new(out.len() / width, dim);
        for head in 0..n_heads {
            attend_block(&attention, Block { head, first_query: block_idx * block, n_keys }, &mut scratch, out);
        }
    });
}

/// Short sequences get smaller blocks, so that several threads have work; a function of the shape alone.
fn query_block(n_queries: usize, n_heads: usize) -> usize {
    let fair = n_queries.div_ceil(8).next_multiple_of(16);
    let block = fair.clamp(16, QUERY_BLOCK);
    if n_heads * n_queries < 64 { n_queries.max(1) } else { block }
}

#[derive(Clone, Copy)]
struct Block {
    head: usize,
    first_query: usize,
    n_keys: usize,
}

/// One thread's working memory.
struct Scratch {
    /// `(queries, KEY_BLOCK)`
    scores: Vec<f32>,
    /// `(queries, dim)`, not yet divided by the sums.
    weighted: Vec<f32>,
    /// `(queries)`
    maxima: Vec<f32>,
    /// `(queries)`
    sums: Vec<f32>,
}

impl Scratch {
    fn new(n_queries: usize, dim: usize) -> Self {
        Self {
            scores: vec![0.0; n_queries * KEY_BLOCK],
            weighted: vec![0.0; n_queries * dim],
            maxima: vec![0.0; n_queries],
            sums: vec![0.0; n_queries],
        }
    }
}

fn attend_block(attention: &Attention<'_>, block: Block, scratch: &mut Scratch, out: &mut [f32]) {
    let Attention { q, k, v, n_heads, dim, scale, .. } = *attention;
    let width = n_heads * dim;
    let n_queries = out.len() / width;
    let head = |values: &'_ [f32], first: usize| first * width + block.head * dim..values.len();
    let queries = &q[head(q, block.first_query)];
    let strided = |values, rows| Matrix { values, rows, columns: dim, row_stride: width, column_stride: 1 };

    scratch.weighted.fill(0.0);
    scratch.maxima.fill(f32::NEG_INFINITY);
    scratch.sums.fill(0.0);
    for first_key in (0..block.n_keys).step_by(KEY_BLOCK) {
        let n_keys = KEY_BLOCK.min(block.n_keys - first_key);
        if matches!(attention.mask, Mask::Causal) && first_key >= block.first_query + n_queries {
            break;
        }
        let scores = &mut scratch.scores[..n_queries * n_keys];
        let keys = strided(&k[head(k, first_key)], n_keys).transposed();
        let target = Target { values: scores, row_stride: n_keys, mode: Mode::Overwrite };
        multiply(strided(queries, n_queries), keys, scale, target, Threads::One);
        for (row, scores) in scores.chunks_mut(n_keys).enumerate() {
            apply_mask(
                attention.mask,
                block,
                MaskRow { query: block.first_query + row, first_key },
                scores,
                q.len() / width,
            );
            let weighted = &mut scratch.weighted[row * dim..(row + 1) * dim];
            absorb(scores, &mut scratch.maxima[row], &mut scratch.sums[row], weighted);
        }
        let values = strided(&v[head(v, first_key)], n_keys);
        let target = Target { values: &mut scratch.weighted, row_stride: dim, mode: Mode::Accumulate };
        multiply(Matrix::row_major(scores, n_queries, n_keys), values, 1.0, target, Threads::One);
    }
    for (row, sum) in scratch.sums.iter().enumerate() {
        let to = &mut out[row * width + block.head * dim..][..dim];
        for (to, from) in to.iter_mut().zip(&scratch.weighted[row * dim..(row + 1) * dim]) {
            *to = from / sum;
        }
    }
}

#[derive(Clone, Copy)]
struct MaskRow {
    query: usize,
    first_key: usize,
}

fn apply_mask(mask: Mask<'_>, block: Block, row: MaskRow, scores: &mut [f32], n_queries: usize) {
    match mask {
        Mask::None => {}
        Mask::Causal => {
            let n_visible = (row.query + 1).saturating_sub(row.first_key).min(scores.len());
            scores[n_visible..].fill(f32::NEG_INFINITY);
        }
        Mask::Bias(bias) => {
            let start = (block.head * n_queries + row.query) * block.n_keys + row.first_key;
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

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
        };
        std::iter::repeat_with(next).take(n).collect()
    }

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
