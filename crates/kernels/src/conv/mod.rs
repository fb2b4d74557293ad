//! Two-dimensional convolution by weights that are laid out once, when a model is loaded.
//!
//! Where it pays, a 3x3 convolution is computed with a quarter of the multiplications ([`winograd`]); every other one as
//! a product of the weights and of columns that hold, for each pixel, what it sees ([`columns`]). Both read the weights
//! in the same order, and leave the sums in the same [`tile`]s.

mod columns;
mod tile;
mod transform;
mod weight;
mod winograd;

pub use weight::PackedKernel;

use crate::dispatch::{self, Level};
use crate::lanes::LANES;
use crate::prefetch;
use crate::products::Products;
use crate::unit::{Bf16Pair, Unit};
use rayon::prelude::*;
use std::ops::Range;

/// Channels between the one that is read and the one that the processor is told to fetch.
const CHANNELS_AHEAD: usize = 4;
/// Tasks that a picture is cut into at least, if it is large enough, so that many threads have work.
const TASKS_MIN: usize = 16;
/// Chunks of outputs that a task has at least: what it prepares of the input is used by each of them.
const TASK_CHUNKS_MIN: usize = 8;

/// One convolution, with its weights.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    pub weight: &'a PackedKernel,
    /// `(outputs)`
    pub bias: &'a [f32],
    /// What is added to the result, of its shape.
    pub residual: Option<&'a [f32]>,
    pub form: Form,
    pub products: Products,
}

/// The form of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub inputs: usize,
    pub outputs: usize,
    /// Of the square kernel: 1 or 3 in most layers.
    pub side: usize,
    pub stride: usize,
    pub padding: Padding,
    /// Whether the picture is doubled first, each pixel becoming four (nearest neighbor); no such picture is made.
    pub upsample: bool,
}

/// Zeros around the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Above and to the left.
    pub before: usize,
    /// Below and to the right.
    pub after: usize,
}

/// Height and width, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub height: usize,
    pub width: usize,
}

impl Form {
    /// 3x3, same size.
    pub fn same(inputs: usize, outputs: usize) -> Self {
        let padding = Padding { before: 1, after: 1 };
        Self { inputs, outputs, side: 3, stride: 1, padding, upsample: false }
    }

    /// 1x1.
    pub fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { side: 1, padding: Padding { before: 0, after: 0 }, ..Self::same(inputs, outputs) }
    }

    /// Elements of the input that one element of the output sees.
    fn n_taps(&self) -> usize {
        self.inputs * self.side * self.side
    }

    pub fn output_extent(&self, input: Extent) -> Extent {
        let side = |n: usize| {
            let seen = if self.upsample { 2 * n } else { n };
            (seen + self.padding.before + self.padding.after - self.side) / self.stride + 1
        };
        Extent { height: side(input.height), width: side(input.width) }
    }
}

/// Convolves one picture.
///
/// # Shapes
/// - input: `(inputs, height, width)`; out: `(outputs, height', width')` of [`Form::output_extent`]
pub fn convolve(conv: &Conv<'_>, input: &[f32], extent: Extent, out: &mut [f32]) {
    let conv = Conv { products: conv.products.here(), ..*conv };
    convolve_at(dispatch::level(), &conv, Picture { values: input, extent }, out);
}

/// A picture and its size.
#[derive(Clone, Copy)]
struct Picture<'a> {
    /// `(channels, height, width)`
    values: &'a [f32],
    extent: Extent,
}

