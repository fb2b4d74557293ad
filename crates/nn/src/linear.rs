//! Linear layers.

use crate::values::{self, Values};
use crate::{Activation, Error, Result, Weights, work};
use candle_core::Tensor;
use kernels::packed::{Epilogue, SingleWeight};
use kernels::peak::Kind;

/// `x Wᵀ + b`.
pub struct Linear {
    /// `(outputs, inputs)`
    weight: SingleWeight,
    /// `(outputs)`
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// With a bias.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = values::to_vec(&weights.tensor("bias", &[outputs])?)?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(weights, inputs, outputs)? })
    }

    pub fn without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = weights.tensor("weight", &[outputs, inputs])?;
        let values = Values::of(&weight)?;
        // A survey of billions of weights lays none of them out.
        let values = if weights.is_survey() { &values[..0] } else { &values };
        let weight = SingleWeight::pack(values, inputs);
        Ok(Self { weight, bias: None, inputs, outputs })
    }

    /// # Shapes
    /// - x: `(…, inputs)`; output: `(…, outputs)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.compute(x, None)
    }

    /// [`Linear::forward`], then an activation, while the product is still in cache.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.compute(x, Some(activation))
    }

    fn compute(&self, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => return Err(Error::Shape(format!("a linear layer of {} inputs got {:?}", self.inputs, x.dims()))),
        }
        let x = x.contiguous()?;
        let x = Values::of(&x)?;
        let mut out = vec![0.0; x.len() / self.inputs * self.outputs];
        self.weight.multiply(&x, Epilogue { bias: self.bias.as_deref(), activation }, &mut out);
        work::note(Kind::F32, out.len() * self.inputs);
        values::tensor(out, shape)
    }
}
