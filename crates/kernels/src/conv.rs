//! Two-dimensional convolution: strips of the picture are laid out as columns that stay in cache, then multiplied.

use crate::matmul::{Matrix, Mode, Target, Threads, multiply};
use rayon::prelude::*;

/// Pixels of output whose columns are laid out at a time. 512 columns of 9 · 512 channels are 9 MiB, the most any
/// layer of the models needs; most need far less.
const STRIP_PIXELS: usize = 512;
/// Elements between the columns' rows: not a power of two, so that rows do not fight for the same cache lines.
const COLUMN_STRIDE: usize = STRIP_PIXELS + 16;

/// One convolution, with its weights.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    /// `(outputs, inputs, side, side)`
    pub weight: &'a [f32],
    /// `(outputs)`
    pub bias: &'a [f32],
    pub form: Form,
}

/// The form of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub inputs: usize,
    pub outputs: usize,
    /// Of the square kernel: 1 or 3 in the models.
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
    let form = conv.form;
    let output = form.output_extent(extent);
    let n_pixels = output.height * output.width;
    let n_taps = form.n_taps();
    assert_eq!(input.len(), form.inputs * extent.height * extent.width, "convolve: the input does not fit");
    assert_eq!(out.len(), form.outputs * n_pixels, "convolve: the output does not fit");
    assert_eq!(conv.weight.len(), form.outputs * n_taps, "convolve: the weight does not fit");
    assert_eq!(conv.bias.len(), form.outputs, "convolve: the bias does not fit");

    let strips: Vec<Vec<f32>> = (0..n_pixels.div_ceil(STRIP_PIXELS))
        .into_par_iter()
        .map_init(Vec::new, |columns, strip| {
            let first = strip * STRIP_PIXELS;
            let n_columns = STRIP_PIXELS.min(n_pixels - first);
            columns.resize(n_taps * COLUMN_STRIDE, 0.0);
            lay_out(&form, input, extent, Strip { first, n_columns, output_width: output.width }, columns);
            multiply_strip(conv, columns, n_columns)
        })
        .collect();
    out.par_chunks_mut(n_pixels).enumerate().for_each(|(channel, plane)| {
        for (plane, strip) in plane.chunks_mut(STRIP_PIXELS).zip(&strips) {
            let n_columns = plane.len();
            plane.copy_from_slice(&strip[channel * n_columns..][..n_columns]);
        }
    });
}

/// `(outputs, columns)` of one strip.
fn multiply_strip(conv: &Conv<'_>, columns: &[f32], n_columns: usize) -> Vec<f32> {
    let Form { outputs, .. } = conv.form;
    let n_taps = conv.form.n_taps();
    let mut strip = Vec::with_capacity(outputs * n_columns);
    for bias in conv.bias {
        strip.extend(std::iter::repeat_n(*bias, n_columns));
    }
    multiply(
        Matrix::row_major(conv.weight, outputs, n_taps),
        Matrix { values: columns, rows: n_taps, columns: n_columns, row_stride: COLUMN_STRIDE, column_stride: 1 },
        1.0,
        Target { values: &mut strip, row_stride: n_columns, mode: Mode::Accumulate },
        Threads::One,
    );
    strip
}

/// Which output pixels are laid out.
#[derive(Clone, Copy)]
struct Strip {
    first: usize,
    n_columns: usize,
    output_width: usize,
}

/// Writes the columns `(taps, pixels of the strip)`, rows [`COLUMN_STRIDE`] apart.
fn lay_out(form: &Form, input: &[f32], extent: Extent, strip: Strip, columns: &mut [f32]) {
    let Strip { first, n_columns, output_width } = strip;
    let side = form.side;
    let plane_len = extent.height * extent.width;
    for (tap, column) in columns.chunks_mut(COLUMN_STRIDE).enumerate() {
        let (channel, dy, dx) = (tap / (side * side), tap / side % side, tap % side);
        let plane = &input[channel * plane_len..][..plane_len];
        let mut filled = 0;
        while filled < n_columns {
            let pixel = first + filled;
            let (y, x) = (pixel / output_width, pixel % output_width);
            let n = (output_width - x).min(n_columns - filled);
            let to = &mut column[filled..filled + n];
            match source_index(y * form.stride + dy, form, extent.height) {
                None => to.fill(0.0),
                Some(row) => lay_out_row(form, &plane[row * extent.width..][..extent.width], x, dx, to),
            }
            filled += n;
        }
    }
}

/// One tap's values along a row of output pixels from column `x` on.
fn lay_out_row(form: &Form, row: &[f32], x: usize, dx: usize, to: &mut [f32]) {
    if form.stride == 1 && !form.upsample {
        // The common case: a shifted copy with zeros beyond either end.
        let start = x + dx;
        let n_before = form.padding.before.saturating_sub(start).min(to.len());
        let from = (start + n_before).saturating_sub(form.padding.before).min(row.len());
        let n_inside = (to.len() - n_before).min(row.len() - from);
        to[..n_before].fill(0.0);
        to[n_before..n_before + n_inside].copy_from_slice(&row[from..from + n_inside]);
        to[n_before + n_inside..].fill(0.0);
        return;
    }
    for (idx, to) in to.iter_mut().enumerate() {
        *to = source_index((x + idx) * form.stride + dx, form, row.len()).map_or(0.0, |column| row[column]);
    }
}

/// The row or column of the input under a position of the padded, perhaps doubled, picture.
fn source_index(padded: usize, form: &Form, len: usize) -> Option<usize> {
    let seen = padded.checked_sub(form.padding.before)?;
    let index = if form.upsample { seen / 2 } else { seen };
    (index < len).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// The definition, in f64.
    fn plainly(conv: &Conv<'_>, input: &[f32], extent: Extent) -> Vec<f32> {
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
                                let weight = conv.weight[((o * form.inputs + i) * form.side + dy) * form.side + dx];
                                sum += f64::from(value) * f64::from(weight);
                            }
                        }
                    }
                    out.push(sum as f32);
                }
            }
        }
        out
    }

    #[track_caller]
    fn check(form: Form, extent: Extent) {
        let weight = numbers(form.outputs * form.n_taps(), 1);
        let bias = numbers(form.outputs, 2);
        let conv = Conv { weight: &weight, bias: &bias, form };
        let input = numbers(form.inputs * extent.height * extent.width, 3);
        let output = form.output_extent(extent);
        let mut out = vec![f32::NAN; form.outputs * output.height * output.width];
        convolve(&conv, &input, extent, &mut out);
        for (idx, (got, expected)) in out.iter().zip(plainly(&conv, &input, extent)).enumerate() {
            assert!((got - expected).abs() < 2e-5, "element {idx}: {got} instead of {expected}");
        }
    }

    #[test]
    fn every_form_the_models_use_matches_the_definition() {
        for (height, width) in [(1, 1), (2, 3), (7, 5), (16, 24), (40, 33)] {
            let extent = Extent { height, width };
            let plain = Form::same(3, 5);
            check(plain, extent);
            check(Form { upsample: true, ..plain }, extent);
            check(Form::pointwise(3, 5), extent);
            if height > 1 {
                check(Form { stride: 2, padding: Padding { before: 0, after: 1 }, ..plain }, extent);
                check(Form { stride: 2, ..plain }, extent);
            }
        }
    }
}
