//! Weights laid out once, when a model is loaded, in the order in which a product reads them.
//!
//! A general matrix product rearranges both of its operands at every call; a layer's weight never changes. Weights lie
//! here in panels of [`PANEL`] outputs, so that a tile of [`TILE_ROWS`] rows and one panel keeps its sums in registers
//! while it reads both front to back. The input, which is small beside the weight, is interleaved once
//! for all weights that read it ([`Input`]).

mod bf16;
mod input;
mod int8;
mod single;
mod tile;

pub use bf16::Bf16Weight;
pub use input::{Columns, Input};
pub use int8::Int8Weight;
pub use single::SingleWeight;
#[cfg(target_arch = "aarch64")]
pub(crate) use tile::neon::add_dot_products;

use crate::activation::{Activation, activate_here};
use crate::dispatch::dispatched;
use crate::target::Target;
use crate::tile::{PANEL, TILE_ROWS, Tile};
use rayon::prelude::*;
use std::ops::Range;

/// Tiles that one task computes for a panel, at most: their sums stay in a core's cache while a panel passes by.
const TASK_TILES_MAX: usize = 32;
/// Panels that one task takes.
const TASK_PANELS: usize = 2;
/// Tasks that a product is cut into if it has so many tiles, so that many threads have work.
const TASKS_MIN: usize = 32;

/// What follows the product while it is still in cache.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `(outputs)`
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
}

/// A product of packed weights, as its tiles see it.
trait Product: Sync {
    /// What a panel holds for one input, or for a few that are multiplied together.
    type Line;

    /// Lines of a panel that are read at once: they and the inputs that they meet stay in a core's cache. It bounds what
    /// is added up in one register too, where a long sum of small numbers would lose its last digits.
    const BLOCK: usize;

    /// `(rows, outputs)`
    fn extent(&self) -> (usize, usize);

    /// Lines of a panel.
    fn n_lines(&self) -> usize;

    /// Some of a panel's lines as the tiles read them: in the scratch, if they are kept otherwise.
    fn lines<'a>(&'a self, panel: usize, lines: Range<usize>, scratch: &'a mut Vec<Self::Line>) -> &'a [Self::Line];

    /// Adds what one block's lines make of a tile's rows.
    fn add_to(&self, place: Place, block: Block<'_, Self::Line>, sums: &mut Tile);
}

/// Some lines of a panel.
struct Block<'a, Line> {
    lines: &'a [Line],
    /// Of the first among the panel's.
    first: usize,
}

impl<Line> Block<'_, Line> {
    fn range(&self) -> Range<usize> {
        self.first..self.first + self.lines.len()
    }
}

/// Groups of every row's elements, outputs side by side in panels: `(panels, groups, outputs of a panel)`. What is not
/// there is `missing`.
fn panels<T: Copy + Send + Sync, const N: usize>(rows: &[T], length: usize, missing: T) -> Vec<[[T; N]; PANEL]> {
    let n_groups = length.div_ceil(N);
    let mut panels = vec![[[missing; N]; PANEL]; (rows.len() / length).div_ceil(PANEL) * n_groups];
    panels.par_chunks_mut(n_groups).zip(rows.par_chunks(PANEL * length)).for_each(|(panel, rows)| {
        for (output, row) in rows.chunks_exact(length).enumerate() {
            let (groups, rest) = row.as_chunks::<N>();
            panel.iter_mut().zip(groups).for_each(|(line, group)| line[output] = *group);
            if let Some(line) = panel.get_mut(groups.len()) {
                line[output][..rest.len()].copy_from_slice(rest);
            }
        }
    });
    panels
}

/// Outputs of a weight, `(outputs, inputs)`, that is to be packed.
fn n_outputs(weight: &[f32], inputs: usize) -> usize {
    assert!(inputs > 0 && weight.len().is_multiple_of(inputs), "a packed weight: rows are not whole");
    weight.len() / inputs
}

