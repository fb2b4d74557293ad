//! Resampling equal to Pillow's `Image.resize` bit for bit.
//!
//! The reference implementation resizes its inputs with Pillow, so the same picture after the same seed needs the same
//! bytes here. Pillow works on 8 bits in two passes, each with fixed-point weights and a rounding of its own; faster
//! resizers keep 16-bit weights and come out up to a level apart. The order of the passes is that of Pillow 13: earlier
//! versions never begin with the vertical one.

use crate::picture::Picture;
use domain::quantity::Size;
use std::f64::consts::PI;
use std::ops::Range;

/// How far and with which weights a sample of the source reaches into the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Three lobes of the windowed sinc: what pictures to paint over are resized with.
    Lanczos,
    /// Keys' cubic convolution with `a = -0.5`: what vision models are shown.
    Bicubic,
}

/// The picture at another size, by [`Filter::Lanczos`]; a side of 0 counts as 1.
pub fn resize(picture: &Picture, size: Size) -> Picture {
    resize_with(picture, size, Filter::Lanczos)
}

/// The picture at another size; a side of 0 counts as 1.
pub fn resize_with(picture: &Picture, size: Size, filter: Filter) -> Picture {
    let whole = Region { x: 0.0..picture.size().width as f32, y: 0.0..picture.size().height as f32 };
    resize_region(picture, &whole, size, filter)
}

/// A part of a picture, in pixels and parts of them. Single precision, as Pillow passes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Region {
    pub(crate) x: Range<f32>,
    pub(crate) y: Range<f32>,
}

/// Stretches a part of the picture to a size.
pub(crate) fn resize_region(picture: &Picture, region: &Region, size: Size, filter: Filter) -> Picture {
    let size = Size::new(size.width.max(1), size.height.max(1));
    let source = picture.size();
    let columns = Pass::new(source.width, &region.x, size.width, filter);
    let rows = Pass::new(source.height, &region.y, size.height, filter);
    let pixels = match order_of(source, size) {
        // The vertical pass will not look at all rows.
        Order::HorizontalFirst => {
            let used = rows.used(source.height);
            let stride = 3 * source.width as usize;
            let narrowed = columns.horizontal(&picture.pixels()[used.start * stride..used.end * stride], stride);
            rows.starting_at(used.start).vertical(&narrowed, 3 * size.width as usize)
        }
        Order::VerticalFirst => {
            let stride = 3 * source.width as usize;
            columns.horizontal(&rows.vertical(picture.pixels(), stride), stride)
        }
    };
    Picture::new(size, pixels).expect("both passes fill their sides, this is a bug")
}

/// Which side is resampled first; the roundings in between depend on it.
enum Order {
    HorizontalFirst,
    VerticalFirst,
}

fn order_of(source: Size, size: Size) -> Order {
    let shrunk = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (width_lost, height_lost) = (shrunk(source.width, size.width), shrunk(source.height, size.height));
    if height_lost > 0 && height_lost > 2 * width_lost { Order::VerticalFirst } else { Order::HorizontalFirst }
}

/// What happens along one side.
enum Pass {
    /// The side keeps its samples.
    Copy,
    Resample(Kernel),
}

impl Pass {
    fn new(n_source: u32, region: &Range<f32>, n_result: u32, filter: Filter) -> Self {
        let copies = n_result == n_source && *region == (0.0..n_source as f32);
        if copies { Self::Copy } else { Self::Resample(Kernel::new(n_source, region, n_result, filter)) }
    }

    /// The source samples that any result is made of.
    fn used(&self, n_source: u32) -> Range<usize> {
        match self {
            Self::Copy => 0..n_source as usize,
            Self::Resample(kernel) => kernel.used(),
        }
    }

    /// The same pass over a source without its first samples.
    fn starting_at(self, n_dropped: usize) -> Self {
        match self {
            Self::Copy => Self::Copy,
            Self::Resample(kernel) => Self::Resample(kernel.starting_at(n_dropped)),
        }
    }

    fn horizontal(&self, pixels: &[u8], stride: usize) -> Vec<u8> {
        match self {
            Self::Copy => pixels.to_vec(),
            Self::Resample(kernel) => horizontal_pass(pixels, stride, kernel),
        }
    }

