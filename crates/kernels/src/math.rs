//! Elementary functions on `f32` that the compiler can vectorize.

/// 1.5 * 2^23: what is added to it and taken from it again is rounded to the nearest whole number.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// `e^x`, within 2 ulp on the finite range; 0 below -104, infinity above 88.73.
///
/// Range reduction by `x = n ln 2 + r` with a two-part constant, then a degree-6 minimax polynomial on
/// `|r| <= ln 2 / 2` (Moshier, Cephes mathematical library, `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-104.0, 89.0);
    let n = (clamped * LOG2_E + ROUND) - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = polynomial(r, [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4]);
    let e_r = p * r * r + r + 1.0;
    // 2^n in two factors, since n reaches -150 and 128.
    let half = (n * 0.5 + ROUND) - ROUND;
    let value = e_r * power_of_two(half) * power_of_two(n - half);
    if x > 88.73 { f32::INFINITY } else { value }
}

/// `2^n` for a whole `n` from -126 to 127; 0 for -127.
#[inline(always)]
pub(crate) fn power_of_two(n: f32) -> f32 {
    // The sum's lowest bits are the whole number; a conversion, which saturates, would be done one number at a time.
    f32::from_bits((n + ROUND).to_bits().wrapping_add(127) << 23)
}

/// `2^x`, within 2 ulp for `x` up to 127; 0 below -126.5.
///
/// Range reduction to `|r| <= 1/2`, then a minimax polynomial ([`EXP2`]).
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let clamped = if x < -127.0 { -127.0 } else { x };
    let n = (clamped + ROUND) - ROUND;
    polynomial(clamped - n, EXP2) * power_of_two(n)
}

/// `2^r` for `|r| <= 1/2` as a polynomial: relative error below 2e-9, fitted with 1 as its first coefficient.
pub(crate) const EXP2: [f32; 7] =
    [1.0, std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_4, 0.000_153_533_62];

/// The error function, absolute error below 2e-7: its Taylor series near 0, beyond it a Chebyshev fit of the logarithm
/// of the complement (Press et al., Numerical Recipes, section 6.2).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let series = std::f32::consts::FRAC_2_SQRT_PI
        * x
        * polynomial(z, [1.0, -1.0 / 3.0, 1.0 / 10.0, -1.0 / 42.0, 1.0 / 216.0, -1.0 / 1320.0, 1.0 / 9360.0]);
    let t = 1.0 / (1.0 + 0.5 * a);
    let p = polynomial(t, ERFC_FIT);
    let complement = t * exp(-z + p);
    let tail = (1.0 - complement).copysign(x);
    if a < 0.5 { series } else { tail }
}

/// `ln(erfc(a) / t) + a^2` as a polynomial in `t = 2 / (2 + a)`; relative error of `erfc` below 1.2e-7.
const ERFC_FIT: [f32; 10] = [
    -1.265_512_2,
    1.000_023_7,
    0.374_091_96,
    0.096_784_18,
    -0.186_288_06,
    0.278_868_07,
    -1.135_204,
    1.488_515_9,
    -0.822_152_23,
    0.170_872_77,
];

/// `c[0] + c[1] x + c[2] x^2 + …`, by Horner's rule.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -8700..=8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn exp2_is_within_two_ulp() {
        for i in -12600..=12700 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp2();
            let error = (f64::from(exp2(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp2({x}): relative error {error:e}");
        }
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(-130.0), 0.0);
        assert_eq!(exp2(0.0), 1.0);
        assert!(exp2(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_good_to_two_in_ten_million() {
        for (x, exact) in [
            (0.0, 0.0),
            (0.25, 0.276_326_390_168_236_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (1.5, 0.966_105_146_475_310_7),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            for sign in [1.0, -1.0] {
                let error = (f64::from(erf((sign * x) as f32)) - sign * exact).abs();
                assert!(error < 2.0e-7, "erf({x}): {error:e}");
            }
        }
    }
}
