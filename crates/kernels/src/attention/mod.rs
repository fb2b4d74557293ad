//! Scaled dot-product attention by online softmax: no score matrix larger than one tile.
//!
//! Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv:1805.02867); Dao et al.,
//! "FlashAttention" (arXiv:2205.14135). Keys and values of a head are packed once, in the order in which the products
//! read them; a tile of [`TILE_ROWS`] queries meets a block of them while it lies in a core's cache.

mod pack;
mod tile;

use crate::products::Products;
use crate::target::Target;
use crate::tile::{PANEL, PanelLine, TILE_ROWS, Tile};
use crate::unit::{Bf16Pair, Unit};
use pack::Rows;
use rayon::prelude::*;
use std::f32::consts::LOG2_E;
use tile::{Scores, Softmax};

/// Most keys whose scores a tile holds at a time: they and the lines that pass by stay in a first-level cache.
const KEY_BLOCK_MAX: usize = 256;
/// Numbers of a block of keys, and as many of values: both stay in a second-level cache for all tiles of a task.
const BLOCK_NUMBERS: usize = 32 * 1024;
/// Sums of one task: they share that cache.
const TASK_NUMBERS: usize = 24 * 1024;
/// Tiles of a task; one that is long enough hides the time in which the next block comes from memory.
const TASK_TILES_MAX: usize = 16;
/// Tasks that a head is cut into if it has so many tiles, so that several threads have work.
const TASKS_MIN: usize = 4;

/// Queries, keys and values of one sequence, heads interleaved as linear layers leave them.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub q: Operand<'a>,
    /// As many tokens as there are values.
    pub k: Operand<'a>,
    pub v: Operand<'a>,
    pub n_heads: usize,
    pub dim: usize,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    pub mask: Mask<'a>,
    /// Of queries and keys, and of weights and values. The softmax is f32.
    pub products: Products,
}

/// The tokens' rows, and what happens to each head of them on the way to the product.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Tokens from several places, one after the other.
    pub parts: &'a [Part<'a>],
    /// Turns the heads of every token, after their norm.
    pub angles: Option<Angles<'a>>,
}

impl<'a> Operand<'a> {
    pub fn of(parts: &'a [Part<'a>]) -> Self {
        Self { parts, angles: None }
    }
}

#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// `(tokens, heads, dim)`
    pub values: &'a [f32],
    /// Over the elements of each head.
    pub norm: Option<RmsNorm<'a>>,
}

impl<'a> Part<'a> {
    pub fn of(values: &'a [f32]) -> Self {
        Self { values, norm: None }
    }
}

/// An RMS norm; see [`crate::norm::rms_norm`].
#[derive(Clone, Copy)]
pub struct RmsNorm<'a> {
    /// `(dim)`
    pub weight: &'a [f32],
    pub eps: f32,
}

/// Rotary angles; see [`crate::rope::rotate_pairs`].
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// `(tokens, dim / 2)`
    pub cos: &'a [f32],
    /// `(tokens, dim / 2)`
    pub sin: &'a [f32],
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
    assert!(width > 0, "attend: no heads");
    let [q, k, v] = [q, k, v].map(|operand| Rows::new(operand, n_heads, dim));
    assert_eq!(k.len(), v.len(), "attend: keys and values differ in length");
    assert_eq!(q.len() * width, out.len(), "attend: the output does not fit");
    let plan = Plan::of(q.len(), k.len(), dim);
    if let Mask::Bias(bias) = attention.mask {
        assert_eq!(bias.len(), n_heads * plan.n_queries * plan.n_keys, "attend: the bias does not fit");
    }
    if out.is_empty() {
        return;
    }
    assert!(plan.n_keys > 0, "attend: no keys");
    let target = Target { values: out.as_mut_ptr(), row_stride: width };
    match attention.products.here() {
        Products::Bf16 => attend_in::<Bf16Pair>([q, k, v], attention, plan, target),
        Products::F32 => attend_in::<f32>([q, k, v], attention, plan, target),
    }
}

