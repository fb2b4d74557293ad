//! Linear layers.

use crate::values::{self, Values};
use crate::weights::Inputs;
use crate::{Activation, Error, Precision, Result, Weights, work};
use candle_core::Tensor;
use kernels::memory::unspecified;
use kernels::packed::{self, Bf16Weight, Columns, Epilogue, Int8Weight, SingleWeight};
use kernels::peak::Kind;
use kernels::products::multiplies_bf16;

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
        // A survey of billions of weights lays none of them out, nor do weights that are about to be refused.
        let values = if weights.only_note() { &values[..0] } else { &values };
        Ok(Self { weight: pack(values, inputs, weights), bias: None, inputs, outputs })
    }

    /// # Shapes
    /// - x: `(…, inputs)`; output: `(…, outputs)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Input::read(&[x], |x| self.apply(x))
    }

    /// [`Linear::forward`], then an activation, while the product is still in cache.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Input::read(&[x], |x| self.apply_activated(x, activation))
    }

    /// [`Linear::forward`] of an input that several layers read.
    pub fn apply(&self, x: &Input<'_>) -> Result<Tensor> {
        self.compute(x, None)
    }

    /// [`Linear::forward_activated`] of an input that several layers read.
    pub fn apply_activated(&self, x: &Input<'_>, activation: Activation) -> Result<Tensor> {
        self.compute(x, Some(activation))
    }

    fn compute(&self, x: &Input<'_>, activation: Option<Activation>) -> Result<Tensor> {
        let mut shape = x.shape.clone();
        match shape.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => return Err(Error::Shape(format!("a linear layer of {} inputs got {:?}", self.inputs, x.shape))),
        }
        let mut out = unspecified(shape.iter().product());
        let epilogue = Epilogue { bias: self.bias.as_deref(), activation };
        let kind = match &self.weight {
            Weight::Single(weight) => {
                weight.multiply(&x.rows, epilogue, &mut out);
                Kind::F32
            }
            Weight::Bf16(weight) => {
                weight.multiply(&x.rows, epilogue, &mut out);
                Kind::Bf16
            }
            Weight::Int8(weight) => {
                weight.multiply(&x.rows, epilogue, &mut out);
                Kind::Int8
            }
        };
        work::note(kind, out.len() * self.inputs);
        values::tensor(out, shape)
    }
}

/// Several layers of one input, as [`Linear::forward`] of each.
pub fn forward_each<const N: usize>(layers: [&Linear; N], x: &Tensor) -> Result<[Tensor; N]> {
    let outputs = Input::read(&[x], |x| layers.iter().map(|layer| layer.apply(x)).collect::<Result<Vec<_>>>())?;
    Ok(outputs.try_into().expect("as many outputs as layers, this is a bug"))
}

/// What linear layers read: laid out for their products once, however many layers read it.
pub struct Input<'a> {
    rows: packed::Input<'a>,
    /// `(…, inputs)`
    shape: Vec<usize>,
}

impl Input<'_> {
    /// Reads the elements of these tensors' tokens, one tensor's after the other's, as one input.
    ///
    /// # Shapes
    /// - parts: `(…, n)` each, which differ in `n` alone
    pub fn read<T>(parts: &[&Tensor], of: impl FnOnce(&Input<'_>) -> Result<T>) -> Result<T> {
        let dims: Vec<&[usize]> = parts.iter().map(|part| part.dims()).collect();
        let [Some((_, tokens)), ..] = *dims.iter().map(|dims| dims.split_last()).collect::<Vec<_>>() else {
            return Err(Error::Shape(format!("linear layers got {dims:?}")));
        };
        if dims.iter().any(|dims| dims.split_last().is_none_or(|(n, others)| *n == 0 || others != tokens)) {
            return Err(Error::Shape(format!("{dims:?} are not of the same tokens")));
        }
        let parts = parts.iter().map(|part| Ok(part.contiguous()?)).collect::<Result<Vec<_>>>()?;
        let values = parts.iter().map(Values::of).collect::<Result<Vec<_>>>()?;
        let columns = values.iter().zip(&dims).map(|(values, dims)| Columns { values, width: dims[dims.len() - 1] });
        let rows = packed::Input::joined(columns.collect());
        let mut shape = tokens.to_vec();
        shape.push(dims.iter().map(|dims| dims[dims.len() - 1]).sum());
        of(&Input { rows, shape })
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
