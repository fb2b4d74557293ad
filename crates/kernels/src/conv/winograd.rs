//! 3x3 convolution by tiles of four by four outputs: a quarter of the multiplications, at the price of transforms.
//!
//! A task takes a block of tiles and a part of the outputs, and shares nothing with others: it transforms what its tiles
//! see, and then, chunk by chunk of the outputs, transforms the weights, multiplies 36 times, and transforms back.
//! Weights are transformed anew by each task, which costs a few hundredths of the products: kept, they would take four
//! times the memory, and be read from there.

use super::tile::{self, TILE_VECTORS};
use super::transform::{self, GIVEN, PRODUCTS, Pair, SEEN};
use super::weight::{Taps, Weights};
use super::{CHANNELS_AHEAD, Extent, Form, Job};
use crate::lanes::{LANES, Lanes, Line, Task};
use crate::matmul::Mode;
use crate::unit::Unit;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Vectors of tiles that a task takes for each number of a unit: as many as keep their sums in registers. Pairs halve what
/// a vector takes in cache, and so may be twice as many, for which the weights are transformed half as often.
const BLOCK_VECTORS: usize = TILE_VECTORS;
/// Units of channels that are added up at once, as in [`super::columns`].
const BLOCK_UNITS: usize = 256;
/// Pixels that the widest row of a vector's tiles spans, rounded up to whole vectors.
const ROW_VECTORS: usize = (LANES * GIVEN + SEEN - GIVEN).div_ceil(LANES);

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { inputs: Vec::new(), weights: Vec::new(), sums: Vec::new() }) };
}

/// Kept from task to task: fresh memory costs more than what is done with it.
struct Scratch {
    /// `(products, units of channels, vectors)`
    inputs: Vec<Line>,
    /// `(products of two rows, units of channels)`
    weights: Vec<Line>,
    /// `(products, outputs of the chunk, vectors)`
    sums: Vec<Line>,
}

/// Whether the form is one that can be computed so, and the products saved outweigh the transforms.
pub(super) fn pays(form: &Form, output: Extent) -> bool {
    // Below, the transforms cost more than the products that they save.
    const INPUTS_MIN: usize = 8;
    let n_tiles = output.height.div_ceil(GIVEN) * output.width.div_ceil(GIVEN);
    let products = PRODUCTS * n_tiles.div_ceil(LANES);
    let plain_products = form.n_taps() / form.inputs * (output.height * output.width).div_ceil(LANES);
    // The transform of a doubled picture knows no other padding.
    let is_known = form.side == 3 && form.stride == 1 && (!form.upsample || form.padding.before == 1);
    is_known && form.inputs >= INPUTS_MIN && 2 * products < plain_products
}

pub(super) fn convolve<U: Unit>(job: &Job<'_>) {
    let Extent { height, width } = job.output;
    let n_tiles = height.div_ceil(GIVEN) * width.div_ceil(GIVEN);
    let n_vectors = n_tiles.div_ceil(LANES);
    // Blocks of the same size, as nearly as can be.
    let block_tiles = n_vectors.div_ceil(n_vectors.div_ceil(BLOCK_VECTORS * U::NUMBERS)) * LANES;
    job.for_each_part(n_tiles.div_ceil(block_tiles), |block, chunks| {
        let first = block * block_tiles;
        let tiles = first..(first + block_tiles).min(n_tiles);
        SCRATCH.with_borrow_mut(|scratch| {
            U::run(job.level, Part::<U> { job, tiles, chunks, scratch, unit: PhantomData });
        });
    });
}

/// Some tiles of some outputs.
struct Part<'a, U> {
    job: &'a Job<'a>,
    tiles: Range<usize>,
    chunks: Range<usize>,
    scratch: &'a mut Scratch,
    unit: PhantomData<U>,
}

/// Lines from one product's to the next. Odd, so that the products' lines do not fight for the same places of a cache.
#[inline(always)]
fn product_stride(n_lines: usize) -> usize {
    n_lines | 1
}

