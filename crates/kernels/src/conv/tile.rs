//! The inner loop of every convolution: a chunk of outputs for up to three vectors of pixels, sums in registers.

use crate::lanes::{LANES, Lanes, Line, Room};
use crate::matmul::Mode;

/// Vectors of a tile at most: with eight rows of sums, they and a weight fill the 32 registers of AVX-512.
pub(super) const TILE_VECTORS: usize = 3;

/// `sums (+)= weightsᵀ · columns`
///
/// # Shapes
/// - weights: `(taps)`, a line the weights of a chunk's outputs
/// - columns: `(taps, n_vectors)`; sums: `(outputs of the chunk, n_vectors)`
#[inline(always)]
pub(super) fn multiply<L: Lanes>(lanes: L, weights: &[Line], columns: &[Line], sums: &mut [Line], mode: Mode) {
    let n_vectors = sums.len() / LANES;
    assert!(columns.len() == weights.len() * n_vectors && sums.len() == LANES * n_vectors, "a tile does not fit");
    match (L::ROOM, n_vectors) {
        (Room::EightByThree, 1) => panels::<L, 8, 1>(lanes, weights, columns, sums, mode),
        (Room::EightByThree, 2) => panels::<L, 8, 2>(lanes, weights, columns, sums, mode),
        (Room::EightByThree, 3) => panels::<L, 8, 3>(lanes, weights, columns, sums, mode),
        _ => panels::<L, 4, 1>(lanes, weights, columns, sums, mode),
    }
}

/// Covers the sums with what fits in registers, `ROWS` outputs by `VECTORS`.
#[inline(always)]
fn panels<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    lanes: L,
    weights: &[Line],
    columns: &[Line],
    sums: &mut [Line],
    mode: Mode,
) {
    let n_vectors = sums.len() / LANES;
    for first_row in (0..LANES).step_by(ROWS) {
        for first_vector in (0..n_vectors).step_by(VECTORS) {
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
                            *sum = lanes.mul_add(weight, value, *sum);
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