/// [`convolve`] with the instructions of a level, if the processor has them.
fn convolve_at(level: Level, conv: &Conv<'_>, input: Picture<'_>, out: &mut [f32]) {
    let form = conv.form;
    let extent = input.extent;
    let output = form.output_extent(extent);
    assert_eq!(input.values.len(), form.inputs * extent.height * extent.width, "convolve: the input does not fit");
    assert_eq!(out.len(), form.outputs * output.height * output.width, "convolve: the output does not fit");
    assert_eq!(conv.weight.extent(), (form.outputs, form.n_taps()), "convolve: the weight does not fit");
    assert_eq!(conv.bias.len(), form.outputs, "convolve: the bias does not fit");
    assert!(conv.residual.is_none_or(|residual| residual.len() == out.len()), "convolve: the residual does not fit");
    if out.is_empty() {
        return;
    }
    let job = Job { level, conv: *conv, input: Source { picture: input, form }, output, out: Sink(out.as_mut_ptr()) };
    match conv.products {
        Products::F32 => convolve_in::<f32>(&job),
        Products::Bf16 => convolve_in::<Bf16Pair>(&job),
    }
}

fn convolve_in<U: Unit>(job: &Job<'_>) {
    if winograd::pays(&job.conv.form, job.output) { winograd::convolve::<U>(job) } else { columns::convolve::<U>(job) }
}

/// What the tasks of one convolution share.
struct Job<'a> {
    level: Level,
    conv: Conv<'a>,
    input: Source<'a>,
    output: Extent,
    out: Sink,
}

impl Job<'_> {
    /// Runs `task` for every block, and for as many parts of the outputs as there must be to keep many threads busy. It
    /// is told the block and the part's chunks.
    fn for_each_part(&self, n_blocks: usize, task: impl Fn(usize, Range<usize>) + Sync) {
        let n_chunks = self.conv.form.outputs.div_ceil(LANES);
        let n_parts = TASKS_MIN.div_ceil(n_blocks).min(n_chunks.div_ceil(TASK_CHUNKS_MIN));
        let part_chunks = n_chunks.div_ceil(n_parts);
        let n_parts = n_chunks.div_ceil(part_chunks);
        (0..n_blocks * n_parts).into_par_iter().for_each(|idx| {
            let first = idx % n_parts * part_chunks;
            task(idx / n_parts, first..(first + part_chunks).min(n_chunks));
        });
    }

    /// Writes sums of one output along a row of the picture from column `x` on, with the bias and the residual.
    ///
    /// # Safety
    /// No other thread may write there meanwhile.
    #[inline(always)]
    unsafe fn finish(&self, output: usize, y: usize, x: usize, sums: &[f32]) {
        let Extent { height, width } = self.output;
        assert!(output < self.conv.form.outputs && y < height && x + sums.len() <= width, "a row leaves its picture");
        let start = (output * height + y) * width + x;
        let bias = self.conv.bias[output];
        // SAFETY: the assertion keeps the row within the output, and it is the caller's own.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.0.add(start), sums.len()) };
        match self.conv.residual {
            None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum + bias),
            Some(residual) => {
                let residual = &residual[start..start + sums.len()];
                out.iter_mut().zip(sums).zip(residual).for_each(|((out, sum), x)| *out = sum + bias + x);
            }
        }
    }
}

/// An output that tasks write to at places of their own.
#[derive(Clone, Copy)]
struct Sink(*mut f32);

// SAFETY: what writes through it asks its caller that no two threads write to the same place.
unsafe impl Sync for Sink {}
// SAFETY: as above; the pointer is to memory that outlives the convolution, which borrows it.
unsafe impl Send for Sink {}

/// A picture as a convolution sees it: padded, and perhaps doubled.
#[derive(Clone, Copy)]
struct Source<'a> {
    picture: Picture<'a>,
    form: Form,
}

