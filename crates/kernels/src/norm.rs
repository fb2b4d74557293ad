//! Normalizations, one pass over memory each; statistics in f32 over a row, in f64 across rows of a group.

use crate::activation::row_batch;
use crate::dispatch::{self, dispatched};
use crate::lanes::{self, LANES, Lanes, Line, Task};
use rayon::prelude::*;

/// Sums that run beside each other.
const SUMS: usize = 32;
/// Results from this size on do not fit a processor's caches.
const STREAMED_BYTES_MIN: usize = 32 << 20;

/// Shift and scale that follow a layer norm.
#[derive(Clone, Copy)]
pub enum Affine<'a> {
    None,
    /// `x * weight + bias`: the learned affine transform.
    Learned {
        weight: &'a [f32],
        bias: &'a [f32],
    },
    /// `x * (1 + scale) + shift`: the modulation of an adaptive layer norm.
    Modulation {
        scale: &'a [f32],
        shift: &'a [f32],
    },
}

/// Layer norm over rows of `n` elements, then the affine transform.
///
/// # Shapes
/// - input, output: `(rows, n)`; every slice of the affine transform: `(n)`
pub fn layer_norm(input: &[f32], output: &mut [f32], n: usize, eps: f32, affine: Affine<'_>) {
    check_rows(input, output, n);
    output.par_chunks_mut(n).zip(input.par_chunks(n)).with_min_len(row_batch(n)).for_each(|(out, row)| match affine {
        Affine::None => layer_norm_row(row, out, eps),
        Affine::Learned { weight, bias } => affine_layer_norm_row(row, out, eps, (weight, 0.0), bias),
        Affine::Modulation { scale, shift } => affine_layer_norm_row(row, out, eps, (scale, 1.0), shift),
    });
}

/// RMS norm over rows of `n` elements: `x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Shapes
/// - values: `(rows, n)`, in place; weight: `(n)`
pub fn rms_norm(values: &mut [f32], weight: &[f32], eps: f32) {
    let n = weight.len();
    assert!(n > 0 && values.len().is_multiple_of(n), "rms_norm: rows are not whole");
    values.par_chunks_mut(n).with_min_len(row_batch(n)).for_each(|row| rms_norm_row(row, weight, eps));
}

/// What a group norm needs beside its picture.
#[derive(Clone, Copy)]
pub struct GroupNorm<'a> {
    pub n_groups: usize,
    pub eps: f32,
    /// `(channels)`
    pub weight: &'a [f32],
    /// `(channels)`
    pub bias: &'a [f32],
    /// Whether SiLU follows, in the same pass.
    pub silu: bool,
    /// Of each group; `None`: the picture's own.
    pub statistics: Option<&'a [Statistics]>,
}

/// What a group is normed by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    pub mean: f32,
    /// `1 / sqrt(variance + eps)`
    pub inverse_deviation: f32,
}

impl GroupNorm<'_> {
    /// Of each group of a picture, `(channels, pixels)`.
    pub fn statistics_of(&self, input: &[f32]) -> Vec<Statistics> {
        let group_len = input.len() / self.n_groups;
        assert_eq!(input.len(), self.n_groups * group_len, "group_norm: groups are not whole");
        input.par_chunks(group_len).map(|values| group_statistics(values, self.eps)).collect()
    }
}

/// Group norm of one picture.
///
/// # Shapes
/// - input, output: `(channels, pixels)`
pub fn group_norm(input: &[f32], output: &mut [f32], norm: GroupNorm<'_>) {
    let n_channels = norm.weight.len();
    let n_pixels = input.len() / n_channels;
    assert_eq!(input.len(), n_channels * n_pixels, "group_norm: channels are not whole");
    assert_eq!(input.len(), output.len(), "group_norm: lengths differ");
    assert!(n_channels.is_multiple_of(norm.n_groups), "group_norm: groups are not whole");
    let n_statistics = norm.statistics.map_or(norm.n_groups, <[_]>::len);
    assert_eq!(n_statistics, norm.n_groups, "group_norm: the statistics are not of these groups");
    let channels_per_group = n_channels / norm.n_groups;
    let group_len = channels_per_group * n_pixels;
    let streams = size_of_val(output) > STREAMED_BYTES_MIN;
    output.par_chunks_mut(group_len).zip(input.par_chunks(group_len)).enumerate().for_each(|(group, (out, values))| {
        let own = || group_statistics(values, norm.eps);
        let Statistics { mean, inverse_deviation } = norm.statistics.map_or_else(own, |all| all[group]);
        for (idx, (out, values)) in out.chunks_mut(n_pixels).zip(values.chunks(n_pixels)).enumerate() {
            let channel = group * channels_per_group + idx;
            let scale = norm.weight[channel] * inverse_deviation;
            let shift = norm.bias[channel] - mean * scale;
            if norm.silu {
                lanes::run(dispatch::level(), AffineSilu { values, out, scale, shift, streams });
            } else {
                affine(values, out, scale, shift);
            }
        }
    });
}

