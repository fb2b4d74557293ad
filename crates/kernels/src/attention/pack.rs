//! One head's queries, keys and values in the order in which the products read them.

use super::{PANEL, TILE_ROWS};
use rayon::prelude::*;
use std::ops::Range;

/// What one step of a product meets side by side: one element of a panel's keys, or a panel of one key's value.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; PANEL]);

/// One head's part of the tokens' rows.
#[derive(Clone)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    columns: Range<usize>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(values: &'a [f32], stride: usize, columns: Range<usize>) -> Self {
        Self { values, stride, columns }
    }

    fn dim(&self) -> usize {
        self.columns.len()
    }

    fn len(&self) -> usize {
        self.values.len() / self.stride
    }

    fn row(&self, token: usize) -> &[f32] {
        &self.values[token * self.stride..][self.columns.clone()]
    }
}

/// Keys, side by side in panels: `(panels, dim)`. A key that is not there is zero.
pub(super) fn keys(k: Rows<'_>) -> Vec<Line> {
    let dim = k.dim();
    let mut lines = vec![Line([0.0; PANEL]); k.len().div_ceil(PANEL) * dim];
    lines.par_chunks_mut(dim).enumerate().for_each(|(panel, lines)| {
        for (idx, key) in (panel * PANEL..k.len()).take(PANEL).enumerate() {
            lines.iter_mut().zip(k.row(key)).for_each(|(line, value)| line.0[idx] = *value);
        }
    });
    lines
}

/// Values, in blocks of keys: `(blocks, panels of dim, keys of the block)`. Elements beyond `dim` are zeros.
pub(super) fn values(v: Rows<'_>, key_block: usize) -> Vec<Line> {
    let n_panels = v.dim().div_ceil(PANEL);
    let mut lines = vec![Line([0.0; PANEL]); v.len() * n_panels];
    lines.par_chunks_mut(key_block * n_panels).enumerate().for_each(|(block, lines)| {
        let n_keys = lines.len() / n_panels;
        for idx in 0..n_keys {
            for (panel, part) in v.row(block * key_block + idx).chunks(PANEL).enumerate() {
                lines[panel * n_keys + idx].0[..part.len()].copy_from_slice(part);
            }
        }
    });
    lines
}

/// Queries times a factor, interleaved by tiles: `(tiles, dim)`. A query that is not there is zero.
pub(super) fn queries(q: Rows<'_>, queries: Range<usize>, factor: f32) -> Vec<[f32; TILE_ROWS]> {
    let dim = q.dim();
    let mut rows = vec![[0.0; TILE_ROWS]; queries.len().div_ceil(TILE_ROWS) * dim];
    for (tile, first) in rows.chunks_mut(dim).zip(queries.clone().step_by(TILE_ROWS)) {
        for (idx, query) in (first..queries.end).take(TILE_ROWS).enumerate() {
            tile.iter_mut().zip(q.row(query)).for_each(|(place, value)| place[idx] = value * factor);
        }
    }
    rows
}