impl<U: Unit> Task for Part<'_, U> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { job, tiles, chunks, scratch: Scratch { inputs, weights, sums }, .. } = self;
        let n_units = job.conv.form.inputs.div_ceil(U::NUMBERS);
        let n_vectors = tiles.len().div_ceil(LANES);
        let (n_inputs, n_sums) = (n_units * n_vectors, LANES * n_vectors);
        inputs.resize(PRODUCTS * product_stride(n_inputs), Line::ZERO);
        weights.resize(2 * SEEN * product_stride(n_units), Line::ZERO);
        sums.resize(PRODUCTS * product_stride(n_sums), Line::ZERO);

        transform_inputs::<L, U>(lanes, job, tiles.clone(), inputs);
        for chunk in chunks {
            // Two rows of the weights' products at a time stay in a core's cache where all six would not.
            for pair in Pair::ALL {
                let taps = job.conv.weight.taps(chunk, 0..job.conv.form.n_taps());
                transform_weights::<L, U>(lanes, taps, pair, weights);
                for idx in 0..2 * SEEN {
                    let product = pair.rows()[idx / SEEN] * SEEN + idx % SEEN;
                    let weights = &weights[idx * product_stride(n_units)..][..n_units];
                    let inputs = &inputs[product * product_stride(n_inputs)..][..n_inputs];
                    let sums = &mut sums[product * product_stride(n_sums)..][..n_sums];
                    multiply::<L, U>(lanes, weights, inputs, sums);
                }
            }
            transform_outputs(lanes, job, chunk, tiles.clone(), sums);
        }
    }
}

#[inline(always)]
fn multiply<L: Lanes, U: Unit>(lanes: L, weights: &[Line], inputs: &[Line], sums: &mut [Line]) {
    let n_vectors = sums.len() / LANES;
    let blocks = weights.chunks(BLOCK_UNITS).zip(inputs.chunks(BLOCK_UNITS * n_vectors));
    for (idx, (weights, inputs)) in blocks.enumerate() {
        let mode = if idx == 0 { Mode::Overwrite } else { Mode::Accumulate };
        tile::multiply::<L, U>(lanes, weights, inputs, sums, mode);
    }
}

/// What tiles see, `(products, units of channels, vectors)`.
#[inline(always)]
fn transform_inputs<L: Lanes, U: Unit>(lanes: L, job: &Job<'_>, tiles: Range<usize>, to: &mut [Line]) {
    let channels = job.conv.form.inputs;
    let n_vectors = tiles.len().div_ceil(LANES);
    let stride = product_stride(channels.div_ceil(U::NUMBERS) * n_vectors);
    for vector in 0..n_vectors {
        for_each_run(job.output, vector_tiles(&tiles, vector), |run, row, column| {
            let (top, left) = (row * GIVEN, column * GIVEN);
            let mut seen = [[[Line::ZERO; ROW_VECTORS]; SEEN]; 2];
            for (unit, first) in (0..channels).step_by(U::NUMBERS).enumerate() {
                for (channel, seen) in (first..first + U::NUMBERS).zip(&mut seen) {
                    job.input.expect(channel + CHANNELS_AHEAD, top..top + SEEN, left..left + ROW_VECTORS * LANES);
                    *seen = if channel < channels {
                        transform_columns(lanes, job, channel, (top, left))
                    } else {
                        [[Line::ZERO; ROW_VECTORS]; SEEN]
                    };
                }
                let to = &mut to[unit * n_vectors + vector..];
                for y in 0..SEEN {
                    let mut values = [[lanes.splat(0.0); SEEN]; 2];
                    for (values, seen) in values.iter_mut().zip(&seen).take(U::NUMBERS) {
                        *values = transform::input(lanes, lanes.every_fourth(&seen[y]));
                    }
                    for x in 0..SEEN {
                        let value = U::join(lanes, [values[0][x], values[1][x]]);
                        let to = &mut to[(y * SEEN + x) * stride];
                        if run.len() == LANES {
                            lanes.store(value, to);
                        } else {
                            let mut line = Line::ZERO;
                            lanes.store(value, &mut line);
                            to.0[run.clone()].copy_from_slice(&line.0[..run.len()]);
                        }
                    }
                }
            }
        });
    }
}

/// The transform from above, of all columns that a row of tiles sees; `(y, x)` of the padded picture is the first.
#[inline(always)]
fn transform_columns<L: Lanes>(
    lanes: L,
    job: &Job<'_>,
    channel: usize,
    (y, x): (usize, usize),
) -> [[Line; ROW_VECTORS]; SEEN] {
    let form = job.conv.form;
    let rows: [Option<&[f32]>; SEEN] = std::array::from_fn(|dy| job.input.row(channel, y + dy));
    let mut seen = [[Line::ZERO; ROW_VECTORS]; SEEN];
    for idx in 0..ROW_VECTORS {
        let first = (x + idx * LANES) as isize - form.padding.before as isize;
        let mut column = [lanes.splat(0.0); SEEN];
        for (value, row) in column.iter_mut().zip(rows) {
            *value = match row {
                None => lanes.splat(0.0),
                // Of a doubled picture, the first column that is seen is the second of a pair.
                Some(row) if form.upsample => lanes.doubled(lanes.load_within(row, first.div_euclid(2))),
                Some(row) => lanes.load_within(row, first),
            };
        }
        for (value, seen) in transform::input(lanes, column).into_iter().zip(&mut seen) {
            lanes.store(value, &mut seen[idx]);
        }
    }
    seen
}

