//! Memory for large results.

/// Above, a buffer is worth large pages: it lies in a mapping of its own, whose pages the system hands out as they are
/// first written.
const LARGE_BYTES: usize = 16 << 20;

/// `n` zeros. The system is asked to back many of them by large pages where it does not by itself: a page at a time,
/// 128 MiB cost more than the normalization that fills them.
pub fn zeros(n: usize) -> Vec<f32> {
    let values = vec![0.0; n];
    if size_of_val(&values[..]) >= LARGE_BYTES {
        ask_for_large_pages(&values);
    }
    values
}

#[cfg(target_os = "linux")]
fn ask_for_large_pages(values: &[f32]) {
    use std::ffi::{c_int, c_void};

    /// Of a page, at most; advice must begin on one.
    const PAGE_BYTES: usize = 64 << 10;
    const MADV_HUGEPAGE: c_int = 14;

    // SAFETY: the C library's own declaration.
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    let begin = values.as_ptr().addr().next_multiple_of(PAGE_BYTES);
    let end = values.as_ptr_range().end.addr() / PAGE_BYTES * PAGE_BYTES;
    let address = values.as_ptr().with_addr(begin).cast_mut().cast();
    // SAFETY: the pages lie within the values, and the advice changes no value. Refused, it is no loss.
    unsafe { madvise(address, end.saturating_sub(begin), MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_values: &[f32]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_that_can_be_written() {
        for n in [0, 1, LARGE_BYTES / 4, LARGE_BYTES / 4 + 12_345] {
            let mut values = zeros(n);
            assert!(values.len() == n && values.iter().all(|x| x.to_bits() == 0));
            values.iter_mut().enumerate().for_each(|(idx, x)| *x = idx as f32);
            assert!(values.iter().enumerate().all(|(idx, x)| *x == idx as f32));
        }
    }
}
