//! Tiles by the instructions that most 64-bit Arm processors have for 8-bit integers.

use super::Operands;
use crate::tile::{PANEL, TILE_ROWS, Tile};
use std::arch::aarch64::{int8x16_t, int32x4_t, uint8x16_t, vdupq_n_s32, vdupq_n_u8, veorq_u8, vld1q_s8, vld1q_u8};
use std::arch::asm;
use std::mem::transmute;

/// Columns that are added up at once: two vectors. With all rows of a tile they make 24 sums of 32 registers.
const COLUMNS: usize = 8;
/// Rows whose factors fill a vector.
const ROWS: usize = 4;

/// Here weights are signed, so that there is nothing to correct.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn tile_int8(operands: &Operands<'_>, totals: &mut Tile) {
    for first_column in (0..PANEL).step_by(COLUMNS) {
        let sums = sums(operands, first_column);
        add_scaled(operands, first_column, &sums, totals);
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sums(operands: &Operands<'_>, first_column: usize) -> [[i32; COLUMNS]; TILE_ROWS] {
    assert!(first_column + COLUMNS <= PANEL, "a tile does not fit");
    let offset = vdupq_n_u8(0x80);
    let mut sums = [[vdupq_n_s32(0); 2]; TILE_ROWS];
    for (levels, line) in operands.levels.iter().zip(operands.lines) {
        // SAFETY: the columns are within the line; any bits are both kinds of integers.
        let weights = unsafe {
            let line = line.0.as_ptr().add(first_column).cast::<u8>();
            let signed = |weights: uint8x16_t| transmute::<uint8x16_t, int8x16_t>(veorq_u8(weights, offset));
            [signed(vld1q_u8(line)), signed(vld1q_u8(line.add(4 * COLUMNS / 2)))]
        };
        for (sums, levels) in sums.as_chunks_mut::<ROWS>().0.iter_mut().zip(levels.as_chunks::<ROWS>().0) {
            // SAFETY: four groups of four are a vector long.
            let levels = unsafe { vld1q_s8(levels.as_ptr().cast()) };
            for (idx, weights) in weights.into_iter().enumerate() {
                sums[0][idx] = add_dot_products::<0>(sums[0][idx], weights, levels);
                sums[1][idx] = add_dot_products::<1>(sums[1][idx], weights, levels);
                sums[2][idx] = add_dot_products::<2>(sums[2][idx], weights, levels);
                sums[3][idx] = add_dot_products::<3>(sums[3][idx], weights, levels);
            }
        }
    }
    // SAFETY: two vectors of four are eight numbers.
    unsafe { transmute::<[[int32x4_t; 2]; TILE_ROWS], [[i32; COLUMNS]; TILE_ROWS]>(sums) }
}

/// Scales the sums of some columns, from the first one on, and adds them to the totals.
#[inline(always)]
fn add_scaled(operands: &Operands<'_>, first_column: usize, sums: &[[i32; COLUMNS]; TILE_ROWS], totals: &mut Tile) {
    for ((totals, sums), row_scale) in totals.iter_mut().zip(sums).zip(&operands.rows.scales) {
        let scales = &operands.scales[first_column..];
        for ((total, sum), scale) in totals[first_column..].iter_mut().zip(sums).zip(scales) {
            *total += *sum as f32 * (row_scale * scale);
        }
    }
}

/// Adds to each sum the products of its four weights and of the same four levels, group `GROUP` of them.
///
/// As `vdotq_laneq_s32`, which the standard library does not offer yet (rust-lang/rust#117224).
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn add_dot_products<const GROUP: u32>(
    mut sums: int32x4_t,
    weights: int8x16_t,
    levels: int8x16_t,
) -> int32x4_t {
    // SAFETY: the processor has the instruction, which works on these registers alone.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {levels:v}.4b[{group}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            levels = in(vreg) levels,
            group = const GROUP,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
