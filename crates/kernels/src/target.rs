//! Where many tasks leave their results in one matrix.

use crate::prefetch;
use crate::tile::PANEL;
use std::ops::Range;

/// An output that tasks write to at places of their own.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) values: *mut f32,
    /// Elements from one row to the next.
    pub(crate) row_stride: usize,
}

// SAFETY: `write` asks its caller that no two threads write to the same place.
unsafe impl Sync for Target {}
// SAFETY: as above; the pointer is to memory that outlives the tasks, which borrow it.
unsafe impl Send for Target {}

impl Target {
    /// Asks the processor for the places where rows of a panel will be written, from `column` on: they come while the
    /// rows are computed.
    pub(crate) fn expect_rows(self, rows: Range<usize>, column: usize) {
        for row in rows {
            let place = self.values.wrapping_add(row * self.row_stride + column);
            prefetch::for_writing(place);
            prefetch::for_writing(place.wrapping_add(prefetch::LINE_NUMBERS));
        }
    }

    /// # Safety
    /// The place must lie within the output, and nobody else may use it meanwhile.
    unsafe fn write(self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.place(row, column), values.len()) };
    }

    /// # Safety
    /// The place must lie within the output.
    unsafe fn place(self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.values.add(row * self.row_stride + column) }
    }

    /// Writes the first elements of some rows of a panel, as many as there are columns.
    ///
    /// # Safety
    /// The places must lie within the output, and nobody else may use them meanwhile.
    pub(crate) unsafe fn write_rows(self, first: usize, columns: Range<usize>, rows: &[[f32; PANEL]]) {
        for (idx, row) in rows.iter().enumerate() {
            if columns.len() == PANEL {
                // SAFETY: the caller's promise. Of a known length, no function is called to copy it.
                unsafe { self.place(first + idx, columns.start).cast::<[f32; PANEL]>().write(*row) };
            } else {
                // SAFETY: the caller's promise.
                unsafe { self.write(first + idx, columns.start, &row[..columns.len()]) };
            }
        }
    }
}
