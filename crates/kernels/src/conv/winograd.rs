//! 3x3 convolution by tiles of four by four outputs: a quarter of the multiplications, at the price of transforms.
//!
//! A task takes a block of tiles and a part of the outputs, and shares nothing with others: it transforms what its tiles
//! see, and then, chunk by chunk of the outputs, transforms the weights, multiplies 36 times, and transforms back.
//! Weights are transformed anew by each task, which costs a few hundredths of the products: kept, they would take four
//! times the memory, and be read from there.

use super::tile::{self, TILE_VECTORS};
use super::transform::{self, GIVEN, PRODUCTS, SEEN};
use super::{Extent, Form, Job};
use crate::lanes::{self, LANES, Lanes, Line, Task};
use crate::matmul::Mode;
use std::cell::RefCell;
use std::ops::Range;

/// What a block's transformed inputs may take.
const BLOCK_BYTES: usize = 8 << 20;
/// Channels that are added up at once, as in [`super::columns`].
const BLOCK_CHANNELS: usize = 256;
/// Pixels that the widest row of a vector's tiles spans, rounded up to whole vectors.
const ROW_VECTORS: usize = (LANES * GIVEN + SEEN - GIVEN).div_ceil(LANES);

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { inputs: Vec::new(), weights: Vec::new(), sums: Vec::new() }) };
}

/// Kept from task to task: fresh memory costs more than what is done with it.
struct Scratch {
    /// For each group `(products, channels, vectors of the group)`
    inputs: Vec<Line>,
    /// `(products, channels)`
    weights: Vec<Line>,
    /// `(products, outputs of the chunk, vectors of the group)`
    sums: Vec<Line>,
}

/// Whether the form is one that can be computed so, and the products saved outweigh the transforms.
pub(super) fn pays(form: &Form, output: Extent) -> bool {
    // Below, a transform costs more than the products that it saves.
    const CHANNELS_MIN: usize = 8;
    let n_tiles = output.height.div_ceil(GIVEN) * output.width.div_ceil(GIVEN);
    let products = PRODUCTS * n_tiles.div_ceil(LANES);
    let plain_products = form.n_taps() / form.inputs * (output.height * output.width).div_ceil(LANES);
    // The transform of a doubled picture knows no other padding.
    let is_known = form.side == 3 && form.stride == 1 && (!form.upsample || form.padding.before == 1);
    is_known && form.inputs.min(form.outputs) >= CHANNELS_MIN && 2 * products < plain_products
}

pub(super) fn convolve(job: &Job<'_>) {
    let Extent { height, width } = job.output;
    let n_tiles = height.div_ceil(GIVEN) * width.div_ceil(GIVEN);
    let n_vectors = n_tiles.div_ceil(LANES);
    let n_vectors_max = (BLOCK_BYTES / (PRODUCTS * size_of::<Line>() * job.conv.form.inputs)).max(1);
    let n_vectors_max =
        if n_vectors_max > TILE_VECTORS { n_vectors_max / TILE_VECTORS * TILE_VECTORS } else { n_vectors_max };
    let block_tiles = n_vectors_max.min(n_vectors) * LANES;
    job.for_each_part(n_tiles.div_ceil(block_tiles), |block, chunks| {
        let first = block * block_tiles;
        let tiles = first..(first + block_tiles).min(n_tiles);
        SCRATCH.with_borrow_mut(|scratch| lanes::run(job.level, Part { job, tiles, chunks, scratch }));
    });
}

/// Some tiles of some outputs.
struct Part<'a> {
    job: &'a Job<'a>,
    tiles: Range<usize>,
    chunks: Range<usize>,
    scratch: &'a mut Scratch,
}

/// Lines from one product's to the next. Odd, so that the products' lines do not fight for the same places of a cache.
#[inline(always)]
fn product_stride(n_lines: usize) -> usize {
    n_lines | 1
}

