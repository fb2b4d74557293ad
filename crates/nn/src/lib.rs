//! Layers over candle tensors, computed by `kernels`, loaded by walking a checkpoint's names.
//!
//! A layer holds f32 weights, takes and gives f32 tensors on the CPU, and knows nothing of models. Precision is a
//! property of a layer, never a second copy of a model.

pub mod attention;
pub mod conv;
pub mod embedding;
mod error;
pub mod files;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod values;
pub mod weights;

pub use error::{Error, Result};
pub use kernels::activation::Activation;
pub use weights::Weights;

use candle_core::Tensor;

/// Applies an activation to every element.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    let mut out = values::to_vec(x)?;
    kernels::activation::activate(activation, &mut out);
    values::tensor(out, x.dims())
}
