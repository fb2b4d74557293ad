//! One head's queries, keys and values in the order in which the products read them.

use super::{Angles, Operand, PANEL, RmsNorm, TILE_ROWS};
use crate::norm::rms_norm_row;
use crate::rope::rotate_head;
use rayon::prelude::*;
use std::ops::Range;

/// What one step of a product meets side by side: one element of a panel's keys, or a panel of one key's value.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; PANEL]);

/// An operand's rows, a head at a time, normed and turned.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    operand: Operand<'a>,
    n_tokens: usize,
    width: usize,
    dim: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(operand: Operand<'a>, n_heads: usize, dim: usize) -> Self {
        let width = n_heads * dim;
        for part in operand.parts {
            assert!(part.values.len().is_multiple_of(width), "attend: ragged heads");
            assert!(part.norm.is_none_or(|norm| norm.weight.len() == dim), "attend: a norm does not fit");
        }
        let n_tokens = operand.parts.iter().map(|part| part.values.len() / width).sum();
        if let Some(Angles { cos, sin }) = operand.angles {
            let n_angles = n_tokens * (dim / 2);
            let fit = dim.is_multiple_of(2) && cos.len() == n_angles && sin.len() == n_angles;
            assert!(fit, "attend: the angles do not fit");
        }
        Self { operand, n_tokens, width, dim }
    }

    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.n_tokens
    }

    /// One head of one token.
    fn read(&self, head: usize, token: usize, row: &mut [f32]) {
        let mut place = token * self.width + head * self.dim;
        for part in self.operand.parts {
            if place >= part.values.len() {
                place -= part.values.len();
                continue;
            }
            row.copy_from_slice(&part.values[place..place + self.dim]);
            if let Some(RmsNorm { weight, eps }) = part.norm {
                rms_norm_row(row, weight, eps);
            }
            break;
        }
        if let Some(Angles { cos, sin }) = self.operand.angles {
            let pairs = token * (self.dim / 2)..(token + 1) * (self.dim / 2);
            rotate_head(row, &cos[pairs.clone()], &sin[pairs]);
        }
    }
}

/// A head's keys, side by side in panels: `(panels, dim)`. A key that is not there is zero.
pub(super) fn keys(k: Rows<'_>, head: usize) -> Vec<Line> {
    let mut lines = vec![Line([0.0; PANEL]); k.len().div_ceil(PANEL) * k.dim];
    lines.par_chunks_mut(k.dim).enumerate().for_each(|(panel, lines)| {
        let mut row = vec![0.0; k.dim];
        for (idx, key) in (panel * PANEL..k.len()).take(PANEL).enumerate() {
            k.read(head, key, &mut row);
            lines.iter_mut().zip(&row).for_each(|(line, value)| line.0[idx] = *value);
        }
    });
    lines
}

/// A head's values, in blocks of keys: `(blocks, panels of dim, keys of the block)`. Elements beyond `dim` are zeros.
pub(super) fn values(v: Rows<'_>, head: usize, key_block: usize) -> Vec<Line> {
    let n_panels = v.dim.div_ceil(PANEL);
    let mut lines = vec![Line([0.0; PANEL]); v.len() * n_panels];
    lines.par_chunks_mut(key_block * n_panels).enumerate().for_each(|(block, lines)| {
        let n_keys = lines.len() / n_panels;
        let mut row = vec![0.0; v.dim];
        for idx in 0..n_keys {
            v.read(head, block * key_block + idx, &mut row);
            for (panel, part) in row.chunks(PANEL).enumerate() {
                lines[panel * n_keys + idx].0[..part.len()].copy_from_slice(part);
            }
        }
    });
    lines
}

/// A head's queries times a factor, interleaved by tiles: `(tiles, dim)`. A query that is not there is zero.
pub(super) fn queries(q: Rows<'_>, head: usize, queries: Range<usize>, factor: f32) -> Vec<[f32; TILE_ROWS]> {
    let mut tiles = vec![[0.0; TILE_ROWS]; queries.len().div_ceil(TILE_ROWS) * q.dim];
    let mut row = vec![0.0; q.dim];
    for (tile, first) in tiles.chunks_mut(q.dim).zip(queries.clone().step_by(TILE_ROWS)) {
        for (idx, query) in (first..queries.end).take(TILE_ROWS).enumerate() {
            q.read(head, query, &mut row);
            tile.iter_mut().zip(&row).for_each(|(place, value)| place[idx] = value * factor);
        }
    }
    tiles
}
