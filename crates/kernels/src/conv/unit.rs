//! What the products of a convolution multiply at a time: one f32, or two bf16 that one instruction multiplies and adds
//! up. Either takes the place of one f32 in a line, so that what lies in lines is read alike.

use crate::dispatch::Level;
use crate::lanes::{self, Lanes, Line, Task};

/// One lane's share of a multiplication.
pub(super) trait Unit {
    /// Numbers of a unit: channels, or taps, that lie one after the other.
    const NUMBERS: usize;

    /// Units of a unit's first number and, if it has two, its second.
    fn join<L: Lanes>(lanes: L, numbers: [L::Vector; 2]) -> L::Vector;

    /// `sum + a b`
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector;

    /// The units of lines of numbers, in the scratch if the lines are not that already; what is missing is zero.
    fn lines<'a, L: Lanes>(lanes: L, numbers: &'a [Line], scratch: &'a mut Vec<Line>) -> &'a [Line];

    fn run(level: Level, task: impl Task);
}

/// One f32.
pub(super) struct Single;

/// Two numbers rounded to bf16.
pub(super) struct Bf16Pair;

impl Unit for Single {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn join<L: Lanes>(_lanes: L, [number, _]: [L::Vector; 2]) -> L::Vector {
        number
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.mul_add(a, b, sum)
    }

    #[inline(always)]
    fn lines<'a, L: Lanes>(_lanes: L, numbers: &'a [Line], _scratch: &'a mut Vec<Line>) -> &'a [Line] {
        numbers
    }

    fn run(level: Level, task: impl Task) {
        lanes::run(level, task);
    }
}

impl Unit for Bf16Pair {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn join<L: Lanes>(lanes: L, [first, second]: [L::Vector; 2]) -> L::Vector {
        lanes.join_bf16(first, second)
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.add_bf16_products(a, b, sum)
    }

    #[inline(always)]
    fn lines<'a, L: Lanes>(lanes: L, numbers: &'a [Line], scratch: &'a mut Vec<Line>) -> &'a [Line] {
        scratch.resize(numbers.len().div_ceil(2), Line::ZERO);
        for (unit, numbers) in scratch.iter_mut().zip(numbers.chunks(2)) {
            let second = numbers.get(1).map_or(lanes.splat(0.0), |line| lanes.load(line));
            lanes.store(lanes.join_bf16(lanes.load(&numbers[0]), second), unit);
        }
        scratch
    }

    fn run(level: Level, task: impl Task) {
        lanes::run_bf16(level, task);
    }
}
