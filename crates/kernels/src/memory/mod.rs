//! Memory for large results: kept when it is freed, and not cleared when it is taken.
//!
//! A layer's result is often larger than all caches. Fresh pages are cleared by the system before they are first written,
//! and zeros that a kernel overwrites are written for nothing; both cost as much as a normalization.

mod keeper;

pub use keeper::{Keeper, release};

use std::mem::MaybeUninit;

/// A buffer of `n` numbers of no particular value: for a result that a kernel writes in full, and that is not kept long.
pub fn unspecified<T: Plain>(n: usize) -> Vec<T> {
    let mut values = keeper::briefly(|| Vec::with_capacity(n));
    let places: &mut [MaybeUninit<T>] = &mut values.spare_capacity_mut()[..n];
    if cfg!(debug_assertions) {
        // So that what is read before it is written does not look right by chance.
        places.fill(MaybeUninit::new(T::ODD));
    } else {
        settle(places);
    }
    // SAFETY: the capacity is at least `n`, the numbers have some value, and any bits are a number.
    unsafe { values.set_len(n) };
    values
}

/// Makes some value of whatever is there.
fn settle<T: Plain>(places: &mut [MaybeUninit<T>]) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: to the compiler this may have written any bytes to the places, so it must take the bytes that are there for
    // values; no instruction is needed for that, since memory once mapped holds some bytes.
    unsafe {
        std::arch::asm!("/* {} */", in(reg) places.as_mut_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    places.fill(MaybeUninit::new(T::ODD));
}

/// Numbers, of which any bits are one.
///
/// # Safety
/// Every pattern of bits must be a value, and no byte padding.
pub unsafe trait Plain: Copy {
    /// A value that no result has by chance.
    const ODD: Self;
}

// SAFETY: any 32 bits are an f32.
unsafe impl Plain for f32 {
    const ODD: Self = Self::NAN;
}

// SAFETY: any 16 bits are a u16.
unsafe impl Plain for u16 {
    const ODD: Self = Self::MAX;
}

// SAFETY: any 8 bits are an i8.
unsafe impl Plain for i8 {
    const ODD: Self = Self::MIN;
}

// SAFETY: an array is its elements, one after the other.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const ODD: Self = [T::ODD; N];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_numbers_can_be_written_and_read() {
        for n in [0, 1, 1 << 20, (4 << 20) + 12_345] {
            let mut values: Vec<f32> = unspecified(n);
            assert_eq!(values.len(), n);
            values.iter_mut().enumerate().for_each(|(idx, x)| *x = idx as f32);
            assert!(values.iter().enumerate().all(|(idx, x)| *x == idx as f32));
        }
        let arrays: Vec<[[i8; 4]; 12]> = unspecified(3);
        assert_eq!(arrays.iter().map(|array| array.as_flattened().len()).sum::<usize>(), 144);
    }
}
