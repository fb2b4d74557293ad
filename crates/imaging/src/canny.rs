//! Edges as OpenCV's `Canny` finds them (Canny, "A Computational Approach to Edge Detection", 1986), pixel for pixel.
//!
//! The models that paint along edges were trained on that function's output with thresholds 50 and 200, so another
//! edge detector, however good, would show them something else. Like OpenCV's, this one does not blur first.

use crate::picture::Picture;
use std::mem;

/// How edges are found; thresholds are compared with the gradient's magnitude in the units of [`Norm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Canny {
    /// An edge goes on while it is stronger than this. The lower of both thresholds counts as this one.
    pub low: f64,
    /// An edge begins where it is stronger than this.
    pub high: f64,
    pub aperture: Aperture,
    pub norm: Norm,
}

/// Side of the Sobel operator, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aperture {
    Three,
    Five,
    /// Its gradients, and the thresholds with them, are divided by 16.
    Seven,
}

/// The length of a gradient `(dx, dy)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// `|dx| + |dy|`
    L1,
    /// `sqrt(dx² + dy²)`
    L2,
}

/// What FLUX.1 Canny was trained with.
impl Default for Canny {
    fn default() -> Self {
        Self { low: 50.0, high: 200.0, aperture: Aperture::Three, norm: Norm::L1 }
    }
}

/// White edges on black, in the picture's own size.
///
/// Of a pixel's three gradients, the longest counts; of equal ones, the first in the order red, green, blue. Beyond the
/// border, the picture goes on as it ends.
pub fn canny(picture: &Picture, settings: Canny) -> Picture {
    match settings.aperture {
        Aperture::Three => edges(picture, settings, &Sobel { smoothing: [1, 2, 1], derivative: [-1, 0, 1] }),
        Aperture::Five => {
            edges(picture, settings, &Sobel { smoothing: [1, 4, 6, 4, 1], derivative: [-1, -2, 0, 2, 1] })
        }
        Aperture::Seven => {
            let smoothing = [1, 6, 15, 20, 15, 6, 1];
            edges(picture, settings, &Sobel { smoothing, derivative: [-1, -4, -5, 0, 5, 4, 1] })
        }
    }
}

/// The two factors of a Sobel operator of side `N`.
struct Sobel<const N: usize> {
    smoothing: [i32; N],
    derivative: [i32; N],
}

/// What is known of a pixel: first whether it may be an edge, in the end whether it is one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// An edge if it touches one.
    Candidate,
    Edge,
}

fn edges<const N: usize>(picture: &Picture, settings: Canny, sobel: &Sobel<N>) -> Picture {
    let mut map = Map::of(picture);
    let mut begun = Vec::new();
    let thresholds = Thresholds::of(settings);
    let gradients = Gradients { picture, sobel, settings };
    let mut buffers = Buffers::default();
    // Three rows of gradients at a time: what lies above and below the picture has none.
    let mut above = Row::empty(map.width);
    let mut center = Row::empty(map.width);
    let mut below = Row::empty(map.width);
    gradients.compute(0, &mut buffers, &mut center);
    for y in 0..map.height {
        if y + 1 < map.height {
            gradients.compute(y + 1, &mut buffers, &mut below);
        } else {
            below.magnitude.fill(0);
        }
        suppress(&Rows { above: &above, center: &center, below: &below }, thresholds, &mut map, y, &mut begun);
        mem::swap(&mut above, &mut center);
        mem::swap(&mut center, &mut below);
    }
    map.follow(begun);
    map.into_picture(picture)
}

/// Thresholds in the units of [`Row::magnitude`].
#[derive(Clone, Copy)]
struct Thresholds {
    low: i32,
    high: i32,
}

impl Thresholds {
    fn of(settings: Canny) -> Self {
        // No gradient is longer, and its square still fits.
        const LONGEST: f64 = 32_767.0;
        let scale = if settings.aperture == Aperture::Seven { 1.0 / 16.0 } else { 1.0 };
        let threshold = |threshold: f64| match settings.norm {
            Norm::L1 => (threshold * scale).floor() as i32,
            Norm::L2 => {
                let threshold = (threshold * scale).min(LONGEST);
                (if threshold > 0.0 { threshold * threshold } else { threshold }).floor() as i32
            }
        };
        let (low, high) = (settings.low.min(settings.high), settings.low.max(settings.high));
        Self { low: threshold(low), high: threshold(high) }
    }
}

/// The gradients of one row of pixels, the longest of each pixel's three.
struct Row {
    dx: Vec<i32>,
    dy: Vec<i32>,
    /// Squared under [`Norm::L2`]. One pixel of none on either side.
    magnitude: Vec<i32>,
}

impl Row {
    fn empty(width: usize) -> Self {
        Self { dx: vec![0; width], dy: vec![0; width], magnitude: vec![0; width + 2] }
    }
}

/// Room for one row, reused.
#[derive(Default)]
struct Buffers {
    /// The row after the vertical half of the operator, all channels, continued on both sides.
    smoothed: Vec<i32>,
    derived: Vec<i32>,
    /// After the horizontal half, all channels.
    dx: Vec<i32>,
    dy: Vec<i32>,
}

