//! Convolution of any form: what each pixel sees is laid out as a column, a few pixels and taps at a time, in cache.

use super::tile::{self, TILE_VECTORS};
use super::weight::{Taps, Weights};
use super::{CHANNELS_AHEAD, Extent, Job};
use crate::lanes::{LANES, Lanes, Line, Task};
use crate::matmul::Mode;
use crate::unit::Unit;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Pixels of a tile.
const TILE_PIXELS: usize = TILE_VECTORS * LANES;
/// Tiles of a task for each number of a unit: 1024 taps of their columns are 384 KiB.
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
    let task_pixels = TASK_TILES * TILE_PIXELS * U::NUMBERS;
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
                let weights = job.conv.weight.taps(chunk, taps.clone());
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

/// The units of taps, in the scratch if they are not kept as that already.
#[inline(always)]
fn units<'a, L: Lanes, U: Unit>(lanes: L, taps: Taps<'a>, scratch: &'a mut Vec<Line>) -> &'a [Line] {
    match taps {
        Taps::Single(lines) if U::NUMBERS == 1 => return lines,
        Taps::Single(lines) => join::<L, U, _>(lanes, lines, scratch),
        Taps::Bf16(lines) => join::<L, U, _>(lanes, lines, scratch),
        Taps::F16(lines) => join::<L, U, _>(lanes, lines, scratch),
    }
    scratch
}

/// The units of lines of numbers; what is missing is zero.
#[inline(always)]
fn join<L: Lanes, U: Unit, W: Weights>(lanes: L, numbers: &[W], units: &mut Vec<Line>) {
    units.resize(numbers.len().div_ceil(U::NUMBERS), Line::ZERO);
    for (unit, numbers) in units.iter_mut().zip(numbers.chunks(U::NUMBERS)) {
        let second = numbers.get(1).map_or(lanes.splat(0.0), |line| line.load(lanes));
        lanes.store(U::join(lanes, [numbers[0].load(lanes), second]), unit);
    }
}

/// Writes the columns `(units of taps, vectors)` of a tile's pixels.
#[inline(always)]
fn lay_out<L: Lanes, U: Unit>(lanes: L, job: &Job<'_>, taps: Range<usize>, pixels: Range<usize>, columns: &mut [Line]) {
    let n_vectors = pixels.len().div_ceil(LANES);
    let mut places = [None; TILE_VECTORS];
    for (first, place) in pixels.clone().step_by(LANES).zip(&mut places) {
        *place = place_in_a_row(job, first..first + LANES);
    }
    let mut tap = Tap::of(job, taps.start);
    for channel in tap.channel..tap.channel + CHANNELS_AHEAD {
        expect(job, channel, &pixels);
    }
    let mut seen = [[Line::ZERO; TILE_VECTORS]; 2];
    for (first, column) in taps.clone().step_by(U::NUMBERS).zip(columns.chunks_exact_mut(n_vectors)) {
        for (idx, seen) in (first..first + U::NUMBERS).zip(&mut seen) {
            if idx >= taps.end {
                *seen = [Line::ZERO; TILE_VECTORS];
                continue;
            }
            for (vector, (seen, place)) in seen.iter_mut().zip(places).take(n_vectors).enumerate() {
                match place {
                    Some(place) => lanes.store(see_in_a_row(lanes, job, tap, place), seen),
                    None => see(job, tap, &pixels, vector, seen),
                }
            }
            let channel = tap.channel;
            tap = tap.next(job);
            if tap.channel != channel {
                expect(job, channel + CHANNELS_AHEAD, &pixels);
            }
        }
        for (idx, column) in column.iter_mut().enumerate() {
            lanes.store(U::join(lanes, [lanes.load(&seen[0][idx]), lanes.load(&seen[1][idx])]), column);
        }
    }
}

/// Asks for what the pixels of a tile see of a channel.
#[inline(always)]
fn expect(job: &Job<'_>, channel: usize, pixels: &Range<usize>) {
    let (side, stride) = (job.conv.form.side, job.conv.form.stride);
    for_each_run(pixels.clone(), job.output.width, |run, y, x| {
        let (y, x) = (y * stride, x * stride);
        job.input.expect(channel, y..y + side, x..x + run.len() * stride + side);
    });
}

/// One number of a kernel.
#[derive(Clone, Copy)]
struct Tap {
    channel: usize,
    dy: usize,
    dx: usize,
}

impl Tap {
    fn of(job: &Job<'_>, idx: usize) -> Self {
        let side = job.conv.form.side;
        Self { channel: idx / (side * side), dy: idx / side % side, dx: idx % side }
    }

    /// The next one, without a division.
    #[inline(always)]
    fn next(self, job: &Job<'_>) -> Self {
        let (Self { channel, dy, dx }, side) = (self, job.conv.form.side);
        match (dy + 1 == side, dx + 1 == side) {
            (true, true) => Self { channel: channel + 1, dy: 0, dx: 0 },
            (false, true) => Self { channel, dy: dy + 1, dx: 0 },
            (_, false) => Self { channel, dy, dx: dx + 1 },
        }
    }
}

/// Where a vector's pixels begin, `(y, x)`, if all of them lie in one row and can be read from it as vectors.
fn place_in_a_row(job: &Job<'_>, pixels: Range<usize>) -> Option<(usize, usize)> {
    let (form, width) = (job.conv.form, job.output.width);
    let (y, x) = (pixels.start / width, pixels.start % width);
    (!form.upsample && form.stride <= 2 && x + pixels.len() <= width).then_some((y, x))
}

/// What a tap sees from a vector's pixels that lie in one row.
#[inline(always)]
fn see_in_a_row<L: Lanes>(lanes: L, job: &Job<'_>, tap: Tap, (y, x): (usize, usize)) -> L::Vector {
    let form = job.conv.form;
    let Some(row) = job.input.row(tap.channel, y * form.stride + tap.dy) else { return lanes.splat(0.0) };
    let first = (x * form.stride + tap.dx) as isize - form.padding.before as isize;
    let near = lanes.load_within(row, first);
    if form.stride == 1 { near } else { lanes.unzip([near, lanes.load_within(row, first + LANES as isize)])[0] }
}

/// What a tap sees from the pixels of any vector of a tile.
#[inline(always)]
fn see(job: &Job<'_>, tap: Tap, pixels: &Range<usize>, vector: usize, seen: &mut Line) {
    let stride = job.conv.form.stride;
    let first = pixels.start + vector * LANES;
    for_each_run(first..pixels.end.min(first + LANES), job.output.width, |run, y, x| {
        job.input.read(tap.channel, (y * stride + tap.dy, x * stride + tap.dx), stride, &mut seen.0[run]);
    });
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
