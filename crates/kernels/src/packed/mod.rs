//! Weights laid out once, when a model is loaded, in the order in which a product reads them.
//!
//! A general matrix product rearranges both of its operands at every call; a layer's weight never changes. Weights lie
//! here in panels of [`PANEL`] outputs, so that a tile of [`TILE_ROWS`] rows and one panel keeps its sums in registers
//! while it reads both front to back. The input, which is small beside the weight, is interleaved at every call.

mod int8;
mod single;
mod tile;

pub use int8::Int8Weight;
pub use single::SingleWeight;

use crate::activation::Activation;
use rayon::prelude::*;
use std::ops::Range;

/// Outputs that lie side by side in a panel: two vectors of sixteen.
const PANEL: usize = 32;
/// Rows of a tile: with two vectors of sums each, they and the panel's own fill the 32 registers of AVX-512.
const TILE_ROWS: usize = 12;
/// Lines of a panel that are read at once: they and the inputs that they meet stay in a core's cache. It bounds what is
/// added up in one register too, where a long sum of small numbers would lose its last digits.
const BLOCK: usize = 1024;
/// Tiles that one task computes for a panel.
const TASK_TILES: usize = 8;
/// Panels that one task takes.
const TASK_PANELS: usize = 8;

/// What follows the product while it is still in cache.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `(outputs)`
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
}

/// Sums of one panel for up to [`TILE_ROWS`] rows.
type Tile<T> = [[T; PANEL]; TILE_ROWS];

/// A product of packed weights, as its tiles see it.
trait Product: Sync {
    type Sum: Copy + Default;

    /// `(rows, outputs)`
    fn extent(&self) -> (usize, usize);

    /// Lines of a panel.
    fn n_lines(&self) -> usize;

    /// Adds what the panel's lines in the range, at most [`BLOCK`], make of a tile's rows.
    fn add_to(&self, place: Place, lines: Range<usize>, sums: &mut Tile<Self::Sum>);

    /// Sums as numbers.
    fn values(&self, place: Place, sums: &Tile<Self::Sum>, values: &mut Tile<f32>);
}

/// The rows of tiles, interleaved: `(tiles, length, rows of a tile)`. A row that is not there is zero.
fn interleave<T: Copy + Default + Send + Sync>(values: &[T], length: usize) -> Vec<[T; TILE_ROWS]> {
    let n_tiles = (values.len() / length).div_ceil(TILE_ROWS);
    let mut tiles = vec![[T::default(); TILE_ROWS]; n_tiles * length];
    let rows = values.par_chunks(TILE_ROWS * length);
    tiles.par_chunks_mut(length).zip(rows).for_each(|(tile, rows)| {
        for (idx, row) in rows.chunks_exact(length).enumerate() {
            tile.iter_mut().zip(row).for_each(|(place, value)| place[idx] = *value);
        }
    });
    tiles
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
    let task_rows = TASK_TILES * TILE_ROWS;
    let (n_row_tasks, n_panels) = (rows.div_ceil(task_rows), outputs.div_ceil(PANEL));
    let n_panel_tasks = n_panels.div_ceil(TASK_PANELS);
    (0..n_row_tasks * n_panel_tasks).into_par_iter().for_each(|task| {
        let first_row = task / n_panel_tasks * task_rows;
        let task_rows = first_row..(first_row + task_rows).min(rows);
        let first_panel = task % n_panel_tasks * TASK_PANELS;
        for panel in first_panel..(first_panel + TASK_PANELS).min(n_panels) {
            compute_panel(product, task_rows.clone(), panel, |place, values| {
                let columns = panel * PANEL..((panel + 1) * PANEL).min(outputs);
                let bias = epilogue.bias.map(|bias| &bias[columns.clone()]);
                for (idx, values) in values[..place.n_rows].iter_mut().enumerate() {
                    let values = &mut values[..columns.len()];
                    finish(values, bias, epilogue.activation);
                    // SAFETY: every task has rows and panels of its own, so nobody else writes here.
                    unsafe { target.write(place.first_row + idx, columns.start, values) };
                }
            });
        }
    });
}

/// One panel and the tiles of one task: a block of the panel stays in cache for all of them.
fn compute_panel<P: Product>(
    product: &P,
    rows: Range<usize>,
    panel: usize,
    mut done: impl FnMut(Place, &mut Tile<f32>),
) {
    let mut sums = [[[P::Sum::default(); PANEL]; TILE_ROWS]; TASK_TILES];
    let places = rows.clone().step_by(TILE_ROWS).map(|first_row| {
        let n_rows = TILE_ROWS.min(rows.end - first_row);
        Place { first_row, n_rows, panel }
    });
    let n_lines = product.n_lines();
    for first in (0..n_lines).step_by(BLOCK) {
        let lines = first..(first + BLOCK).min(n_lines);
        places.clone().zip(&mut sums).for_each(|(place, sums)| product.add_to(place, lines.clone(), sums));
    }
    for (place, sums) in places.zip(&sums) {
        let mut values = [[0.0; PANEL]; TILE_ROWS];
        product.values(place, sums, &mut values);
        done(place, &mut values);
    }
}

fn finish(values: &mut [f32], bias: Option<&[f32]>, activation: Option<Activation>) {
    if let Some(bias) = bias {
        values.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
    if let Some(activation) = activation {
        crate::activation::activate_here(activation, values);
    }
}

/// An output that tasks write to at places of their own.
#[derive(Clone, Copy)]
struct Target {
    values: *mut f32,
    row_stride: usize,
}

// SAFETY: `write` asks its caller that no two threads write to the same place.
unsafe impl Sync for Target {}
// SAFETY: as above; the pointer is to memory that outlives the product, which borrows it.
unsafe impl Send for Target {}

impl Target {
    /// # Safety
    /// The place must lie within the output, and nobody else may use it meanwhile.
    unsafe fn write(self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = self.values.add(row * self.row_stride + column);
            std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len());
        }
    }
}
