//! Convolution of any form: what each pixel sees is laid out as a column, a few pixels and taps at a time, in cache.

use super::tile::{self, TILE_VECTORS};
use super::{Extent, Job};
use crate::lanes::{LANES, Lanes, Line, Task};
use crate::matmul::Mode;
use crate::unit::Unit;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Pixels of a tile.
const TILE_PIXELS: usize = TILE_VECTORS * LANES;
/// Tiles of a task: 1024 taps of their columns are 393 KiB.
const TASK_TILES: usize = 2;
/// Taps that are added up at once: their columns stay in a core's cache. It bounds what is added up in one register too,
/// where a long sum of small numbers would lose its last digits.
const BLOCK: usize = 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { columns: Vec::new(), weights: Vec::new(), sums: Vec::new() }) };
}

/// Kept from task to task: fresh memory costs more than what is done with it.
struct Scratch {
    /// `(tiles, units of the block's taps, vectors of the tile)`
    columns: Vec<Line>,
    /// `(units of the block's taps)`
    weights: Vec<Line>,
    /// `(chunks of the part, tiles, outputs of the chunk, vectors of the tile)`
    sums: Vec<Line>,
}

pub(super) fn convolve<U: Unit>(job: &Job<'_>) {
    let Extent { height, width } = job.output;
    let n_pixels = height * width;
    let task_pixels = TASK_TILES * TILE_PIXELS;
    job.for_each_part(n_pixels.div_ceil(task_pixels), |block, chunks| {
        let first = block * task_pixels;
        let pixels = first..(first + task_pixels).min(n_pixels);
        SCRATCH.with_borrow_mut(|scratch| {
            U::run(job.level, Part::<U> { job, pixels, chunks, scratch, unit: PhantomData });
        });
    });
}

/// Some pixels of some outputs.
struct Part<'a, U> {
    job: &'a Job<'a>,
    pixels: Range<usize>,
    chunks: Range<usize>,
    scratch: &'a mut Scratch,
    unit: PhantomData<U>,
}

impl<U: Unit> Task for Part<'_, U> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { job, pixels, chunks, scratch, .. } = self;
        let n_taps = job.conv.form.n_taps();
        let n_vectors = pixels.len().div_ceil(LANES);
        scratch.columns.resize(BLOCK.min(n_taps).div_ceil(U::NUMBERS) * n_vectors, Line::ZERO);
        scratch.sums.resize(chunks.len() * LANES * n_vectors, Line::ZERO);
        let tiles = || pixels.clone().step_by(TILE_PIXELS).map(|first| first..(first + TILE_PIXELS).min(pixels.end));
        for first in (0..n_taps).step_by(BLOCK) {
            let taps = first..(first + BLOCK).min(n_taps);
            let n_units = taps.len().div_ceil(U::NUMBERS);
            let mut columns = &mut scratch.columns[..];
            for tile in tiles() {
                let here;
                (here, columns) = columns.split_at_mut(n_units * tile.len().div_ceil(LANES));
                lay_out::<L, U>(lanes, job, taps.clone(), tile, here);
            }
            let mode = if first == 0 { Mode::Overwrite } else { Mode::Accumulate };
            let mut sums = &mut scratch.sums[..];
            for chunk in chunks.clone() {
                let weights = &job.conv.weight.chunk(chunk)[taps.clone()];
                let weights = units::<L, U>(lanes, weights, &mut scratch.weights);
                let mut columns = &scratch.columns[..];
                for tile in tiles() {
                    let n_vectors = tile.len().div_ceil(LANES);
                    let (seen, here);
                    (seen, columns) = columns.split_at(n_units * n_vectors);
                    (here, sums) = sums.split_at_mut(LANES * n_vectors);
                    tile::multiply::<L, U>(lanes, weights, seen, here, mode);
                }
            }
        }
        let mut sums = &scratch.sums[..];
        for chunk in chunks {
            for tile in tiles() {
                let here;
                (here, sums) = sums.split_at(LANES * tile.len().div_ceil(LANES));
                write(job, chunk, tile, here);
            }
        }
    }
}

/// The units of lines of numbers, in the scratch if the lines are not that already; what is missing is zero.
#[inline(always)]
fn units<'a, L: Lanes, U: Unit>(lanes: L, numbers: &'a [Line], scratch: &'a mut Vec<Line>) -> &'a [Line] {
    if U::NUMBERS == 1 {
        return numbers;
    }
    scratch.resize(numbers.len().div_ceil(2), Line::ZERO);
    for (unit, numbers) in scratch.iter_mut().zip(numbers.chunks(2)) {
        let second = numbers.get(1).map_or(lanes.splat(0.0), |line| lanes.load(line));
        lanes.store(U::join(lanes, [lanes.load(&numbers[0]), second]), unit);
    }
    scratch
}

/// Writes the columns `(units of taps, vectors)` of a tile's pixels.
#[inline(always)]
fn lay_out<L: Lanes, U: Unit>(lanes: L, job: &Job<'_>, taps: Range<usize>, pixels: Range<usize>, columns: &mut [Line]) {
    let (side, stride) = (job.conv.form.side, job.conv.form.stride);
    let n_vectors = pixels.len().div_ceil(LANES);
    let mut seen = [[Line::ZERO; TILE_VECTORS]; 2];
    for (first, column) in taps.clone().step_by(U::NUMBERS).zip(columns.chunks_exact_mut(n_vectors)) {
        for (tap, seen) in (first..first + U::NUMBERS).zip(&mut seen) {
            if tap >= taps.end {
                *seen = [Line::ZERO; TILE_VECTORS];
                continue;
            }
            let (channel, dy, dx) = (tap / (side * side), tap / side % side, tap % side);
            for_each_run(pixels.clone(), job.output.width, |run, y, x| {
                job.input.read(channel, (y * stride + dy, x * stride + dx), stride, &mut Line::numbers_mut(seen)[run]);
            });
        }
        for (idx, column) in column.iter_mut().enumerate() {
            lanes.store(U::join(lanes, [lanes.load(&seen[0][idx]), lanes.load(&seen[1][idx])]), column);
        }
    }
}

/// Writes the sums `(outputs of the chunk, vectors)` of a tile's pixels.
#[inline(always)]
fn write(job: &Job<'_>, chunk: usize, pixels: Range<usize>, sums: &[Line]) {
    let n_vectors = pixels.len().div_ceil(LANES);
    let outputs = chunk * LANES..((chunk + 1) * LANES).min(job.conv.form.outputs);
    for (output, sums) in outputs.zip(sums.chunks_exact(n_vectors)) {
        let sums = Line::numbers(sums);
        for_each_run(pixels.clone(), job.output.width, |run, y, x| {
            // SAFETY: every task has pixels and outputs of its own.
            unsafe { job.finish(output, y, x, &sums[run]) };
        });
    }
}

/// Cuts pixels into runs along rows: tells which of the pixels they are, and where the first one lies.
#[inline(always)]
fn for_each_run(pixels: Range<usize>, width: usize, mut each: impl FnMut(Range<usize>, usize, usize)) {
    let mut pixel = pixels.start;
    while pixel < pixels.end {
        let (y, x) = (pixel / width, pixel % width);
        let n = (width - x).min(pixels.end - pixel);
        each(pixel - pixels.start..pixel - pixels.start + n, y, x);
        pixel += n;
    }
}
