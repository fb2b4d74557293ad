//! Pictures that are too large to be coded at once: layers near the picture, whose values take kilobytes for each pixel, are
//! computed tile by tile.
//!
//! Those layers see no further than a few latents but for their norms, so tiles that overlap and fade into each other are
//! the whole, if all are normed by what the whole would be. That is found in two steps: by the picture with most of its
//! pixels left out, and then, normed by that, by the parts that make up the whole. Tiles that are each normed by themselves,
//! as diffusers' `enable_tiling` has them, show in a clear sky.

use candle_core::Tensor;
use nn::Result;
use nn::norm::{Part, SharedStatistics};
use nn::values::{self, Values};
use std::ops::Range;

/// What a tile shares with the next one, latents: enough to fade, beside what each sees of its own edge.
const OVERLAP: usize = 10;
/// Of what two tiles share, what each leaves to the other: near its edge, a tile shows the zeros that layers put around it.
const MARGIN: f32 = 0.3;
/// Least side of a tile, latents.
const SIDE_MIN: usize = 32;

/// How a picture is cut.
#[derive(Debug)]
pub struct Tiles {
    rows: Cut,
    columns: Cut,
}

/// What stands for a latent before and after layers: a square of this side.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// One side of a picture, cut into pieces of the same length; latents.
#[derive(Debug)]
struct Cut {
    /// Of the whole side.
    len: usize,
    starts: Vec<usize>,
    piece: usize,
}

impl Tiles {
    /// `None` if the picture can be computed at once.
    ///
    /// # Shapes
    /// - height, width, both in latents: of the picture; `at_once`: latents of a tile, at most, but for a least side
    pub fn of(height: usize, width: usize, at_once: usize) -> Option<Self> {
        if height * width <= at_once {
            return None;
        }
        let square = at_once.isqrt();
        // A side that is short leaves more to the other.
        let rows = Cut::of(height, square.max(at_once / width));
        let columns = Cut::of(width, at_once / rows.piece);
        Some(Self { rows, columns })
    }

    /// Computes layers tile by tile, twice: once for what their norms see.
    ///
    /// # Shapes
    /// - input: `(1, c, h, w)` of the picture in the input's scale; `code` gets tiles of it, `(1, c, h', w')`, and gives
    ///   them in the output's scale, with channels of its own
    pub(crate) fn map(&self, input: &Tensor, scale: Scale, code: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (about, thinned) = SharedStatistics::of(Part::WHOLE, None, || code(&self.thinned(input, scale.from)?));
        thinned?;
        let seen = self.each(input, scale.from, |tile, (row, column)| {
            let part = Part { rows: self.rows.own(row), columns: self.columns.own(column) };
            let (seen, coded) = SharedStatistics::of(part, Some(&about), || code(tile));
            coded.map(|_| seen)
        })?;
        let statistics = SharedStatistics::pooled(&seen);
        let (height, width) = (self.rows.len * scale.to, self.columns.len * scale.to);
        let mut whole = Whole { planes: Vec::new(), height, width };
        self.each(input, scale.from, |tile, (row, column)| {
            let tile = statistics.given_to(|| code(tile))?;
            let place = [self.rows.range(row, scale.to), self.columns.range(column, scale.to)];
            let weights = [self.rows.weights(row, scale.to), self.columns.weights(column, scale.to)];
            whole.add(&tile, &place, &weights)
        })?;
        let n_channels = whole.planes.len() / (height * width);
        values::tensor(whole.planes, (1, n_channels, height, width))
    }

    /// All of the picture, as small as a tile: as many of its latents, or of what stands for them, evenly spread.
    fn thinned(&self, input: &Tensor, scale: usize) -> Result<Tensor> {
        let picks = |cut: &Cut| -> Result<Tensor> {
            let (n, len) = (cut.piece * scale, cut.len * scale);
            let picks: Vec<u32> = (0..n).map(|idx| ((2 * idx + 1) * len / (2 * n)) as u32).collect();
            Ok(Tensor::new(picks, input.device())?)
        };
        let rows = input.index_select(&picks(&self.rows)?, 2)?;
        Ok(rows.index_select(&picks(&self.columns)?, 3)?)
    }

    /// Looks at every tile of the input, and is told which row and column it is of.
    fn each<T>(
        &self,
        input: &Tensor,
        scale: usize,
        mut look: impl FnMut(&Tensor, (usize, usize)) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut looked = Vec::new();
        for row in 0..self.rows.starts.len() {
            let rows = self.rows.range(row, scale);
            let band = input.narrow(2, rows.start, rows.len())?;
            for column in 0..self.columns.starts.len() {
                let columns = self.columns.range(column, scale);
                looked.push(look(&band.narrow(3, columns.start, columns.len())?.contiguous()?, (row, column))?);
            }
        }
        Ok(looked)
    }
}

impl Cut {
    /// Into as few pieces of at most `piece_max` as there can be, all as short as that makes them.
    fn of(len: usize, piece_max: usize) -> Self {
        let piece_max = piece_max.max(SIDE_MIN);
        if len <= piece_max {
            return Self { len, starts: vec![0], piece: len };
        }
        let n = (len - OVERLAP).div_ceil(piece_max - OVERLAP);
        let piece = (len + (n - 1) * OVERLAP).div_ceil(n);
        let starts = (0..n).map(|idx| (idx * (piece - OVERLAP)).min(len - piece)).collect();
        Self { len, starts, piece }
    }

    fn range(&self, idx: usize, scale: usize) -> Range<usize> {
        self.starts[idx] * scale..(self.starts[idx] + self.piece) * scale
    }