/// [`attend`] in one format.
fn attend_in<U: Unit>([q, k, v]: [Rows<'_>; 3], attention: Attention<'_>, plan: Plan, target: Target) {
    let Attention { n_heads, dim, .. } = attention;
    (0..n_heads).into_par_iter().for_each(|head| {
        let keys: Vec<PanelLine<U>> = pack::keys(k, head);
        let values = pack::values(v, head, plan.key_block);
        let task_queries = plan.task_tiles * TILE_ROWS;
        (0..plan.n_queries.div_ceil(task_queries)).into_par_iter().for_each(|task| {
            let first = task * task_queries;
            let queries = first..(first + task_queries).min(plan.n_queries);
            let rows = pack::queries(q, head, queries.clone(), attention.scale * LOG2_E);
            let task = Task { plan, dim, head, mask: attention.mask, first_query: first, keys: &keys, values: &values };
            for (tile, first) in task.attend(&rows).iter_mut().zip(queries.clone().step_by(TILE_ROWS)) {
                let n_rows = TILE_ROWS.min(queries.end - first);
                for (means, column) in tile.weighted_means().iter().zip((0..dim).step_by(PANEL)) {
                    let columns = head * dim + column..head * dim + dim.min(column + PANEL);
                    // SAFETY: every task has a head and queries of its own, so nobody else writes here.
                    unsafe { target.write_rows(first, columns, &means[..n_rows]) };
                }
            }
        });
    });
}

/// How the work is cut: a function of the shape alone.
#[derive(Clone, Copy)]
struct Plan {
    n_queries: usize,
    n_keys: usize,
    /// Whole panels.
    key_block: usize,
    task_tiles: usize,
}

impl Plan {
    fn of(n_queries: usize, n_keys: usize, dim: usize) -> Self {
        let key_block = (BLOCK_NUMBERS / dim / PANEL * PANEL).clamp(PANEL, KEY_BLOCK_MAX);
        let task_tiles = (TASK_NUMBERS / (dim * TILE_ROWS)).clamp(1, TASK_TILES_MAX);
        let tiles_of_short = n_queries.div_ceil(TILE_ROWS).div_ceil(TASKS_MIN).max(1);
        Self { n_queries, n_keys, key_block, task_tiles: task_tiles.min(tiles_of_short) }
    }
}

/// Some queries of one head, and what they attend to.
struct Task<'a, U> {
    plan: Plan,
    dim: usize,
    head: usize,
    mask: Mask<'a>,
    first_query: usize,
    /// `(panels of keys, units of dim)`
    keys: &'a [PanelLine<U>],
    /// `(blocks of keys, panels of dim, units of the block's keys)`
    values: &'a [PanelLine<U>],
}

/// What a tile of queries has seen so far.
struct Seen {
    softmax: Softmax,
    /// `(panels of dim)`: the values, each times its weight.
    sums: Vec<Tile>,
}

impl Seen {
    /// `(panels of dim)`: what the values' sums come to.
    fn weighted_means(&mut self) -> &[Tile] {
        for sums in &mut self.sums {
            tile::divide(sums, &self.softmax.sums);
        }
        &self.sums
    }
}

