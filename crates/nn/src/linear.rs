//! Linear layers.

use crate::values::{self, Values};
use crate::weights::Inputs;
use crate::{Activation, Error, Precision, Result, Weights, work};
use candle_core::Tensor;
use kernels::packed::{Bf16Weight, Epilogue, Int8Weight, SingleWeight, multiplies_bf16};
use kernels::peak::Kind;

/// `x Wᵀ + b`.
pub struct Linear {
    /// `(outputs, inputs)`
    weight: Weight,
    /// `(outputs)`
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

enum Weight {
    Single(SingleWeight),
    Bf16(Bf16Weight),
    Int8(Int8Weight),
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
        Ok(Self { weight: pack(values, inputs, weights), bias: None, inputs, outputs })
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
        let epilogue = Epilogue { bias: self.bias.as_deref(), activation };
        let kind = match &self.weight {
            Weight::Single(weight) => {
                weight.multiply(&x, epilogue, &mut out);
                Kind::F32
            }
            Weight::Bf16(weight) => {
                weight.multiply(&x, epilogue, &mut out);
                Kind::Bf16
            }
            Weight::Int8(weight) => {
                weight.multiply(&x, epilogue, &mut out);
                Kind::Int8
            }
        };
        work::note(kind, out.len() * self.inputs);
        values::tensor(out, shape)
    }
}

/// How a layer of these weights keeps its own.
fn pack(weight: &[f32], inputs: usize, weights: &Weights) -> Weight {
    match (weights.precision(), weights.inputs()) {
        (Precision::F32, _) => Weight::Single(SingleWeight::pack(weight, inputs)),
        (Precision::Bf16, Inputs::Rounded) if multiplies_bf16() => Weight::Bf16(Bf16Weight::pack(weight, inputs)),
        (Precision::Bf16, _) => Weight::Single(SingleWeight::pack_bf16(weight, inputs)),
        (Precision::Int8, Inputs::Rounded) => Weight::Int8(Int8Weight::pack(weight, inputs)),
        (Precision::Int8, Inputs::Exact) => Weight::Single(SingleWeight::pack_int8(weight, inputs)),
    }
}