/// A chunk's weights, `(channels, 3, 3)`, to `(products of a pair of rows, units of channels)`.
#[inline(always)]
fn transform_weights<L: Lanes, U: Unit>(lanes: L, taps: Taps<'_>, pair: Pair, to: &mut [Line]) {
    match taps {
        Taps::Single(lines) => transform_lines::<L, U, _>(lanes, lines, pair, to),
        Taps::Bf16(lines) => transform_lines::<L, U, _>(lanes, lines, pair, to),
        Taps::F16(lines) => transform_lines::<L, U, _>(lanes, lines, pair, to),
    }
}

#[inline(always)]
fn transform_lines<L: Lanes, U: Unit, W: Weights>(lanes: L, weights: &[W], pair: Pair, to: &mut [Line]) {
    let (kernels, _) = weights.as_chunks::<9>();
    let stride = product_stride(kernels.len().div_ceil(U::NUMBERS));
    for (unit, kernels) in kernels.chunks(U::NUMBERS).enumerate() {
        // `(numbers of the unit, rows of the pair, columns)`
        let mut values = [[[lanes.splat(0.0); SEEN]; 2]; 2];
        for (values, kernel) in values.iter_mut().zip(kernels) {
            let mut rows = [[lanes.splat(0.0); 3]; 2];
            for x in 0..3 {
                let weights = [kernel[x].load(lanes), kernel[3 + x].load(lanes), kernel[6 + x].load(lanes)];
                let [first, second] = transform::weight_pair(lanes, weights, pair);
                rows[0][x] = first;
                rows[1][x] = second;
            }
            for (values, row) in values.iter_mut().zip(rows) {
                *values = transform::weight(lanes, row);
            }
        }
        for y in 0..2 {
            for x in 0..SEEN {
                let value = U::join(lanes, [values[0][y][x], values[1][y][x]]);
                lanes.store(value, &mut to[(y * SEEN + x) * stride + unit]);
            }
        }
    }
}

/// Writes the pictures of a chunk's outputs where tiles lie, from `(products, outputs, vectors)`.
#[inline(always)]
fn transform_outputs<L: Lanes>(lanes: L, job: &Job<'_>, chunk: usize, tiles: Range<usize>, sums: &[Line]) {
    let Extent { height, width } = job.output;
    let n_vectors = tiles.len().div_ceil(LANES);
    let stride = product_stride(LANES * n_vectors);
    let outputs = chunk * LANES..((chunk + 1) * LANES).min(job.conv.form.outputs);
    for (idx, output) in outputs.enumerate() {
        for vector in 0..n_vectors {
            let sums = &sums[idx * n_vectors + vector..];
            let mut columns = [[lanes.splat(0.0); SEEN]; GIVEN];
            for x in 0..SEEN {
                let mut column = [lanes.splat(0.0); SEEN];
                for (y, value) in column.iter_mut().enumerate() {
                    *value = lanes.load(&sums[(y * SEEN + x) * stride]);
                }
                for (row, value) in columns.iter_mut().zip(transform::output(lanes, column)) {
                    row[x] = value;
                }
            }
            let mut rows = [[Line::ZERO; GIVEN]; GIVEN];
            for (row, column) in rows.iter_mut().zip(columns) {
                lanes.interleave(transform::output(lanes, column), row);
            }
            for_each_run(job.output, vector_tiles(&tiles, vector), |run, row, column| {
                let (first_y, x) = (row * GIVEN, column * GIVEN);
                let n = (run.len() * GIVEN).min(width - x);
                for (y, values) in (first_y..height).zip(&rows) {
                    let values = &Line::numbers(values)[run.start * GIVEN..][..n];
                    // SAFETY: every task has tiles and outputs of its own.
                    unsafe { job.finish(output, y, x, values) };
                }
            });
        }
    }
}

/// The tiles of one vector.
#[inline(always)]
fn vector_tiles(tiles: &Range<usize>, vector: usize) -> Range<usize> {
    let first = tiles.start + vector * LANES;
    first..(first + LANES).min(tiles.end)
}

/// Cuts tiles into runs along rows of tiles: tells which of the tiles they are, and where the first one lies.
#[inline(always)]
fn for_each_run(output: Extent, tiles: Range<usize>, mut each: impl FnMut(Range<usize>, usize, usize)) {
    let n_columns = output.width.div_ceil(GIVEN);
    let mut tile = tiles.start;
    while tile < tiles.end {
        let (row, column) = (tile / n_columns, tile % n_columns);
        let n = (n_columns - column).min(tiles.end - tile);
        each(tile - tiles.start..tile - tiles.start + n, row, column);
        tile += n;
    }
}