/// Where a tile is.
#[derive(Clone, Copy)]
struct Place {
    first_row: usize,
    n_rows: usize,
    panel: usize,
}

impl Place {
    fn tile(self) -> usize {
        self.first_row / TILE_ROWS
    }
}

/// Computes every tile of a product, and writes it with its epilogue to `out`, `(rows, outputs)`.
fn compute<P: Product>(product: &P, epilogue: Epilogue<'_>, out: &mut [f32]) {
    let (rows, outputs) = product.extent();
    assert_eq!(out.len(), rows * outputs, "a packed product: the output does not fit");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == outputs), "a packed product: the bias does not fit");
    if out.is_empty() {
        return;
    }
    let target = Target { values: out.as_mut_ptr(), row_stride: outputs };
    let (n_tiles, n_panels) = (rows.div_ceil(TILE_ROWS), outputs.div_ceil(PANEL));
    let n_panel_tasks = n_panels.div_ceil(TASK_PANELS);
    let n_row_tasks = n_tiles.div_ceil(TASK_TILES_MAX).max(TASKS_MIN.div_ceil(n_panel_tasks)).min(n_tiles);
    let task_rows = n_tiles.div_ceil(n_row_tasks) * TILE_ROWS;
    let n_row_tasks = rows.div_ceil(task_rows);
    (0..n_row_tasks * n_panel_tasks).into_par_iter().for_each(|task| {
        let first_row = task / n_panel_tasks * task_rows;
        let task_rows = first_row..(first_row + task_rows).min(rows);
        let first_panel = task % n_panel_tasks * TASK_PANELS;
        let mut scratch = Vec::new();
        for panel in first_panel..(first_panel + TASK_PANELS).min(n_panels) {
            let columns = panel * PANEL..((panel + 1) * PANEL).min(outputs);
            let mut bias = [0.0; PANEL];
            if let Some(all) = epilogue.bias {
                bias[..columns.len()].copy_from_slice(&all[columns.clone()]);
            }
            let expect =
                |place: Place| target.expect_rows(place.first_row..place.first_row + place.n_rows, columns.start);
            compute_panel(product, (task_rows.clone(), panel), &mut scratch, expect, |place, sums| {
                let sums = &mut sums[..place.n_rows];
                add_bias(sums, &bias);
                if let Some(activation) = epilogue.activation {
                    activate_here(activation, sums.as_flattened_mut());
                }
                // SAFETY: every task has rows and panels of its own, so nobody else writes here.
                unsafe { target.write_rows(place.first_row, columns.clone(), sums) };
            });
        }
    });
}

/// One panel and the tiles of one task: a block of the panel stays in cache for all of them. `expect` is told of a tile
/// shortly before it is `done`.
fn compute_panel<P: Product>(
    product: &P,
    (rows, panel): (Range<usize>, usize),
    scratch: &mut Vec<P::Line>,
    expect: impl Fn(Place),
    mut done: impl FnMut(Place, &mut Tile),
) {
    let mut sums = [[[0.0; PANEL]; TILE_ROWS]; TASK_TILES_MAX];
    let places = rows.clone().step_by(TILE_ROWS).map(|first_row| {
        let n_rows = TILE_ROWS.min(rows.end - first_row);
        Place { first_row, n_rows, panel }
    });
    let n_lines = product.n_lines();
    for first in (0..n_lines).step_by(P::BLOCK) {
        let last = (first + P::BLOCK).min(n_lines);
        let lines = product.lines(panel, first..last, scratch);
        for (place, sums) in places.clone().zip(&mut sums) {
            if last == n_lines {
                expect(place);
            }
            product.add_to(place, Block { lines, first }, sums);
            if last == n_lines {
                done(place, sums);
            }
        }
    }
}

dispatched! {
    fn add_bias(rows: &mut [[f32; PANEL]], bias: &[f32; PANEL]) {
        for row in rows {
            for (value, bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    }
}
