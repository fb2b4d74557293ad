//! f32 matrix products of two operands that both change, by the `gemm` crate. Layers' weights are [`crate::packed`].

use gemm::Parallelism;

/// A read-only matrix in a slice: element `(row, column)` lies at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn row_major(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn end(&self) -> usize {
        last_index(self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

/// Where a product is written: rows are `row_stride` apart, columns adjacent.
pub struct Target<'a> {
    pub values: &'a mut [f32],
    pub row_stride: usize,
    /// Whether to add to what is there, or to overwrite it.
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Overwrite,
    Accumulate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The caller is one of many threads already.
    One,
    All,
}

/// `target (+)= factor · left · right`.
pub fn multiply(left: Matrix<'_>, right: Matrix<'_>, factor: f32, target: Target<'_>, threads: Threads) {
    let (rows, columns, inner) = (left.rows, right.columns, left.columns);
    assert_eq!(inner, right.rows, "multiply: the inner sides differ");
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(inner > 0, "multiply: no inner side");
    assert!(left.end() < left.values.len(), "multiply: the left matrix leaves its slice");
    assert!(right.end() < right.values.len(), "multiply: the right matrix leaves its slice");
    let end = last_index(rows, columns, target.row_stride, 1);
    assert!(end < target.values.len() && target.row_stride >= columns, "multiply: the target leaves its slice");
    let accumulate = target.mode == Mode::Accumulate;
    // SAFETY: the assertions above keep every index of the three matrices within its slice; the target is exclusively
    // borrowed, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target.values.as_mut_ptr(),
            1,
            target.row_stride as isize,
            accumulate,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            factor,
            false,
            false,
            false,
            match threads {
                Threads::One => Parallelism::None,
                Threads::All => Parallelism::Rayon(0),
            },
        );
    }
}

fn last_index(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    (rows.max(1) - 1) * row_stride + (columns.max(1) - 1) * column_stride
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(values: &mut [f32], mode: Mode) {
        let (left, right) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let right = Matrix::row_major(&right, 3, 2).transposed();
        multiply(Matrix::row_major(&left, 2, 2), right, 1.0, Target { values, row_stride: 3, mode }, Threads::One);
    }

    #[test]
    fn a_transposed_operand_is_read_by_its_strides() {
        let mut out = [10.0, 20.0, 30.0, 10.0, 20.0, 30.0];
        product(&mut out, Mode::Accumulate);
        assert_eq!(out, [11.0, 22.0, 33.0, 13.0, 24.0, 37.0]);
    }

    #[test]
    fn overwriting_does_not_read_what_was_there() {
        let mut out = [f32::NAN; 6];
        product(&mut out, Mode::Overwrite);
        assert_eq!(out, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
    }

    #[test]
    #[should_panic(expected = "leaves its slice")]
    fn a_matrix_may_not_leave_its_slice() {
        let short = Matrix { values: &[1.0; 3], rows: 2, columns: 2, row_stride: 2, column_stride: 1 };
        let mut out = [0.0; 4];
        let target = Target { values: &mut out, row_stride: 2, mode: Mode::Overwrite };
        multiply(short, Matrix::row_major(&[1.0; 4], 2, 2), 1.0, target, Threads::One);
    }
}