struct Gradients<'a, const N: usize> {
    picture: &'a Picture,
    sobel: &'a Sobel<N>,
    settings: Canny,
}

impl<const N: usize> Gradients<'_, N> {
    fn compute(&self, y: usize, buffers: &mut Buffers, row: &mut Row) {
        let Sobel { smoothing, derivative } = self.sobel;
        self.vertical(y, smoothing, &mut buffers.smoothed);
        self.vertical(y, derivative, &mut buffers.derived);
        horizontal(&buffers.smoothed, derivative, &mut buffers.dx);
        horizontal(&buffers.derived, smoothing, &mut buffers.dy);
        if self.settings.aperture == Aperture::Seven {
            buffers.dx.iter_mut().chain(&mut buffers.dy).for_each(|sum| *sum = sixteenth(*sum));
        }
        match self.settings.norm {
            Norm::L1 => longest(buffers, row, |dx, dy| dx.abs() + dy.abs()),
            Norm::L2 => longest(buffers, row, |dx, dy| dx * dx + dy * dy),
        }
    }

    /// The rows around `y`, each times its factor.
    fn vertical(&self, y: usize, factors: &[i32; N], sums: &mut Vec<i32>) {
        let (stride, last) = (3 * self.picture.size().width as usize, self.picture.size().height as usize - 1);
        let beside = 3 * (N / 2);
        sums.clear();
        sums.resize(beside + stride + beside, 0);
        for (tap, factor) in factors.iter().enumerate() {
            let y = (y + tap).saturating_sub(N / 2).min(last);
            let row = &self.picture.pixels()[y * stride..][..stride];
            for (sum, level) in sums[beside..].iter_mut().zip(row) {
                *sum += factor * i32::from(*level);
            }
        }
        for idx in 0..beside {
            sums[idx] = sums[beside + idx % 3];
            sums[beside + stride + idx] = sums[beside + stride - 3 + idx % 3];
        }
    }
}

/// The pixels around each one, each times its factor.
fn horizontal<const N: usize>(continued: &[i32], factors: &[i32; N], sums: &mut Vec<i32>) {
    let n_sums = continued.len() - 3 * (N - 1);
    sums.clear();
    sums.resize(n_sums, 0);
    for (tap, factor) in factors.iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(&continued[3 * tap..]) {
            *sum += factor * value;
        }
    }
}

/// Rounded, halves to the even side.
fn sixteenth(sum: i32) -> i32 {
    let floor = sum >> 4;
    floor + i32::from((sum & 15) + (floor & 1) > 8)
}

fn longest(buffers: &Buffers, row: &mut Row, magnitude: impl Fn(i32, i32) -> i32) {
    let pixels = buffers.dx.as_chunks::<3>().0.iter().zip(buffers.dy.as_chunks::<3>().0);
    let results = row.dx.iter_mut().zip(&mut row.dy).zip(&mut row.magnitude[1..]);
    for ((dx, dy), ((row_dx, row_dy), row_magnitude)) in pixels.zip(results) {
        let lengths = [magnitude(dx[0], dy[0]), magnitude(dx[1], dy[1]), magnitude(dx[2], dy[2])];
        let mut channel = usize::from(lengths[1] > lengths[0]);
        if lengths[2] > lengths[channel] {
            channel = 2;
        }
        (*row_dx, *row_dy, *row_magnitude) = (dx[channel], dy[channel], lengths[channel]);
    }
}

/// A row of gradients between its neighbors.
struct Rows<'a> {
    above: &'a Row,
    center: &'a Row,
    below: &'a Row,
}

/// Marks what is above the lower threshold and no weaker than its neighbors across the edge; edges begin above the
/// higher one.
fn suppress(rows: &Rows<'_>, thresholds: Thresholds, map: &mut Map, y: usize, begun: &mut Vec<usize>) {
    let start = map.index(0, y);
    let center = &rows.center.magnitude;
    let (above, below) = (&rows.above.magnitude, &rows.below.magnitude);
    for x in 0..map.width {
        // The magnitude of the pixel itself; those of its neighbors are at `here - 1` and `here + 1`.
        let here = x + 1;
        let length = center[here];
        if length <= thresholds.low {
            continue;
        }
        let strongest = match direction(rows.center.dx[x], rows.center.dy[x]) {
            Direction::Horizontal => length > center[here - 1] && length >= center[here + 1],
            Direction::Vertical => length > above[here] && length >= below[here],
            Direction::Falling => length > above[here - 1] && length > below[here + 1],
            Direction::Rising => length > above[here + 1] && length > below[here - 1],
        };
        if strongest && length > thresholds.high {
            map.marks[start + x] = Mark::Edge;
            begun.push(start + x);
        } else if strongest {
            map.marks[start + x] = Mark::Candidate;
        }
    }
}

/// Which of eight directions a gradient is nearest to, taken without its sign.
enum Direction {
    Horizontal,
    Vertical,
    /// From the upper left to the lower right.
    Falling,
    Rising,
}

