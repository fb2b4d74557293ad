//! The inner loop of every convolution: a chunk of outputs for some vectors of pixels, sums in registers.

use crate::lanes::{LANES, Lanes, Line, Room};
use crate::matmul::Mode;
use crate::unit::Unit;

/// Vectors whose sums stay in registers: with eight rows of them, they and a weight fill the 32 of AVX-512.
pub(super) const TILE_VECTORS: usize = 3;

/// `sums (+)= weightsᵀ · columns`
///
/// # Shapes
/// - weights: `(units of taps)`, a line the weights of a chunk's outputs
/// - columns: `(units of taps, n_vectors)`; sums: `(outputs of the chunk, n_vectors)`
#[inline(always)]
pub(super) fn multiply<L: Lanes, U: Unit>(lanes: L, weights: &[Line], columns: &[Line], sums: &mut [Line], mode: Mode) {
    let n_vectors = sums.len() / LANES;
    assert!(columns.len() == weights.len() * n_vectors && sums.len() == LANES * n_vectors, "a tile does not fit");
    let tile = Tile { weights, columns, n_vectors, mode };
    match L::ROOM {
        Room::TwentyFour => {
            for first in (0..n_vectors).step_by(TILE_VECTORS) {
                match n_vectors - first {
                    1 => tile.add_to::<L, U, 8, 1>(lanes, first, sums),
                    2 => tile.add_to::<L, U, 8, 2>(lanes, first, sums),
                    _ => tile.add_to::<L, U, 8, TILE_VECTORS>(lanes, first, sums),
                }
            }
        }
        Room::Six => {
            // Four of the rows: a chunk has no whole number of sixes.
            for first in 0..n_vectors {
                tile.add_to::<L, U, 4, 1>(lanes, first, sums);
            }
        }
    }
}

/// What is multiplied, and what becomes of earlier sums.
struct Tile<'a> {
    weights: &'a [Line],
    columns: &'a [Line],
    n_vectors: usize,
    mode: Mode,
}

impl Tile<'_> {
    /// The sums of all outputs for some of the vectors, `ROWS` outputs at a time.
    #[inline(always)]
    fn add_to<L: Lanes, U: Unit, const ROWS: usize, const VECTORS: usize>(
        &self,
        lanes: L,
        first_vector: usize,
        sums: &mut [Line],
    ) {
        let Self { weights, columns, n_vectors, mode } = *self;
        for first_row in (0..LANES).step_by(ROWS) {
            let mut panel = [[lanes.splat(0.0); VECTORS]; ROWS];
            let (mut weight, mut column) = (weights.as_ptr(), columns.as_ptr());
            for _ in 0..weights.len() {
                // SAFETY: `multiply` has checked that there are as many columns as weights, of `n_vectors` each; both
                // pointers move on by one of them.
                unsafe {
                    let mut values = [lanes.splat(0.0); VECTORS];
                    for (idx, value) in values.iter_mut().enumerate() {
                        *value = lanes.load(&*column.add(first_vector + idx));
                    }
                    for (row, sums) in panel.iter_mut().enumerate() {
                        let weight = lanes.splat(*(*weight).0.as_ptr().add(first_row + row));
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = U::add_product(lanes, weight, value, *sum);
                        }
                    }
                    weight = weight.add(1);
                    column = column.add(n_vectors);
                }
            }
            for (row, values) in panel.into_iter().enumerate() {
                let sums = &mut sums[(first_row + row) * n_vectors + first_vector..][..VECTORS];
                for (sum, value) in sums.iter_mut().zip(values) {
                    let value = if mode == Mode::Accumulate { lanes.add(lanes.load(sum), value) } else { value };
                    lanes.store(value, sum);
                }
            }
        }
    }
}
