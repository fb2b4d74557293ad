//! Where many tasks leave their results in one matrix.

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
    /// # Safety
    /// The place must lie within the output, and nobody else may use it meanwhile.
    pub(crate) unsafe fn write(self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = self.values.add(row * self.row_stride + column);
            std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len());
        }
    }
}