fn check_rows(input: &[f32], output: &[f32], n: usize) {
    assert!(n > 0 && input.len().is_multiple_of(n), "a norm's rows are not whole");
    assert_eq!(input.len(), output.len(), "a norm's lengths differ");
}

/// Mean and `1 / sqrt(variance + eps)` in one pass over memory: of blocks that stay in cache in f32, of all in f64 (Chan,
/// Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
fn group_statistics(values: &[f32], eps: f32) -> Statistics {
    const BLOCK: usize = 4096;
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for block in values.chunks(BLOCK) {
        let n_block = block.len() as f64;
        // Squares lose nothing about a number that is near the block's mean, as the mean so far mostly is.
        let about = if n > 0.0 { mean as f32 } else { sum(block) / block.len() as f32 };
        let distance = f64::from(about) - mean;
        let (block_sum, block_squares) = distances(block, about);
        let distance = distance + f64::from(block_sum) / n_block;
        let block_squares = f64::from(block_squares) - f64::from(block_sum) * f64::from(block_sum) / n_block;
        squares += block_squares + distance * distance * n * n_block / (n + n_block);
        mean += distance * n_block / (n + n_block);
        n += n_block;
    }
    let variance = squares / n;
    Statistics { mean: mean as f32, inverse_deviation: (1.0 / (variance + f64::from(eps)).sqrt()) as f32 }
}

/// Mean and `1 / sqrt(variance + eps)`
#[inline(always)]
fn row_statistics(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = in_lanes(row, |x| x) / n;
    let variance = in_lanes(row, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Sums in independent lanes: vectorizable, and more exact than one running sum.
#[inline(always)]
fn in_lanes(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; SUMS];
    let chunks = values.chunks_exact(SUMS);
    let rest: f32 = chunks.remainder().iter().map(|x| of(*x)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += of(*x);
        }
    }
    total(sums) + rest
}

#[inline(always)]
fn total(mut sums: [f32; SUMS]) -> f32 {
    let mut width = SUMS / 2;
    while width > 0 {
        for idx in 0..width {
            sums[idx] += sums[idx + width];
        }
        width /= 2;
    }
    sums[0]
}

dispatched! {
    fn sum(values: &[f32]) -> f32 {
        in_lanes(values, |x| x)
    }
}

dispatched! {
    /// The distances from a number, and their squares, added up.
    fn distances(values: &[f32], about: f32) -> (f32, f32) {
        let (mut sums, mut squares) = ([0.0f32; SUMS], [0.0f32; SUMS]);
        let (chunks, rest) = values.as_chunks::<SUMS>();
        for chunk in chunks {
            for ((sum, square), x) in sums.iter_mut().zip(&mut squares).zip(chunk) {
                let distance = x - about;
                *sum += distance;
                *square += distance * distance;
            }
        }
        let (sum, square) = rest.iter().fold((0.0, 0.0), |(sum, square), x| {
            let distance = x - about;
            (sum + distance, square + distance * distance)
        });
        (total(sums) + sum, total(squares) + square)
    }
}

dispatched! {
    fn layer_norm_row(row: &[f32], out: &mut [f32], eps: f32) {
        let (mean, inverse_deviation) = row_statistics(row, eps);
        for (out, x) in out.iter_mut().zip(row) {
            *out = (x - mean) * inverse_deviation;
        }
    }
}

dispatched! {
    /// With a scale, to which a number is added, and a shift.
    fn affine_layer_norm_row(row: &[f32], out: &mut [f32], eps: f32, scale: (&[f32], f32), shift: &[f32]) {
        let (scale, plus) = scale;
        let (mean, inverse_deviation) = row_statistics(row, eps);
        for (((out, x), scale), shift) in out.iter_mut().zip(row).zip(scale).zip(shift) {
            *out = (x - mean) * inverse_deviation * (plus + scale) + shift;
        }
    }
}

dispatched! {
    pub(crate) fn rms_norm_row(row: &mut [f32], weight: &[f32], eps: f32) {
        let mean_square = in_lanes(row, |x| x * x) / row.len() as f32;
        let inverse = 1.0 / (mean_square + eps).sqrt();
        for (x, weight) in row.iter_mut().zip(weight) {
            *x = *x * inverse * weight;
        }
    }
}

dispatched! {
    fn affine(values: &[f32], out: &mut [f32], scale: f32, shift: f32) {
        for (out, x) in out.iter_mut().zip(values) {
            *out = x * scale + shift;
        }
    }
}

/// `silu(scale x + shift)`
struct AffineSilu<'a> {
    values: &'a [f32],
    out: &'a mut [f32],
    scale: f32,
    shift: f32,
    /// Whether the output goes past the caches, because it does not fit them anyway: it is then not read first.
    streams: bool,
}