impl Source<'_> {
    /// Every `step`-th value of a channel along a row from `(y, x)` on; positions are those of the padded picture.
    #[inline(always)]
    fn read(&self, channel: usize, (y, x): (usize, usize), step: usize, to: &mut [f32]) {
        let width = self.picture.extent.width;
        let Some(row) = self.row(channel, y) else { return to.fill(0.0) };
        if self.form.upsample {
            for (idx, to) in to.iter_mut().enumerate() {
                *to = self.index(x + idx * step, width).map_or(0.0, |x| row[x]);
            }
            return;
        }
        // Zeros, then what the row has, then zeros again.
        let before = self.form.padding.before;
        let n_before = before.saturating_sub(x).div_ceil(step).min(to.len());
        let from = (x + n_before * step).saturating_sub(before).min(width);
        let n_inside = (to.len() - n_before).min((width - from).div_ceil(step));
        to[..n_before].fill(0.0);
        to[n_before + n_inside..].fill(0.0);
        let (row, to) = (&row[from..], &mut to[n_before..n_before + n_inside]);
        match step {
            1 => to.copy_from_slice(&row[..n_inside]),
            2 => to.iter_mut().zip(row.chunks(2)).for_each(|(to, pair)| *to = pair[0]),
            _ => to.iter_mut().zip(row.chunks(step)).for_each(|(to, some)| *to = some[0]),
        }
    }

    /// Asks for a part of a channel, in the padded, perhaps doubled, picture: channels lie a picture apart, which the
    /// processor does not foresee. None is asked for of a channel that is not there.
    #[inline(always)]
    fn expect(&self, channel: usize, rows: Range<usize>, columns: Range<usize>) {
        if channel >= self.form.inputs {
            return;
        }
        for row in rows.filter_map(|y| self.row(channel, y)) {
            let place = |x: usize| {
                let x = x.saturating_sub(self.form.padding.before);
                (if self.form.upsample { x / 2 } else { x }).min(row.len())
            };
            prefetch::for_reading(&row[place(columns.start)..place(columns.end)]);
        }
    }

    /// The row of the input under a row of the padded, perhaps doubled, picture.
    #[inline(always)]
    fn row(&self, channel: usize, y: usize) -> Option<&[f32]> {
        let Extent { height, width } = self.picture.extent;
        let y = self.index(y, height)?;
        Some(&self.picture.values[(channel * height + y) * width..][..width])
    }

    /// The row or column of the input under a position of the padded, perhaps doubled, picture.
    #[inline(always)]
    fn index(&self, padded: usize, len: usize) -> Option<usize> {
        let seen = padded.checked_sub(self.form.padding.before)?;
        let index = if self.form.upsample { seen / 2 } else { seen };
        (index < len).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BF16_BITS, F16_BITS, numbers, numbers_of_bits};

    /// The definition, in f64.
    fn plainly(conv: &Conv<'_>, weight: &[f32], input: &[f32], extent: Extent) -> Vec<f32> {
        let form = conv.form;
        let scale = if form.upsample { 2 } else { 1 };
        let (height, width) = (extent.height * scale, extent.width * scale);
        let output = form.output_extent(extent);
        let mut out = Vec::new();
        for o in 0..form.outputs {
            for y in 0..output.height {
                for x in 0..output.width {
                    let mut sum = f64::from(conv.bias[o]);
                    for i in 0..form.inputs {
                        for dy in 0..form.side {
                            for dx in 0..form.side {
                                let (py, px) = (y * form.stride + dy, x * form.stride + dx);
                                let (Some(py), Some(px)) =
                                    (py.checked_sub(form.padding.before), px.checked_sub(form.padding.before))
                                else {
                                    continue;
                                };
                                if py >= height || px >= width {
                                    continue;
                                }
                                let value = input[(i * extent.height + py / scale) * extent.width + px / scale];
                                let weight = weight[((o * form.inputs + i) * form.side + dy) * form.side + dx];
                                sum += f64::from(value) * f64::from(weight);
                            }
                        }
                    }
                    let idx = out.len();
                    out.push((sum + conv.residual.map_or(0.0, |residual| f64::from(residual[idx]))) as f32);
                }
            }
        }
        out
    }

    #[track_caller]
    fn check(form: Form, extent: Extent) {
        let weight = numbers(form.outputs * form.n_taps(), 1);
        check_weight(&weight, Products::F32, form, extent, F32_ALLOWED);
        check_weight(&weight, Products::Bf16, form, extent, BF16_ALLOWED);
    }

    const F32_ALLOWED: Allowed = Allowed { typically: 3e-6, at_most: 1e-5 };
    const BF16_ALLOWED: Allowed = Allowed { typically: 0.02, at_most: 0.2 };

    /// How far results may be off, in the typical size of what is expected.
    struct Allowed {
        /// Root of the mean square.
        typically: f32,
        at_most: f32,
    }

    /// Returns what the packed weight takes, bytes.
    #[track_caller]
    fn check_weight(weight: &[f32], products: Products, form: Form, extent: Extent, allowed: Allowed) -> usize {
        let bias = numbers(form.outputs, 2);
        let input = numbers(form.inputs * extent.height * extent.width, 3);
        let output = form.output_extent(extent);
        let residual = numbers(form.outputs * output.height * output.width, 4);
        let packed = PackedKernel::pack(weight, form.outputs);
        for residual in [None, Some(&residual[..])] {
            let conv = Conv { weight: &packed, bias: &bias, residual, form, products };
            let expected = plainly(&conv, weight, &input, extent);
            let size = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
            for level in Level::ALL {
                let mut out = vec![f32::NAN; expected.len()];
                convolve_at(*level, &conv, Picture { values: &input, extent }, &mut out);
                let off: Vec<f32> =
                    out.iter().zip(&expected).map(|(got, expected)| (got - expected).abs() / size).collect();
                let worst = off.iter().fold(0.0, |max, x| if x.is_nan() || *x > max { *x } else { max });
                let typical = (off.iter().map(|x| x * x).sum::<f32>() / off.len() as f32).sqrt();
                assert!(
                    worst < allowed.at_most && typical < allowed.typically,
                    "{level:?}: {form:?} of {extent:?} in {products:?} is off by {worst:e}, typically by {typical:e}"
                );
            }
        }
        packed.bytes()
    }

    #[test]
    fn weights_that_fit_16_bits_take_16_bits_and_lose_nothing() {
        let extent = Extent { height: 16, width: 24 };
        for form in [Form::same(17, 33), Form::pointwise(17, 33)] {
            let of_three_chunks = 3 * LANES * form.n_taps();
            for (bits, bytes) in [(BF16_BITS, 2), (F16_BITS, 2), (u32::MAX, 4)] {
                let weight = numbers_of_bits(form.outputs * form.n_taps(), 1, bits);
                let taken = check_weight(&weight, Products::F32, form, extent, F32_ALLOWED);
                assert_eq!(taken, bytes * of_three_chunks, "{bits:x}");
                check_weight(&weight, Products::Bf16, form, extent, BF16_ALLOWED);
            }
        }
    }

    #[test]
    fn every_form_the_models_use_matches_the_definition() {
        for (height, width) in [(1, 1), (2, 3), (7, 5), (16, 24), (40, 33)] {
            let extent = Extent { height, width };
            for plain in [Form::same(3, 5), Form::same(17, 33)] {
                check(plain, extent);
                check(Form { upsample: true, ..plain }, extent);
                check(Form { side: 1, padding: Padding { before: 0, after: 0 }, ..plain }, extent);
                if height > 1 {
                    check(Form { stride: 2, padding: Padding { before: 0, after: 1 }, ..plain }, extent);
                    check(Form { stride: 2, ..plain }, extent);
                }
            }
        }
    }

    #[test]
    fn pictures_of_many_tiles_match_the_definition() {
        for (height, width) in [(4, 64), (9, 131), (66, 66), (100, 20)] {
            check(Form::same(8, 24), Extent { height, width });
            check(Form { upsample: true, ..Form::same(9, 8) }, Extent { height, width });
        }
    }

    #[test]
    fn many_channels_match_the_definition() {
        check(Form::same(1100, 40), Extent { height: 16, width: 16 });
        check(Form::pointwise(2100, 40), Extent { height: 3, width: 17 });
    }
}
