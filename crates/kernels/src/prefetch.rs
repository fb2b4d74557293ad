//! Hints that memory will be used soon. They change nothing but the time, and any address may be hinted at.

/// Numbers of a line of the caches.
pub(crate) const LINE_NUMBERS: usize = 16;

/// The line of this place will be written.
#[inline(always)]
pub(crate) fn for_writing(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint of an address that cannot be read is ignored.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The lines of these numbers will be read.
#[inline(always)]
pub(crate) fn for_reading(numbers: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(LINE_NUMBERS) {
        // SAFETY: a hint reads nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}