impl Task for AffineSilu<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { values, out, scale, shift, streams } = self;
        let affine = (scale, shift);
        // Whole lines of the output lie where lines do.
        let (begin, lines, end) = Line::within(out);
        let (first, values) = values.split_at(begin.len());
        let (values, last) = values.as_chunks::<LANES>();
        few_affine_silu(lanes, first, begin, affine);
        few_affine_silu(lanes, last, end, affine);
        for (line, x) in lines.iter_mut().zip(values) {
            let y = affine_silu(lanes, x, affine);
            if streams { lanes.stream(y, line) } else { lanes.store(y, line) }
        }
        if streams {
            lanes.finish_streams();
        }
    }
}

/// Of fewer numbers than a vector has.
#[inline(always)]
fn few_affine_silu<L: Lanes>(lanes: L, values: &[f32], out: &mut [f32], affine: (f32, f32)) {
    let (mut some, mut computed) = ([0.0; LANES], [0.0; LANES]);
    some[..values.len()].copy_from_slice(values);
    lanes.store_numbers(affine_silu(lanes, &some, affine), &mut computed);
    out.copy_from_slice(&computed[..values.len()]);
}

#[inline(always)]
fn affine_silu<L: Lanes>(lanes: L, x: &[f32; LANES], (scale, shift): (f32, f32)) -> L::Vector {
    lanes.silu(lanes.mul_add(lanes.load_numbers(x), lanes.splat(scale), lanes.splat(shift)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn a_layer_norm_has_zero_mean_and_unit_variance() {
        let input: Vec<f32> = (0..70).map(|i| (i * i % 13) as f32).collect();
        let mut output = vec![0.0; 70];
        layer_norm(&input, &mut output, 35, 1e-6, Affine::None);
        for row in output.chunks(35) {
            let mean: f32 = row.iter().sum::<f32>() / 35.0;
            let variance: f32 = row.iter().map(|x| x * x).sum::<f32>() / 35.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
    }

    #[test]
    fn modulation_adds_one_to_the_scale() {
        let mut output = vec![0.0; 2];
        let affine = Affine::Modulation { scale: &[1.0, 1.0], shift: &[0.5, 0.5] };
        layer_norm(&[-1.0, 1.0], &mut output, 2, 0.0, affine);
        assert_eq!(output, [-1.5, 2.5]);
    }

    #[test]
    fn the_epsilon_counts_where_the_variance_is_small() {
        let norm = |eps| {
            let mut output = vec![0.0; 2];
            layer_norm(&[-1e-3, 1e-3], &mut output, 2, eps, Affine::None);
            output[1]
        };
        assert!((norm(1e-6) - 0.707_106_77).abs() < 1e-6);
        assert!((norm(1e-5) - 0.301_511_35).abs() < 1e-6);
    }

    /// The definition, in f64.
    fn plainly(input: &[f32], norm: GroupNorm<'_>) -> Vec<f32> {
        let n_channels = norm.weight.len();
        let (n_pixels, group_len) = (input.len() / n_channels, input.len() / norm.n_groups);
        let mut out = Vec::new();
        for (idx, x) in input.iter().enumerate() {
            let group = &input[idx / group_len * group_len..][..group_len];
            let mean = group.iter().map(|x| f64::from(*x)).sum::<f64>() / group_len as f64;
            let variance = group.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / group_len as f64;
            let normal = (f64::from(*x) - mean) / (variance + f64::from(norm.eps)).sqrt();
            let (weight, bias) = (norm.weight[idx / n_pixels], norm.bias[idx / n_pixels]);
            let y = normal * f64::from(weight) + f64::from(bias);
            out.push((if norm.silu { y / (1.0 + (-y).exp()) } else { y }) as f32);
        }
        out
    }

    #[test]
    fn a_group_norm_matches_the_definition_where_the_mean_is_large_and_where_it_is_not() {
        for (offset, tolerance) in [(0.0, 2e-6), (30.0, 1e-5), (-1000.0, 3e-4)] {
            for (n_channels, n_pixels) in [(4, 7), (6, 2500)] {
                let input: Vec<f32> = numbers(n_channels * n_pixels, 1).iter().map(|x| x + offset).collect();
                let (weight, bias) = (numbers(n_channels, 2), numbers(n_channels, 3));
                for silu in [false, true] {
                    let norm =
                        GroupNorm { n_groups: 2, eps: 1e-6, weight: &weight, bias: &bias, silu, statistics: None };
                    let mut out = vec![f32::NAN; input.len()];
                    group_norm(&input, &mut out, norm);
                    for (got, expected) in out.iter().zip(plainly(&input, norm)) {
                        assert!((got - expected).abs() < tolerance, "{offset}: {got} instead of {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_group_norm_keeps_groups_apart() {
        let input = [0.0, 2.0, 100.0, 300.0];
        let mut output = [0.0; 4];
        let norm =
            GroupNorm { n_groups: 2, eps: 0.0, weight: &[1.0, 1.0], bias: &[0.0, 0.0], silu: false, statistics: None };
        group_norm(&input, &mut output, norm);
        assert_eq!(output, [-1.0, 1.0, -1.0, 1.0]);
    }
}