impl Task for Part<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { job, tiles, chunks, scratch } = self;
        let channels = job.conv.form.inputs;
        let group_tiles = TILE_VECTORS * LANES;
        let groups = || tiles.clone().step_by(group_tiles).map(|first| first..(first + group_tiles).min(tiles.end));
        let input_lines = |group: &Range<usize>| PRODUCTS * product_stride(channels * group.len().div_ceil(LANES));
        let sum_lines = |group: &Range<usize>| PRODUCTS * product_stride(LANES * group.len().div_ceil(LANES));

        scratch.inputs.resize(groups().map(|group| input_lines(&group)).sum(), Line::ZERO);
        scratch.weights.resize(PRODUCTS * product_stride(channels), Line::ZERO);
        scratch.sums.resize(groups().map(|group| sum_lines(&group)).sum(), Line::ZERO);

        let mut inputs = &mut scratch.inputs[..];
        for group in groups() {
            let here;
            (here, inputs) = inputs.split_at_mut(input_lines(&group));
            transform_inputs(lanes, job, group, here);
        }
        for chunk in chunks {
            transform_weights(lanes, job.conv.weight.chunk(chunk), &mut scratch.weights);
            for product in 0..PRODUCTS {
                let weights = &scratch.weights[product * product_stride(channels)..][..channels];
                let (mut inputs, mut sums) = (&scratch.inputs[..], &mut scratch.sums[..]);
                for group in groups() {
                    let n_vectors = group.len().div_ceil(LANES);
                    let (seen, here);
                    (seen, inputs) = inputs.split_at(input_lines(&group));
                    (here, sums) = sums.split_at_mut(sum_lines(&group));
                    let seen = &seen[product * product_stride(channels * n_vectors)..][..channels * n_vectors];
                    let here = &mut here[product * product_stride(LANES * n_vectors)..][..LANES * n_vectors];
                    multiply(lanes, weights, seen, here);
                }
            }
            let mut sums = &scratch.sums[..];
            for group in groups() {
                let here;
                (here, sums) = sums.split_at(sum_lines(&group));
                transform_outputs(lanes, job, chunk, group, here);
            }
        }
    }
}

#[inline(always)]
fn multiply<L: Lanes>(lanes: L, weights: &[Line], inputs: &[Line], sums: &mut [Line]) {
    let n_vectors = sums.len() / LANES;
    let blocks = weights.chunks(BLOCK_CHANNELS).zip(inputs.chunks(BLOCK_CHANNELS * n_vectors));
    for (idx, (weights, inputs)) in blocks.enumerate() {
        let mode = if idx == 0 { Mode::Overwrite } else { Mode::Accumulate };
        tile::multiply(lanes, weights, inputs, sums, mode);
    }
}

/// What a group of tiles sees, `(products, channels, vectors of the group)`.
#[inline(always)]
fn transform_inputs<L: Lanes>(lanes: L, job: &Job<'_>, tiles: Range<usize>, to: &mut [Line]) {
    let channels = job.conv.form.inputs;
    let n_vectors = tiles.len().div_ceil(LANES);
    let stride = product_stride(channels * n_vectors);
    for vector in 0..n_vectors {
        for_each_run(job.output, vector_tiles(&tiles, vector), |run, row, column| {
            for channel in 0..channels {
                let seen = transform_columns(lanes, job, channel, (row * GIVEN, column * GIVEN));
                let to = &mut to[channel * n_vectors + vector..];
                for (y, seen) in seen.iter().enumerate() {
                    let values = transform::input(lanes, lanes.every_fourth(seen));
                    for (x, value) in values.into_iter().enumerate() {
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

/// A chunk's weights, `(channels, 3, 3)`, to `(products, channels)`.
#[inline(always)]
fn transform_weights<L: Lanes>(lanes: L, weights: &[Line], to: &mut [Line]) {
    let (kernels, _) = weights.as_chunks::<9>();
    let stride = product_stride(kernels.len());
    for (channel, kernel) in kernels.iter().enumerate() {
        let mut columns = [[lanes.splat(0.0); SEEN]; 3];
        for (x, column) in columns.iter_mut().enumerate() {
            let weights = [lanes.load(&kernel[x]), lanes.load(&kernel[3 + x]), lanes.load(&kernel[6 + x])];
            *column = transform::weight(lanes, weights);
        }
        for y in 0..SEEN {
            let row = transform::weight(lanes, [columns[0][y], columns[1][y], columns[2][y]]);
            for (x, value) in row.into_iter().enumerate() {
                lanes.store(value, &mut to[(y * SEEN + x) * stride + channel]);
            }
        }
    }
}

/// Writes the pictures of a chunk's outputs where a group's tiles lie, from `(products, outputs, vectors of the group)`.
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

/// The tiles of one vector of a group.
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
