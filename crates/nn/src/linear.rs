//! Linear layers.

use crate::values::{self, Values};
use crate::{Activation, Error, Result, Weights};
use candle_core::Tensor;

/// `x Wᵀ + b`.
pub struct Linear {
    /// `(outputs, inputs)`
    weight: Tensor,
    /// `(outputs)`
    bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// With a bias.
    pub fn new(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = weights.tensor("bias", &[outputs])?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(weights, inputs, outputs)? })
    }

    pub fn without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = weights.tensor("weight", &[outputs, inputs])?;
        Ok(Self { weight, bias: None, inputs, outputs })
    }

    /// # Shapes
    /// - x: `(…, inputs)`; output: `(…, outputs)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (out, shape) = self.compute(x)?;
        values::tensor(out, shape)
    }

    /// [`Linear::forward`], then an activation, without another pass over memory in between.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (mut out, shape) = self.compute(x)?;
        kernels::activation::activate(activation, &mut out);
        values::tensor(out, shape)
    }

    fn compute(&self, x: &Tensor) -> Result<(Vec<f32>, Vec<usize>)> {
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => return Err(Error::Shape(format!("a linear layer of {} inputs got {:?}", self.inputs, x.dims()))),
        }
        let x = x.contiguous()?;
        let x = Values::of(&x)?;
        let weight = Values::of(&self.weight)?;
        let bias = self.bias.as_ref().map(Values::of).transpose()?;
        let mut out = vec![0.0; x.len() / self.inputs * self.outputs];
        kernels::matmul::linear(&x, &weight, bias.as_deref(), &mut out, self.inputs);
        Ok((out, shape))
    }
}
