//! Numbers for tests: the same ones every time, without pattern.

/// `n` numbers from -2 to 2, by a linear congruential generator.
pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Bits of an f32 that bf16 has too.
pub(crate) const BF16_BITS: u32 = 0xffff_0000;
/// Bits of an f32 that f16 has too, of numbers that are not too small.
pub(crate) const F16_BITS: u32 = 0xffff_e000;

/// [`numbers`] with no other bits than these.
pub(crate) fn numbers_of_bits(n: usize, seed: u32, bits: u32) -> Vec<f32> {
    numbers(n, seed).into_iter().map(|x| f32::from_bits(x.to_bits() & bits)).collect()
}

/// `x · weightᵀ` in double precision.
pub(crate) fn product(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32;
    x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(|w| dot(x, w)).collect::<Vec<f32>>()).collect()
}
