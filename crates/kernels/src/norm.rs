//! Normalizations, one pass over memory each; statistics in f32 over a row, in f64 across rows of a group.

use crate::activation::row_batch;
use crate::dispatch::dispatched;
use crate::math;
use rayon::prelude::*;

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
    output.par_chunks_mut(n).zip(input.par_chunks(n)).with_min_len(row_batch(n)).for_each(|(out, row)| {
        let (mean, inverse_deviation) = row_statistics(row, eps);
        match affine {
            Affine::None => normalize_row(row, out, mean, inverse_deviation),
            Affine::Learned { weight, bias } => {
                normalize_row(row, out, mean, inverse_deviation);
                scale_and_shift(out, weight, bias, 0.0);
            }
            Affine::Modulation { scale, shift } => {
                normalize_row(row, out, mean, inverse_deviation);
                scale_and_shift(out, scale, shift, 1.0);
            }
        }
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
    let channels_per_group = n_channels / norm.n_groups;
    let group_len = channels_per_group * n_pixels;
    output.par_chunks_mut(group_len).zip(input.par_chunks(group_len)).enumerate().for_each(|(group, (out, values))| {
        let (mean, inverse_deviation) = group_statistics(values, norm.eps);
        for (idx, (out, values)) in out.chunks_mut(n_pixels).zip(values.chunks(n_pixels)).enumerate() {
            let channel = group * channels_per_group + idx;
            let scale = norm.weight[channel] * inverse_deviation;
            let shift = norm.bias[channel] - mean * scale;
            if norm.silu { affine_silu(values, out, scale, shift) } else { affine(values, out, scale, shift) }
        }
    });
}

fn check_rows(input: &[f32], output: &[f32], n: usize) {
    assert!(n > 0 && input.len().is_multiple_of(n), "a norm's rows are not whole");
    assert_eq!(input.len(), output.len(), "a norm's lengths differ");
}

/// Mean and `1 / sqrt(variance + eps)`, from blocks summed in f32 and added up in f64.
fn group_statistics(values: &[f32], eps: f32) -> (f32, f32) {
    const BLOCK: usize = 4096;
    let n = values.len() as f64;
    let sum: f64 = values.chunks(BLOCK).map(|block| f64::from(sum(block))).sum();
    let mean = (sum / n) as f32;
    let squares: f64 = values.chunks(BLOCK).map(|block| f64::from(squared_distance(block, mean))).sum();
    let variance = squares / n;
    (mean, (1.0 / (variance + f64::from(eps)).sqrt()) as f32)
}

fn row_statistics(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let variance = squared_distance(row, mean) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Sums in independent lanes: vectorizable, and more exact than one running sum.
#[inline(always)]
fn lanes(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| of(*x)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += of(*x);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for idx in 0..width {
            sums[idx] += sums[idx + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

dispatched! {
    fn sum(values: &[f32]) -> f32 {
        lanes(values, |x| x)
    }
}

dispatched! {
    fn squared_distance(values: &[f32], mean: f32) -> f32 {
        lanes(values, |x| (x - mean) * (x - mean))
    }
}

dispatched! {
    fn normalize_row(row: &[f32], out: &mut [f32], mean: f32, inverse_deviation: f32) {
        for (out, x) in out.iter_mut().zip(row) {
            *out = (x - mean) * inverse_deviation;
        }
    }
}

dispatched! {
    fn scale_and_shift(row: &mut [f32], scale: &[f32], shift: &[f32], plus: f32) {
        for ((x, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
            *x = *x * (plus + scale) + shift;
        }
    }
}

dispatched! {
    pub(crate) fn rms_norm_row(row: &mut [f32], weight: &[f32], eps: f32) {
        let mean_square = lanes(row, |x| x * x) / row.len() as f32;
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

dispatched! {
    fn affine_silu(values: &[f32], out: &mut [f32], scale: f32, shift: f32) {
        for (out, x) in out.iter_mut().zip(values) {
            let y = x * scale + shift;
            *out = y / (1.0 + math::exp(-y));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_group_norm_keeps_groups_apart() {
        let input = [0.0, 2.0, 100.0, 300.0];
        let mut output = [0.0; 4];
        let norm = GroupNorm { n_groups: 2, eps: 0.0, weight: &[1.0, 1.0], bias: &[0.0, 0.0], silu: false };
        group_norm(&input, &mut output, norm);
        assert_eq!(output, [-1.0, 1.0, -1.0, 1.0]);
    }
}