impl<U: Unit> Task<'_, U> {
    /// # Shapes
    /// - rows: `(tiles, units of dim)`
    fn attend(&self, rows: &[[U; TILE_ROWS]]) -> Vec<Seen> {
        let (n_panels, n_units) = (self.dim.div_ceil(PANEL), self.dim.div_ceil(U::NUMBERS));
        let nothing = || Seen { softmax: Softmax::new(), sums: vec![[[0.0; PANEL]; TILE_ROWS]; n_panels] };
        let mut tiles: Vec<Seen> = rows.chunks(n_units).map(|_| nothing()).collect();
        let mut scores = Scores::new();
        for first_key in (0..self.plan.n_keys).step_by(self.plan.key_block) {
            for (idx, (rows, seen)) in rows.chunks(n_units).zip(&mut tiles).enumerate() {
                let first_query = self.first_query + idx * TILE_ROWS;
                if matches!(self.mask, Mask::Causal) && first_key >= first_query + TILE_ROWS {
                    continue;
                }
                self.score(rows, first_query, first_key, &mut scores);
                self.see(first_key, &mut scores, seen);
            }
        }
        tiles
    }

    /// Keys from `first_key` on that are in its block.
    fn block(&self, first_key: usize) -> usize {
        self.plan.key_block.min(self.plan.n_keys - first_key)
    }

    /// A tile's masked scores of one block of keys, to the base of 2.
    fn score(&self, rows: &[[U; TILE_ROWS]], first_query: usize, first_key: usize, scores: &mut Scores) {
        let n_keys = self.block(first_key);
        let panels = self.keys[first_key / PANEL * rows.len()..].chunks_exact(rows.len()).take(n_keys.div_ceil(PANEL));
        for (panel, lines) in panels.enumerate() {
            tile::score(rows, lines, panel * PANEL, scores);
        }
        for (row, scores) in scores.rows(n_keys).enumerate() {
            let query = first_query + row;
            match self.mask {
                Mask::None => {}
                Mask::Causal => {
                    let n_visible = (query + 1).saturating_sub(first_key).min(n_keys);
                    scores[n_visible..].fill(f32::NEG_INFINITY);
                }
                // A tile may have more rows than there are queries.
                Mask::Bias(bias) if query < self.plan.n_queries => {
                    let start = (self.head * self.plan.n_queries + query) * self.plan.n_keys + first_key;
                    tile::add_scaled(scores, &bias[start..start + n_keys], LOG2_E);
                }
                Mask::Bias(_) => {}
            }
        }
        scores.hide_from(n_keys);
    }

    /// Adds what a block of values is worth to a tile.
    fn see(&self, first_key: usize, scores: &mut Scores, seen: &mut Seen) {
        let n_keys = self.block(first_key);
        let n_panels = seen.sums.len();
        let corrections = seen.softmax.absorb(scores, n_keys);
        scores.settle::<U>(n_keys);
        let lines = self.values[first_key / U::NUMBERS * n_panels..].chunks_exact(n_keys.div_ceil(U::NUMBERS));
        for (panel, (lines, sums)) in lines.zip(&mut seen.sums).enumerate() {
            let n_columns = PANEL.min(self.dim - panel * PANEL);
            tile::weigh(scores, lines, &corrections, (n_columns, sums));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// The definition, in f64, with the whole score matrix.
    fn plainly(attention: Attention<'_>) -> Vec<f32> {
        let Attention { q, k, v, n_heads, dim, scale, mask, .. } = attention;
        let [q, k, v] = [q, k, v].map(|operand| operand.parts[0].values);
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
        let parts = [&q, &k, &v].map(|values| [Part::of(values)]);
        let [q, k, v] = [0, 1, 2].map(|idx: usize| Operand::of(&parts[idx]));
        let attention =
            Attention { q, k, v, n_heads, dim, scale: (dim as f32).powf(-0.5), mask, products: Products::F32 };
        let mut out = vec![f32::NAN; n_queries * width];
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
    fn every_size_of_a_head_and_a_block_fits() {
        for dim in [1, 7, 16, 31, 33, 40, 72, 88, 128, 512] {
            check(13, 33, 2, dim, Mask::None);
            check(300, 290, 1, dim, Mask::Causal);
        }
    }

    #[test]
    fn parts_are_normed_and_turned_as_one_sequence() {
        let (n_heads, dim, n_first, n_second) = (2, 8, 17, 30);
        let width = n_heads * dim;
        let (weights, n_tokens) = ([numbers(dim, 1), numbers(dim, 2)], n_first + n_second);
        let angles = numbers(n_tokens * dim / 2, 3);
        let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let (first, second) = (numbers(n_first * width, 4), numbers(n_second * width, 5));
        let mut whole = [first.clone(), second.clone()].map(Vec::from);
        for (part, weight) in whole.iter_mut().zip(&weights) {
            crate::norm::rms_norm(part, weight, 1e-3);
        }
        let mut whole = whole.concat();
        crate::rope::rotate_pairs(&mut whole, n_heads, &cos, &sin, dim);
        let norm = |weight| Some(RmsNorm { weight, eps: 1e-3 });
        let parts =
            [Part { values: &first, norm: norm(&weights[0]) }, Part { values: &second, norm: norm(&weights[1]) }];
        let fused = Operand { parts: &parts, angles: Some(Angles { cos: &cos, sin: &sin }) };
        let whole = [Part::of(&whole)];
        let [ours, expected] = [fused, Operand::of(&whole)].map(|operand| {
            let mut out = vec![f32::NAN; n_tokens * width];
            let attention = Attention {
                q: operand,
                k: operand,
                v: operand,
                n_heads,
                dim,
                scale: 1.0,
                mask: Mask::None,
                products: Products::F32,
            };
            attend(attention, &mut out);
            out
        });
        assert!(ours == expected && ours.iter().all(|value| value.is_finite()));
    }

    #[test]
    #[should_panic(expected = "the angles do not fit")]
    fn every_token_has_angles() {
        let parts = [Part::of(&[1.0; 8])];
        let operand = Operand { parts: &parts, angles: Some(Angles { cos: &[1.0; 2], sin: &[0.0; 2] }) };
        let attention = Attention {
            q: operand,
            k: operand,
            v: operand,
            n_heads: 1,
            dim: 4,
            scale: 1.0,
            mask: Mask::None,
            products: Products::F32,
        };
        attend(attention, &mut [0.0; 8]);
    }

    /// Products of bf16 have errors that look like noise: far below what they compute, with every shape and mask.
    #[test]
    fn products_of_bf16_stay_45_decibels_above_their_noise() {
        for (n_queries, n_keys, dim, mask) in [
            (5, 3, 7, Mask::None),
            (130, 301, 64, Mask::None),
            (300, 300, 40, Mask::Causal),
            (61, 45, 128, Mask::Bias(&numbers(2 * 61 * 45, 4))),
        ] {
            let width = 2 * dim;
            let tensors = [numbers(n_queries * width, 1), numbers(n_keys * width, 2), numbers(n_keys * width, 3)];
            let parts = [0, 1, 2].map(|idx: usize| [Part::of(&tensors[idx])]);
            let [q, k, v] = [0, 1, 2].map(|idx: usize| Operand::of(&parts[idx]));
            let scale = (dim as f32).powf(-0.5);
            let attention = Attention { q, k, v, n_heads: 2, dim, scale, mask, products: Products::Bf16 };
            let mut out = vec![f32::NAN; n_queries * width];
            attend(attention, &mut out);
            let power = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            let expected: Vec<f64> = plainly(attention).into_iter().map(f64::from).collect();
            let signal = power(&mut expected.iter().copied());
            let noise = power(&mut out.iter().zip(&expected).map(|(ours, exact)| f64::from(*ours) - exact));
            let decibels = 10.0 * (signal / noise).log10();
            assert!(decibels > 45.0, "{n_queries}x{n_keys} heads of {dim}: {decibels:.1} dB");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (q, k) = (numbers(500 * 80, 1), numbers(700 * 80, 2));
        let parts = [&q, &k].map(|values| [Part::of(values)]);
        let [q, k] = [0, 1].map(|idx: usize| Operand::of(&parts[idx]));
        let attention =
            Attention { q, k, v: k, n_heads: 2, dim: 40, scale: 0.2, mask: Mask::None, products: Products::F32 };
        let with_threads = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let mut out = vec![f32::NAN; 500 * 80];
            pool.install(|| attend(attention, &mut out));
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(with_threads(1) == with_threads(3));
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
