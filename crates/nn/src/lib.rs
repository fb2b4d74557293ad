//! Layers over candle tensors, computed by `kernels`, loaded by walking a checkpoint's names.
//!
//! A layer takes and gives f32 tensors on the CPU, and knows nothing of models. The precision of its products is a
//! property of the weights that it is made of, never a second copy of a model.

pub mod assembly;
pub mod attention;
pub mod checkpoint;
pub mod conv;
pub mod embedding;
mod error;
pub mod files;
pub mod interpolate;
pub mod linear;
pub mod norm;
mod precision;
pub mod rope;
pub mod survey;
pub mod values;
pub mod view;
pub mod weights;
pub mod work;

pub use error::{Error, Result};
pub use kernels::activation::Activation;
pub use kernels::{limit, memory, peak};
pub use precision::Precision;
pub use weights::Weights;

use candle_core::Tensor;
use kernels::memory::unspecified;
use values::Values;

/// Applies an activation to every element.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let mut out = values::to_vec(x)?;
    kernels::activation::activate(activation, &mut out);
    values::tensor(out, x.dims())
}

/// A gated linear unit (Shazeer, arXiv:2002.05202): the first half of every row, times the activated second half.
///
/// # Shapes
/// - x: `(…, 2n)`; output: `(…, n)`
pub fn gated(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let n = match shape.last_mut() {
        Some(last) if *last > 0 && last.is_multiple_of(2) => {
            *last /= 2;
            *last
        }
        _ => return Err(Error::Shape(format!("a gated linear unit got {:?}", x.dims()))),
    };
    let x = x.contiguous()?;
    let x = Values::of(&x)?;
    let mut out = unspecified(x.len() / 2);
    kernels::activation::gate_halves(activation, &x, n, &mut out);
    values::tensor(out, shape)
}

/// `left + right`, of the same shape.
pub fn add(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    by_element(left, right, kernels::activation::add)
}

/// `left * right`, of the same shape.
pub fn multiply(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    by_element(left, right, kernels::activation::multiply)
}

fn by_element(left: &Tensor, right: &Tensor, kernel: fn(&[f32], &[f32], &mut [f32])) -> Result<Tensor> {
    if left.dims() != right.dims() {
        return Err(Error::Shape(format!("{:?} and {:?} differ", left.dims(), right.dims())));
    }
    let (left, right) = (left.contiguous()?, right.contiguous()?);
    let (left_values, right_values) = (Values::of(&left)?, Values::of(&right)?);
    let mut out = unspecified(left_values.len());
    kernel(&left_values, &right_values, &mut out);
    values::tensor(out, left.dims())
}
