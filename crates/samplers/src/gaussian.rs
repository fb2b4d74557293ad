//! Sixteen uniform numbers into sixteen normal ones, by the arithmetic of the reference's vectorized build.
//!
//! The reference takes logarithm, sine and cosine from the Cephes single-precision polynomials, and its compiler fuses
//! certain multiplications with the following additions. Both decide the last bit, so both are spelled out here: every
//! `mul_add` below is fused there, and every plain product is not.

/// Numbers that are transformed together: eight radii and eight angles.
pub(crate) const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// Box-Muller over one block of uniform numbers in `[0, 1)`, in place.
pub(crate) fn transform_f32(block: &mut [f32; BLOCK]) {
    const TWO_PI: f32 = 2.0 * std::f32::consts::PI;
    for idx in 0..HALF {
        let radius = (-2.0 * ln(1.0 - block[idx])).sqrt();
        let (sine, cosine) = sin_cos(TWO_PI * block[idx + HALF]);
        // The reference scales by one and shifts by zero, which turns a negative zero into a positive one.
        block[idx] = radius * cosine + 0.0;
        block[idx + HALF] = radius * sine + 0.0;
    }
}

/// Box-Muller over one block in double precision, where the reference uses the mathematical library.
pub(crate) fn transform_f64(block: &mut [f64; BLOCK]) {
    for idx in 0..HALF {
        let radius = (-2.0 * (1.0 - block[idx]).ln()).sqrt();
        let (sine, cosine) = (2.0 * std::f64::consts::PI * block[idx + HALF]).sin_cos();
        block[idx] = radius * cosine + 0.0;
        block[idx + HALF] = radius * sine + 0.0;
    }
}

/// Natural logarithm of a positive normal number.
fn ln(value: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6E-2,
        -1.151_461E-1,
        1.167_699_84E-1,
        -1.242_014_1E-1,
        1.424_932_3E-1,
        -1.666_805_7E-1,
        2.000_071_4E-1,
        -2.499_999_4E-1,
        3.333_333E-1,
    ];
    // ln 2 in two parts, the upper one exact in few bits.
    const LN2_LOW: f32 = -2.121_944_4E-4;
    const LN2_HIGH: f32 = 0.693_359_4;
    const MANTISSA_BITS: u32 = 0x007f_ffff;
    const EXPONENT_OF_HALF: u32 = 0x3f00_0000;

    let bits = value.max(f32::MIN_POSITIVE).to_bits();
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    let mantissa = f32::from_bits((bits & MANTISSA_BITS) | EXPONENT_OF_HALF);
    let mut x = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let square = x * x;
    let polynomial = horner(&COEFFICIENTS, x) * x;
    let correction = polynomial.mul_add(square, exponent * LN2_LOW);
    let correction = (-square).mul_add(0.5, correction);
    exponent.mul_add(LN2_HIGH, x + correction)
}

/// Sine and cosine of an angle that is not negative.
fn sin_cos(angle: f32) -> (f32, f32) {
    const SINE: [f32; 3] = [-1.951_529_6E-4, 8.332_161E-3, -1.666_665_5E-1];
    const COSINE: [f32; 3] = [2.443_315_7E-5, -1.388_731_6E-3, 4.166_664_6E-2];
    // A quarter of pi in three parts, for a reduction that loses no bits.
    const QUARTER_PI: [f32; 3] = [-0.785_156_25, -2.418_756_5E-4, -3.774_895E-8];
    const FOUR_OVER_PI: f32 = 1.273_239_5;

    let octant = ((angle * FOUR_OVER_PI) as i32 + 1) & !1;
    let turns = octant as f32;
    let reduced = QUARTER_PI.iter().fold(angle, |rest, part| turns.mul_add(*part, rest));
    let square = reduced * reduced;

    let near_one = horner(&COSINE, square) * square;
    let near_one = near_one.mul_add(square, -(square * 0.5)) + 1.0;
    let near_zero = (horner(&SINE, square) * square).mul_add(reduced, reduced);

    let (sine, cosine) = if octant & 2 == 0 { (near_zero, near_one) } else { (near_one, near_zero) };
    let sine = if octant & 4 == 0 { sine } else { -sine };
    let cosine = if (octant - 2) & 4 == 0 { -cosine } else { cosine };
    (sine, cosine)
}

fn horner(coefficients: &[f32], x: f32) -> f32 {
    let (first, rest) = coefficients.split_first().expect("every polynomial here has terms; anything else is a bug");
    rest.iter().fold(*first, |sum, coefficient| sum.mul_add(x, *coefficient))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_within_two_units_in_the_last_place() {
        for step in 1..=10_000_u32 {
            let value = step as f32 / 10_000.0;
            let exact = f64::from(value).ln();
            let error = (f64::from(ln(value)) - exact).abs();
            assert!(error <= 2.5e-7 * exact.abs().max(0.1), "ln {value}: off by {error}");
        }
    }

    #[test]
    fn sine_and_cosine_hold_over_the_whole_turn() {
        for step in 0..10_000_u32 {
            let angle = step as f32 * (2.0 * std::f32::consts::PI / 10_000.0);
            let (sine, cosine) = sin_cos(angle);
            let (exact_sine, exact_cosine) = f64::from(angle).sin_cos();
            assert!((f64::from(sine) - exact_sine).abs() < 2e-7, "sin {angle}");
            assert!((f64::from(cosine) - exact_cosine).abs() < 2e-7, "cos {angle}");
        }
    }

    #[test]
    fn the_largest_uniform_number_gives_a_finite_normal_one() {
        let mut block = [1.0 - f32::EPSILON / 2.0; BLOCK];
        transform_f32(&mut block);
        assert!(block.iter().all(|value| value.is_finite() && value.abs() < 6.0));
    }
}
