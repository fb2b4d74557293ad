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