    fn vertical(&self, pixels: &[u8], stride: usize) -> Vec<u8> {
        match self {
            Self::Copy => pixels.to_vec(),
            Self::Resample(kernel) => vertical_pass(pixels, stride, kernel),
        }
    }
}

/// Bits of a weight after the binary point: 32, less 8 of the sample, less 2 for what the sum overshoots.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// Lobes of the Lanczos window.
const LOBES: f64 = 3.0;

/// For each sample of one side of the result, the source samples that it is made of and their weights.
struct Kernel {
    taps: Vec<Range<usize>>,
    /// All taps' weights, one after the other.
    weights: Vec<i32>,
}

impl Kernel {
    /// Every rounding is in the order of Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`.
    fn new(n_source: u32, region: &Range<f32>, n_result: u32, filter: Filter) -> Self {
        let scale = f64::from(region.end - region.start) / f64::from(n_result);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let mut taps = Vec::with_capacity(n_result as usize);
        let mut weights = Vec::new();
        let mut exact = Vec::new();
        for idx in 0..n_result {
            let center = f64::from(region.start) + (f64::from(idx) + 0.5) * scale;
            // A cast truncates towards 0 and takes what is negative to 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(n_source as usize);
            exact.clear();
            exact.extend((first..end).map(|tap| filter.at((tap as f64 - center + 0.5) * (1.0 / filter_scale))));
            let sum: f64 = exact.iter().sum();
            weights.extend(exact.iter().map(|weight| fixed_point(if sum == 0.0 { *weight } else { weight / sum })));
            taps.push(first..end);
        }
        Self { taps, weights }
    }

    fn used(&self) -> Range<usize> {
        let start = self.taps.first().map_or(0, |taps| taps.start);
        let end = self.taps.last().map_or(0, |taps| taps.end);
        start..end
    }

    fn starting_at(mut self, n_dropped: usize) -> Self {
        for taps in &mut self.taps {
            *taps = taps.start - n_dropped..taps.end - n_dropped;
        }
        self
    }

    /// Each result's taps with their weights.
    fn iter(&self) -> impl Iterator<Item = (Range<usize>, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.taps.iter().map(move |taps| {
            let (weights, tail) = rest.split_at(taps.len());
            rest = tail;
            (taps.clone(), weights)
        })
    }
}

fn horizontal_pass(pixels: &[u8], stride: usize, columns: &Kernel) -> Vec<u8> {
    let n_rows = pixels.len() / stride;
    let mut out = Vec::with_capacity(n_rows * 3 * columns.taps.len());
    for row in pixels.chunks_exact(stride) {
        for (taps, weights) in columns.iter() {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in row[3 * taps.start..3 * taps.end].as_chunks::<3>().0.iter().zip(weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            out.extend_from_slice(&sums.map(clipped));
        }
    }
    out
}

fn vertical_pass(pixels: &[u8], stride: usize, rows: &Kernel) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.taps.len() * stride);
    let mut sums = vec![HALF; stride];
    for (taps, weights) in rows.iter() {
        sums.fill(HALF);
        for (row, &weight) in pixels[taps.start * stride..taps.end * stride].chunks_exact(stride).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| clipped(*sum)));
    }
    out
}

fn clipped(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    // Half away from zero, by truncation.
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

impl Filter {
    /// Samples on either side, where nothing shrinks.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => LOBES,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Lanczos => lanczos(x),
            Self::Bicubic => bicubic(x),
        }
    }
}

/// Each term in Pillow's order, so that it is rounded alike.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * PI;
    angle.sin() / angle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_color_stays_one_color() {
        let gray = Picture::filled(Size::new(37, 23), [13, 140, 255]);
        for size in [Size::new(1, 1), Size::new(7, 90), Size::new(200, 3), Size::new(37, 50)] {
            assert_eq!(resize(&gray, size), Picture::filled(size, [13, 140, 255]), "{size}");
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let pixels: Vec<u8> = (0..=255).cycle().take(3 * 11 * 13).collect();
        let picture = Picture::new(Size::new(11, 13), pixels).unwrap();
        assert_eq!(resize(&picture, Size::new(11, 13)), picture);
    }

    #[test]
    fn a_side_of_zero_counts_as_one() {
        let dot = Picture::filled(Size::new(1, 1), [1, 2, 3]);
        assert_eq!(resize(&dot, Size::new(0, 4)), Picture::filled(Size::new(1, 4), [1, 2, 3]));
    }
}
