//! Feature maps at another size, plane by plane, as torch's `interpolate` computes them without antialiasing.

use crate::conv::Extent;
use crate::values::{self, Values};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// How values between the samples are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Of two neighbors; samples lie in the middle of their cells (`align_corners=False`).
    Bilinear,
    /// Of two neighbors; the first and the last samples stay where they are (`align_corners=True`).
    BilinearCorners,
    /// Of four neighbors, by Keys' cubic convolution with `a = -0.75`; samples lie in the middle of their cells.
    Bicubic,
}

/// The maps at another size.
///
/// # Shapes
/// - x: `(b, channels, h, w)`; output: `(b, channels, to.height, to.width)`
pub fn interpolate(x: &Tensor, to: Extent, interpolation: Interpolation) -> Result<Tensor> {
    let (b, n_channels, height, width) = x.dims4()?;
    let from = Extent { height, width };
    if height == 0 || width == 0 || to.height == 0 || to.width == 0 {
        return Err(Error::Shape(format!("interpolation of {:?} to {} x {}", x.dims(), to.height, to.width)));
    }
    let x = x.contiguous()?;
    let input = Values::of(&x)?;
    let resample = Resample { from, to, interpolation };
    let out = match interpolation {
        Interpolation::Bicubic => planes(resample, cubic_taps, &input),
        Interpolation::Bilinear | Interpolation::BilinearCorners => planes(resample, linear_taps, &input),
    };
    values::tensor(out, (b, n_channels, to.height, to.width))
}

/// From one size to another.
#[derive(Clone, Copy)]
struct Resample {
    from: Extent,
    to: Extent,
    interpolation: Interpolation,
}

/// What one sample of a side of the result is made of.
#[derive(Clone, Copy)]
struct Taps<const N: usize> {
    indices: [usize; N],
    weights: [f32; N],
}

fn planes<const N: usize>(
    Resample { from, to, interpolation }: Resample,
    taps: impl Fn(f32, usize) -> Taps<N>,
    input: &[f32],
) -> Vec<f32> {
    let side = |n_from: usize, n_to: usize| -> Vec<Taps<N>> {
        (0..n_to).map(|idx| taps(position(interpolation, idx, n_from, n_to), n_from)).collect()
    };
    let (rows, columns) = (side(from.height, to.height), side(from.width, to.width));
    let mut out = vec![0.0; input.len() / (from.height * from.width) * to.height * to.width];
    let each = out.par_chunks_mut(to.height * to.width).zip(input.par_chunks(from.height * from.width));
    each.for_each_init(Vec::new, |widened, (out, input)| {
        widened.clear();
        for row in input.chunks(from.width) {
            widened.extend(columns.iter().map(|taps| {
                let terms = taps.indices.iter().zip(taps.weights);
                terms.map(|(idx, weight)| row[*idx] * weight).sum::<f32>()
            }));
        }
        for (out, taps) in out.chunks_mut(to.width).zip(&rows) {
            for (idx, weight) in taps.indices.iter().zip(taps.weights) {
                for (out, value) in out.iter_mut().zip(&widened[idx * to.width..]) {
                    *out += value * weight;
                }
            }
        }
    });
    out
}

/// Where a sample of the result lies among those of the source; in single precision, as the reference computes it.
fn position(interpolation: Interpolation, idx: usize, n_from: usize, n_to: usize) -> f32 {
    if interpolation == Interpolation::BilinearCorners {
        let scale = if n_to > 1 { (n_from - 1) as f32 / (n_to - 1) as f32 } else { 0.0 };
        return scale * idx as f32;
    }
    let scale = n_from as f32 / n_to as f32;
    scale * (idx as f32 + 0.5) - 0.5
}

fn linear_taps(position: f32, n: usize) -> Taps<2> {
    let position = position.max(0.0);
    let first = (position as usize).min(n - 1);
    let share = (position - first as f32).min(1.0);
    Taps { indices: [first, (first + 1).min(n - 1)], weights: [1.0 - share, share] }
}

fn cubic_taps(position: f32, n: usize) -> Taps<4> {
    let floor = position.floor();
    let share = position - floor;
    let index = |offset: i64| (floor as i64 + offset).clamp(0, n as i64 - 1) as usize;
    let weights = [outer(1.0 + share), inner(share), inner(1.0 - share), outer(2.0 - share)];
    Taps { indices: [index(-1), index(0), index(1), index(2)], weights }
}

/// Of the cubic convolution.
const A: f32 = -0.75;

/// The weight of a neighbor less than 1 away.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The weight of a neighbor 1 to 2 away.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Interpolation; 3] = [Interpolation::Bilinear, Interpolation::BilinearCorners, Interpolation::Bicubic];

    fn resampled(interpolation: Interpolation, from: (usize, usize), to: (usize, usize), map: &[f32]) -> Vec<f32> {
        let map = values::tensor(map.to_vec(), (1, map.len() / (from.0 * from.1), from.0, from.1)).unwrap();
        let to = Extent { height: to.0, width: to.1 };
        values::to_vec(&interpolate(&map, to, interpolation).unwrap()).unwrap()
    }

    #[test]
    fn the_same_size_is_the_same_map() {
        let map: Vec<f32> = (0..70_u32).map(|idx| (idx * 37 % 11) as f32).collect();
        for interpolation in ALL {
            assert_eq!(resampled(interpolation, (5, 7), (5, 7), &map), map, "{interpolation:?}");
        }
    }

    #[test]
    fn one_value_stays_one_value() {
        for interpolation in ALL {
            for to in [(1, 1), (1, 9), (13, 2), (30, 41)] {
                for value in resampled(interpolation, (3, 4), to, &[2.5; 12]) {
                    assert!((value - 2.5).abs() < 5e-6, "{interpolation:?} {to:?}: {value}");
                }
            }
        }
    }

    #[test]
    fn samples_lie_in_the_middle_of_cells_or_in_the_corners() {
        assert_eq!(resampled(Interpolation::Bilinear, (1, 2), (1, 4), &[0.0, 4.0]), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(resampled(Interpolation::BilinearCorners, (1, 2), (1, 5), &[0.0, 4.0]), [0.0, 1.0, 2.0, 3.0, 4.0]);
        // A quarter of the way, the neighbors on the far side weigh 0.26171875 and -0.03515625.
        let cubic = resampled(Interpolation::Bicubic, (1, 2), (1, 4), &[0.0, 4.0]);
        assert!((cubic[1] - 4.0 * (0.261_718_75 - 0.035_156_25)).abs() < 1e-6, "{cubic:?}");
    }
}
