//! Rotary position embedding over several axes (Su et al., arXiv:2104.09864), as FLUX uses it.

use crate::values;
use crate::{Error, Result};
use candle_core::Tensor;
use kernels::attention::Angles;

/// The base of the frequencies.
const THETA: f64 = 10_000.0;

/// The angles of a sequence of positions.
pub struct Rope {
    /// `(tokens, dim / 2)`
    cos: Vec<f32>,
    /// `(tokens, dim / 2)`
    sin: Vec<f32>,
    n_tokens: usize,
    dim: usize,
}

impl Rope {
    /// Angles for positions on several axes; axis `i` turns `axes_dim[i]` of a head's elements.
    ///
    /// Computed in f64: in bf16 an angle at position 64 would be 0.18 rad off.
    pub fn new(positions: &[Vec<f64>], axes_dim: &[usize]) -> Result<Self> {
        let dim: usize = axes_dim.iter().sum();
        let mut cos = Vec::with_capacity(positions.len() * dim / 2);
        let mut sin = Vec::with_capacity(positions.len() * dim / 2);
        for position in positions {
            if position.len() != axes_dim.len() {
                return Err(Error::Shape(format!("{} axes for {} coordinates", axes_dim.len(), position.len())));
            }
            for (coordinate, axis_dim) in position.iter().zip(axes_dim) {
                for pair in 0..axis_dim / 2 {
                    let frequency = 1.0 / THETA.powf(2.0 * pair as f64 / *axis_dim as f64);
                    let angle = coordinate * frequency;
                    cos.push(angle.cos() as f32);
                    sin.push(angle.sin() as f32);
                }
            }
        }
        Ok(Self { cos, sin, n_tokens: positions.len(), dim })
    }

    /// Rotates every head of every token.
    ///
    /// # Shapes
    /// - x, output: `(b, tokens, heads · dim)`
    pub fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let (_, n_tokens, width) = x.dims3()?;
        if n_tokens != self.n_tokens || !width.is_multiple_of(self.dim) {
            let angles = format!("{} positions of {}", self.n_tokens, self.dim);
            return Err(Error::Shape(format!("rotary angles for {angles} got {:?}", x.dims())));
        }
        let mut out = values::to_vec(x)?;
        for picture in out.chunks_mut(n_tokens * width) {
            kernels::rope::rotate_pairs(picture, width / self.dim, &self.cos, &self.sin, self.dim);
        }
        values::tensor(out, x.dims())
    }

    /// Whether these are the angles of so many tokens, with heads of so many elements.
    pub(crate) fn fits(&self, n_tokens: usize, dim: usize) -> bool {
        n_tokens == self.n_tokens && dim == self.dim
    }

    pub(crate) fn angles(&self) -> Angles<'_> {
        Angles { cos: &self.cos, sin: &self.sin }
    }
}
