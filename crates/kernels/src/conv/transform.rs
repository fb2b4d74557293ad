//! The three transforms of F(4x4, 3x3): four by four outputs from six by six inputs by 36 multiplications instead of 144
//! (Winograd 1980; Lavin and Gray, arXiv:1509.09308).
//!
//! A polynomial product is found from its values at points. With the points 0, ±1/√2, ±√2 and infinity, rounding errors
//! grow half as much as with the usual 0, ±1, ±2 and infinity: they stay below twice those of a plain sum.
//! Every transform is a product with a small matrix from either side, written out here for one vector of each element.

use crate::lanes::Lanes;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// Side of the square of inputs that a tile sees.
pub(super) const SEEN: usize = 6;
/// Side of the square of outputs that a tile gives.
pub(super) const GIVEN: usize = 4;
/// Products that a tile takes.
pub(super) const PRODUCTS: usize = SEEN * SEEN;

/// `Bᵀ d`: six inputs at the six points.
#[inline(always)]
pub(super) fn input<L: Lanes>(lanes: L, d: [L::Vector; SEEN]) -> [L::Vector; SEEN] {
    let [d0, d1, d2, d3, d4, d5] = d;
    let (two, half, both) = (lanes.splat(2.0), lanes.splat(0.5), lanes.splat(2.5));
    let even = lanes.mul_sub_from(two, d2, d4);
    let odd = lanes.mul(lanes.splat(FRAC_1_SQRT_2), lanes.mul_sub_from(two, d1, d3));
    let outer_even = lanes.mul_sub_from(half, d2, d4);
    let outer_odd = lanes.mul(lanes.splat(SQRT_2), lanes.mul_sub_from(half, d1, d3));
    [
        lanes.mul_sub_from(both, d2, lanes.add(d0, d4)),
        lanes.add(even, odd),
        lanes.sub(even, odd),
        lanes.add(outer_even, outer_odd),
        lanes.sub(outer_even, outer_odd),
        lanes.mul_sub_from(both, d3, lanes.add(d1, d5)),
    ]
}

/// `G g`: three weights at the six points.
#[inline(always)]
pub(super) fn weight<L: Lanes>(lanes: L, g: [L::Vector; 3]) -> [L::Vector; SEEN] {
    let [first, last] = weight_pair(lanes, g, Pair::Ends);
    let [inner, inner_negative] = weight_pair(lanes, g, Pair::Inner);
    let [outer, outer_negative] = weight_pair(lanes, g, Pair::Outer);
    [first, inner, inner_negative, outer, outer_negative, last]
}

/// Two of the six points, whose values have most of their arithmetic in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pair {
    /// 0 and infinity.
    Ends,
    /// ±1/√2
    Inner,
    /// ±√2
    Outer,
}

impl Pair {
    pub(super) const ALL: [Self; 3] = [Self::Ends, Self::Inner, Self::Outer];

    /// Which of the six they are.
    pub(super) fn rows(self) -> [usize; 2] {
        match self {
            Self::Ends => [0, SEEN - 1],
            Self::Inner => [1, 2],
            Self::Outer => [3, 4],
        }
    }
}

/// Two rows of `G g`.
#[inline(always)]
pub(super) fn weight_pair<L: Lanes>(lanes: L, [g0, g1, g2]: [L::Vector; 3], pair: Pair) -> [L::Vector; 2] {
    let (of_g0, of_g1, of_g2) = match pair {
        Pair::Ends => return [g0, g2],
        Pair::Inner => (-2.0 / 3.0, -2.0 / 3.0 * FRAC_1_SQRT_2, -1.0 / 3.0),
        Pair::Outer => (1.0 / 6.0, SQRT_2 / 6.0, 1.0 / 3.0),
    };
    let even = lanes.mul_add(lanes.splat(of_g2), g2, lanes.mul(lanes.splat(of_g0), g0));
    let odd = lanes.mul(lanes.splat(of_g1), g1);
    [lanes.add(even, odd), lanes.sub(even, odd)]
}

/// `Aᵀ m`: four outputs of the products at the six points.
#[inline(always)]
pub(super) fn output<L: Lanes>(lanes: L, m: [L::Vector; SEEN]) -> [L::Vector; GIVEN] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let (even, odd) = (lanes.add(m1, m2), lanes.sub(m1, m2));
    let (outer_even, outer_odd) = (lanes.add(m3, m4), lanes.sub(m3, m4));
    let weigh = |inner: f32, outer: f32, a, b| lanes.mul_add(lanes.splat(outer), b, lanes.mul(lanes.splat(inner), a));
    [
        lanes.add(m0, lanes.add(even, outer_even)),
        weigh(FRAC_1_SQRT_2, SQRT_2, odd, outer_odd),
        weigh(0.5, 2.0, even, outer_even),
        lanes.add(m5, weigh(0.5 * FRAC_1_SQRT_2, 2.0 * SQRT_2, odd, outer_odd)),
    ]
}