    /// What is nearer to a piece's middle than to its neighbors', as shares of the piece.
    fn own(&self, idx: usize) -> Range<f64> {
        let between = |first: usize| (self.starts[first] + self.piece + self.starts[first + 1]) as f64 / 2.0;
        let begin = if idx == 0 { 0.0 } else { between(idx - 1) };
        let end = if idx + 1 == self.starts.len() { self.len as f64 } else { between(idx) };
        let share = |at: f64| (at - self.starts[idx] as f64) / self.piece as f64;
        share(begin)..share(end)
    }

    /// How much of the whole each row of a piece is: those of all pieces that lie there add up to one.
    fn weights(&self, idx: usize, scale: usize) -> Vec<f32> {
        let fade = OVERLAP * scale;
        let range = self.range(idx, scale);
        let before = idx.checked_sub(1).map(|idx| self.range(idx, scale).end);
        let is_last = idx + 1 == self.starts.len();
        let weight = |at: usize| {
            // The last piece may begin early, and share more: it fades where its neighbor ends.
            let begun = before.map_or(1.0, |end| risen(at + fade, end, fade));
            let ended = if is_last { 1.0 } else { 1.0 - risen(at + fade, range.end, fade) };
            begun * ended
        };
        range.clone().map(weight).collect()
    }
}

/// From 0 to 1 over the `fade` places before the end: smoothly, so that neither end of the fade can be seen.
fn risen(at_and_fade: usize, end: usize, fade: usize) -> f32 {
    let x = (at_and_fade as f32 + 0.5 - end as f32) / fade as f32;
    let x = ((x - MARGIN) / (1.0 - 2.0 * MARGIN)).clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// What the tiles add up to.
struct Whole {
    /// `(channels, height, width)`; empty before the first tile tells how many channels there are.
    planes: Vec<f32>,
    height: usize,
    width: usize,
}

impl Whole {
    fn add(&mut self, tile: &Tensor, [rows, columns]: &[Range<usize>; 2], weights: &[Vec<f32>; 2]) -> Result<()> {
        let (_, n_channels, _, _) = tile.dims4()?;
        self.planes.resize(n_channels * self.height * self.width, 0.0);
        let tile = tile.contiguous()?;
        let tile = Values::of(&tile)?;
        let planes = self.planes.chunks_mut(self.height * self.width);
        for (plane, tile) in planes.zip(tile.chunks(rows.len() * columns.len())) {
            for ((y, values), weight_y) in rows.clone().zip(tile.chunks(columns.len())).zip(&weights[0]) {
                let places = &mut plane[y * self.width..][columns.clone()];
                for ((place, value), weight_x) in places.iter_mut().zip(values).zip(&weights[1]) {
                    *place += weight_y * weight_x * value;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_fits_is_not_cut() {
        assert!(Tiles::of(64, 64, 64 * 64).is_none());
        assert!(Tiles::of(64, 65, 64 * 64).is_some());
    }

    #[test]
    fn pieces_are_alike_overlap_and_cover_all() {
        for (len, piece_max) in [(65, 64), (100, 64), (192, 64), (193, 64), (1000, 40), (33, 3), (257, 256)] {
            let cut = Cut::of(len, piece_max);
            assert!(cut.piece <= piece_max.max(SIDE_MIN), "{cut:?}");
            assert_eq!(cut.starts.last().unwrap() + cut.piece, len, "{cut:?}");
            for pair in cut.starts.windows(2) {
                assert!(pair[1] > pair[0] && pair[0] + cut.piece >= pair[1] + OVERLAP, "{cut:?}");
            }
            for scale in [1, 8] {
                let mut sums = vec![0.0; len * scale];
                for idx in 0..cut.starts.len() {
                    let places = &mut sums[cut.range(idx, scale)];
                    places.iter_mut().zip(cut.weights(idx, scale)).for_each(|(sum, weight)| *sum += weight);
                }
                assert!(sums.iter().all(|sum| (sum - 1.0f32).abs() < 1e-5), "{cut:?}: {sums:?}");
            }
        }
    }

    #[test]
    fn what_each_tile_leaves_unchanged_is_the_whole_unchanged() {
        let (height, width) = (60, 90);
        let values: Vec<f32> = (0..2 * height * width).map(|idx| (idx as f32 * 0.37).sin()).collect();
        let input = values::tensor(values.clone(), (1, 2, height, width)).unwrap();
        let tiles = Tiles::of(height, width, 40 * 40).unwrap();
        let same = Scale { from: 1, to: 1 };
        let output = values::to_vec(&tiles.map(&input, same, |tile| Ok(tile.clone())).unwrap()).unwrap();
        assert!(output.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-5));
        // To a scale of its own, and never more than was allowed at once.
        let doubled = tiles.map(&input, Scale { from: 1, to: 2 }, |tile| {
            let (_, _, h, w) = tile.dims4()?;
            assert!(h * w <= 40 * 40, "{h}x{w}");
            Ok(tile.upsample_nearest2d(2 * h, 2 * w)?)
        });
        let doubled = values::to_vec(&doubled.unwrap()).unwrap();
        for (idx, value) in doubled.iter().enumerate() {
            let (channel, y, x) = (idx / (4 * height * width), idx / (2 * width) % (2 * height), idx % (2 * width));
            let expected = values[(channel * height + y / 2) * width + x / 2];
            assert!((value - expected).abs() < 1e-5, "{channel} {y} {x}");
        }
    }
}
