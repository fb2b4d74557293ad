//! What products multiply at a time: one f32, or two bf16 that one instruction multiplies and adds up. Either takes the
//! place of one f32, so that what lies in lines is read alike.

use crate::dispatch::{Level, dispatched};
use crate::lanes::{self, Lanes, Task};
use crate::memory::Plain;
use crate::narrow::round_to_bf16;

/// One lane's share of a multiplication, as long as an f32. [`Unit::join`] may round a tie away from zero where
/// [`Unit::along`] and [`Unit::across`] round it to even.
pub(crate) trait Unit: Plain + Send + Sync {
    /// Numbers of a unit, which lie one after the other: inputs, channels or taps.
    const NUMBERS: usize;
    const ZERO: Self;

    /// Units of numbers that lie one after the other; what is missing in the last one is zero.
    fn along(values: &[f32], units: &mut [Self]);

    /// Units of the numbers of one row and, if it has two, of the next.
    fn across(rows: [&[f32]; 2], units: &mut [Self]);

    /// A vector of units of their first numbers and, if they have two, their second.
    fn join<L: Lanes>(lanes: L, numbers: [L::Vector; 2]) -> L::Vector;

    /// `sum + a b`
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector;

    /// [`lanes::run`] with what the processor has for these products.
    fn run(level: Level, task: impl Task);
}

/// Two numbers rounded to bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub(crate) struct Bf16Pair(pub(crate) [u16; 2]);

/// The units in the places of these numbers.
pub(crate) fn in_places<U: Unit>(numbers: &[f32]) -> &[U] {
    const { assert!(size_of::<U>() == size_of::<f32>() && align_of::<U>() == align_of::<f32>()) };
    // SAFETY: a unit is as long as a number and lies where one can; any bits are plain.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

// SAFETY: two numbers, one after the other.
unsafe impl Plain for Bf16Pair {
    const ODD: Self = Self(<[u16; 2]>::ODD);
}

impl Unit for f32 {
    const NUMBERS: usize = 1;
    const ZERO: Self = 0.0;

    fn along(values: &[f32], units: &mut [Self]) {
        units.copy_from_slice(values);
    }

    fn across([row, _]: [&[f32]; 2], units: &mut [Self]) {
        units.copy_from_slice(row);
    }

    #[inline(always)]
    fn join<L: Lanes>(_lanes: L, [number, _]: [L::Vector; 2]) -> L::Vector {
        number
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.mul_add(a, b, sum)
    }

    fn run(level: Level, task: impl Task) {
        lanes::run(level, task);
    }
}

impl Unit for Bf16Pair {
    const NUMBERS: usize = 2;
    const ZERO: Self = Self([0; 2]);

    fn along(values: &[f32], units: &mut [Self]) {
        let (pairs, last) = values.as_chunks();
        join_along(pairs, units);
        if let [last] = last {
            units[pairs.len()] = Self([round_to_bf16(*last), 0]);
        }
    }

    fn across([row, next]: [&[f32]; 2], units: &mut [Self]) {
        join_across(row, next, units);
    }

    #[inline(always)]
    fn join<L: Lanes>(lanes: L, [first, second]: [L::Vector; 2]) -> L::Vector {
        lanes.join_bf16(first, second)
    }

    #[inline(always)]
    fn add_product<L: Lanes>(lanes: L, a: L::Vector, b: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.add_bf16_products(a, b, sum)
    }

    fn run(level: Level, task: impl Task) {
        lanes::run_bf16(level, task);
    }
}

dispatched! {
    fn join_along(values: &[[f32; 2]], units: &mut [Bf16Pair]) {
        for (unit, pair) in units.iter_mut().zip(values) {
            *unit = Bf16Pair([round_to_bf16(pair[0]), round_to_bf16(pair[1])]);
        }
    }
}

dispatched! {
    fn join_across(row: &[f32], next: &[f32], units: &mut [Bf16Pair]) {
        for ((unit, first), second) in units.iter_mut().zip(row).zip(next) {
            *unit = Bf16Pair([round_to_bf16(*first), round_to_bf16(*second)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hold_what_lies_side_by_side_and_what_lies_below() {
        let (row, next) = ([1.0, -2.0, 0.5], [4.0, 0.0, -1.0]);
        let mut along = [Bf16Pair::ZERO; 2];
        Bf16Pair::along(&row, &mut along);
        assert_eq!(along.map(|pair| pair.0), [[0x3f80, 0xc000], [0x3f00, 0]]);
        let mut across = [Bf16Pair::ZERO; 3];
        Bf16Pair::across([&row, &next], &mut across);
        assert_eq!(across.map(|pair| pair.0), [[0x3f80, 0x4080], [0xc000, 0], [0x3f00, 0xbf80]]);
    }
}
