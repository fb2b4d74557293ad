//! How a model's tensor is cut out of one that a checkpoint holds in another layout: some of its rows, in some order,
//! turned or without trailing sides of one.

use std::ops::Range;

/// What to take of a stored tensor, and the shape that it has then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Of the first dimension, in the order in which they are taken. `None`: all.
    rows: Option<Vec<Range<usize>>>,
    is_transposed: bool,
    shape: Vec<usize>,
}

impl View {
    /// The tensor as it is stored.
    pub fn whole(shape: &[usize]) -> Self {
        Self { rows: None, is_transposed: false, shape: shape.to_vec() }
    }

    /// Some rows of a tensor of this shape. `None` if it has not so many.
    pub fn rows_of(shape: &[usize], rows: &[Range<usize>]) -> Option<Self> {
        let (n_rows, rest) = shape.split_first()?;
        let fit = rows.iter().all(|range| range.start <= range.end && range.end <= *n_rows);
        let taken = rows.iter().map(ExactSizeIterator::len).sum();
        let shape = [&[taken], rest].concat();
        fit.then(|| Self { rows: Some(rows.to_vec()), is_transposed: false, shape })
    }

    /// A matrix of this shape, turned. `None` if it is no matrix.
    pub fn transposed(shape: &[usize]) -> Option<Self> {
        let [rows, columns] = *shape else { return None };
        Some(Self { rows: None, is_transposed: true, shape: vec![columns, rows] })
    }

    /// A 1x1 convolution as the matrix that it is. `None` if it is none.
    pub fn pointwise(shape: &[usize]) -> Option<Self> {
        match *shape {
            [outputs, inputs, 1, 1] | [outputs, inputs] => Some(Self::whole(&[outputs, inputs])),
            [outputs] => Some(Self::whole(&[outputs])),
            _ => None,
        }
    }

    /// The shape that results.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn rows(&self) -> Option<&[Range<usize>]> {
        self.rows.as_deref()
    }

    /// `None`: more than memory could have.
    pub(crate) fn n_values(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side))
    }

    /// What was taken, in the order that it is wanted in.
    pub(crate) fn arrange(&self, values: Vec<f32>) -> Vec<f32> {
        match *self.shape {
            [columns, rows] if self.is_transposed => {
                (0..columns * rows).map(|at| values[at % rows * columns + at / rows]).collect()
            }
            _ => values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_does_not_fit_is_none() {
        assert!(View::rows_of(&[4, 2], &[0..1, 4..5]).is_none());
        assert!(View::rows_of(&[], &[0..1, 0..1]).is_none());
        assert!(View::transposed(&[4, 2, 1]).is_none());
        assert!(View::pointwise(&[4, 2, 3, 3]).is_none());
        assert_eq!(View::pointwise(&[4, 2, 1, 1]).unwrap().shape(), [4, 2]);
        assert_eq!(View::rows_of(&[4, 2], &[2..4, 0..1]).unwrap().shape(), [3, 2]);
    }
}