/// In the fixed-point arithmetic of OpenCV, since its roundings decide for pixels near a border between directions.
fn direction(dx: i32, dy: i32) -> Direction {
    const BITS: u32 = 15;
    /// The tangent of 22.5 degrees, after the binary point.
    const TANGENT: i32 = 13_573;
    let (x, y) = (dx.abs(), dy.abs() << BITS);
    let low = x * TANGENT;
    // The tangent of 67.5 degrees is that of 22.5 and 2.
    let high = low + (x << (BITS + 1));
    if y < low {
        Direction::Horizontal
    } else if y > high {
        Direction::Vertical
    } else if (dx ^ dy) < 0 {
        Direction::Rising
    } else {
        Direction::Falling
    }
}

/// The marks of all pixels, with a frame of nothing around them, so that each has eight neighbors.
struct Map {
    width: usize,
    height: usize,
    marks: Vec<Mark>,
}

impl Map {
    fn of(picture: &Picture) -> Self {
        let (width, height) = (picture.size().width as usize, picture.size().height as usize);
        Self { width, height, marks: vec![Mark::Nothing; (width + 2) * (height + 2)] }
    }

    fn index(&self, x: usize, y: usize) -> usize {
        (y + 1) * (self.width + 2) + x + 1
    }

    /// Makes edges of the candidates that touch one, and of those that touch these. Each pixel is visited once.
    fn follow(&mut self, mut edges: Vec<usize>) {
        let stride = self.width + 2;
        while let Some(edge) = edges.pop() {
            for start in [edge - stride - 1, edge - 1, edge + stride - 1] {
                for neighbor in start..start + 3 {
                    if self.marks[neighbor] == Mark::Candidate {
                        self.marks[neighbor] = Mark::Edge;
                        edges.push(neighbor);
                    }
                }
            }
        }
    }

    fn into_picture(self, source: &Picture) -> Picture {
        let mut pixels = Vec::with_capacity(source.pixels().len());
        for y in 0..self.height {
            let marks = &self.marks[self.index(0, y)..][..self.width];
            pixels.extend(marks.iter().flat_map(|mark| [if *mark == Mark::Edge { 255 } else { 0 }; 3]));
        }
        Picture::new(source.size(), pixels).expect("every pixel has its mark, this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::quantity::Size;
    use proptest::prelude::*;

    #[test]
    fn one_color_has_no_edge() {
        for size in [Size::new(1, 1), Size::new(1, 9), Size::new(40, 3)] {
            let gray = Picture::filled(size, [200, 10, 90]);
            assert_eq!(canny(&gray, Canny::default()), Picture::filled(size, [0, 0, 0]), "{size}");
        }
    }

    #[test]
    fn a_sixteenth_rounds_halves_to_the_even_side() {
        let expected =
            [(0, 0), (7, 0), (8, 0), (9, 1), (23, 1), (24, 2), (25, 2), (40, 2), (-8, 0), (-9, -1), (-24, -2)];
        for (sum, rounded) in expected {
            assert_eq!(sixteenth(sum), rounded, "{sum}");
        }
    }

    #[test]
    fn an_edge_goes_on_above_the_lower_threshold_whichever_is_named_first() {
        // A step that is steeper from row to row.
        let level = |x: u32, y: u32| if x < 8 { 0 } else { 60 + 4 * y as u8 };
        let pixels = (0..40).flat_map(|y| (0..16).flat_map(move |x| [level(x, y); 3]));
        let step = Picture::new(Size::new(16, 40), pixels.collect()).unwrap();
        let n_edges = |low: f64, high: f64| {
            let edges = canny(&step, Canny { low, high, ..Canny::default() });
            edges.pixels().iter().map(|level| usize::from(*level / 255)).sum::<usize>() / 3
        };
        assert_eq!((n_edges(200.0, 800.0), n_edges(800.0, 200.0)), (40, 40));
        assert!(n_edges(800.0, 800.0) < 10);
    }

    proptest! {
        #[test]
        fn any_picture_and_any_threshold_give_black_and_white_of_its_size(
            (width, height) in (1_u32..40, 1_u32..40),
            seed in any::<u32>(),
            thresholds in (any::<f64>(), any::<f64>()),
            (aperture, norm) in (0_usize..3, 0_usize..2),
        ) {
            let levels = (0..3 * width * height).map(|idx| ((idx ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8);
            let picture = Picture::new(Size::new(width, height), levels.collect()).unwrap();
            let edges = canny(&picture, Canny {
                low: thresholds.0,
                high: thresholds.1,
                aperture: [Aperture::Three, Aperture::Five, Aperture::Seven][aperture],
                norm: [Norm::L1, Norm::L2][norm],
            });
            prop_assert_eq!(edges.size(), picture.size());
            prop_assert!(edges.pixels().as_chunks::<3>().0.iter().all(|pixel| matches!(pixel, [0, 0, 0] | [255, 255, 255])));
        }
    }
}
