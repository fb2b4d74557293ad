//! Layers over candle tensors, computed by `kernels`, loaded by walking a checkpoint's names.
//!
//! A layer holds f32 weights, takes and gives f32 tensors on the CPU, and knows nothing of models. Precision is a
//! property of a layer, never a second copy of a model.

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
pub mod rope;
pub mod survey;
pub mod values;
pub mod view;
pub mod weights;
pub mod work;

pub use error::{Error, Result};
pub use kernels::activation::Activation;
pub use kernels::peak;
pub use weights::Weights;

use candle_core::Tensor;
use rayon::prelude::*;

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
    let x = values::Values::of(&x)?;
    let halves = |start: usize| {
        let mut half = vec![0.0; x.len() / 2];
        let rows = half.par_chunks_mut(n).zip(x.par_chunks(2 * n));
        rows.for_each(|(half, row)| half.copy_from_slice(&row[start..start + n]));
        half
    };
    let (mut out, mut gates) = (halves(0), halves(n));
    kernels::activation::activate(activation, &mut gates);
    kernels::activation::multiply(&mut out, &gates);
    values::tensor(out, shape)
}
