//! One head's queries, keys and values in the order in which the products read them.

use super::{Angles, Operand, RmsNorm};
use crate::norm::rms_norm_row;
use crate::prefetch;
use crate::rope::rotate_head;
use crate::tile::{PANEL, PanelLine, TILE_ROWS};
use crate::unit::Unit;
use rayon::prelude::*;
use std::ops::Range;

/// Tokens between the one that is read and the one that the processor is told to fetch.
const READ_AHEAD: usize = 8;

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
        // A head's tokens lie a row apart, which the processor does not foresee.
        if let Some((later, _)) = self.find(head, token + READ_AHEAD) {
            prefetch::for_reading(later);
        }
        if let Some((values, norm)) = self.find(head, token) {
            row.copy_from_slice(values);
            if let Some(RmsNorm { weight, eps }) = norm {
                rms_norm_row(row, weight, eps);
            }
        }
        if let Some(Angles { cos, sin }) = self.operand.angles {
            let pairs = token * (self.dim / 2)..(token + 1) * (self.dim / 2);
            rotate_head(row, &cos[pairs.clone()], &sin[pairs]);
        }
    }

    /// One head of one token, as it lies there, and its norm.
    fn find(&self, head: usize, token: usize) -> Option<(&'a [f32], Option<RmsNorm<'a>>)> {
        let mut place = token * self.width + head * self.dim;
        for part in self.operand.parts {
            if place < part.values.len() {
                return Some((&part.values[place..place + self.dim], part.norm));
            }
            place -= part.values.len();
        }
        None
    }
}

/// A head's keys, side by side in panels: `(panels, units of dim)`. A key that is not there is zero.
pub(super) fn keys<U: Unit>(k: Rows<'_>, head: usize) -> Vec<PanelLine<U>> {
    let n_units = k.dim.div_ceil(U::NUMBERS);
    let mut lines = vec![PanelLine([U::ZERO; PANEL]); k.len().div_ceil(PANEL) * n_units];
    lines.par_chunks_mut(n_units).enumerate().for_each(|(panel, lines)| {
        let (mut row, mut units) = (vec![0.0; k.dim], vec![U::ZERO; n_units]);
        for (idx, key) in (panel * PANEL..k.len()).take(PANEL).enumerate() {
            k.read(head, key, &mut row);
            U::along(&row, &mut units);
            lines.iter_mut().zip(&units).for_each(|(line, unit)| line.0[idx] = *unit);
        }
    });
    lines
}

/// A head's values, in blocks of keys: `(blocks, panels of dim, units of the block's keys)`. Elements beyond `dim` are
/// zeros.
pub(super) fn values<U: Unit>(v: Rows<'_>, head: usize, key_block: usize) -> Vec<PanelLine<U>> {
    let n_panels = v.dim.div_ceil(PANEL);
    let mut lines = vec![PanelLine([U::ZERO; PANEL]); v.len().div_ceil(U::NUMBERS) * n_panels];
    lines.par_chunks_mut(key_block / U::NUMBERS * n_panels).enumerate().for_each(|(block, lines)| {
        let n_units = lines.len() / n_panels;
        let [mut row, mut next] = [vec![0.0; v.dim], vec![0.0; v.dim]];
        let keys = block * key_block..v.len().min((block + 1) * key_block);
        for (unit, key) in keys.clone().step_by(U::NUMBERS).enumerate() {
            v.read(head, key, &mut row);
            if U::NUMBERS == 2 && key + 1 < keys.end {
                v.read(head, key + 1, &mut next);
            } else {
                next.fill(0.0);
            }
            for (panel, (row, next)) in row.chunks(PANEL).zip(next.chunks(PANEL)).enumerate() {
                U::across([row, next], &mut lines[panel * n_units + unit].0[..row.len()]);
            }
        }
    });
    lines
}

/// A head's queries times a factor, interleaved by tiles: `(tiles, units of dim)`. A query that is not there is zero.
pub(super) fn queries<U: Unit>(q: Rows<'_>, head: usize, queries: Range<usize>, factor: f32) -> Vec<[U; TILE_ROWS]> {
    let n_units = q.dim.div_ceil(U::NUMBERS);
    let mut tiles = vec![[U::ZERO; TILE_ROWS]; queries.len().div_ceil(TILE_ROWS) * n_units];
    let (mut row, mut units) = (vec![0.0; q.dim], vec![U::ZERO; n_units]);
    for (tile, first) in tiles.chunks_mut(n_units).zip(queries.clone().step_by(TILE_ROWS)) {
        for (idx, query) in (first..queries.end).take(TILE_ROWS).enumerate() {
            q.read(head, query, &mut row);
            row.iter_mut().for_each(|value| *value *= factor);
            U::along(&row, &mut units);
            tile.iter_mut().zip(&units).for_each(|(places, unit)| places[idx] = *unit);
        }
    }
    tiles
}
