//! Convolution layers.

use crate::values::{self, Values};
use crate::{Error, Result, Weights};
use candle_core::Tensor;
use kernels::conv::{Conv, Extent};
pub use kernels::conv::{Form, Padding};

/// A convolution with a bias.
pub struct Conv2d {
    /// `(outputs, inputs, side, side)`
    weight: Tensor,
    /// `(outputs)`
    bias: Tensor,
    form: Form,
}

impl Conv2d {
    pub fn new(weights: &Weights, form: Form) -> Result<Self> {
        let weight = weights.tensor("weight", &[form.outputs, form.inputs, form.side, form.side])?;
        Ok(Self { weight, bias: weights.tensor("bias", &[form.outputs])?, form })
    }

    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, h', w')`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Form { inputs, outputs, .. } = self.form;
        let (b, n_channels, height, width) = x.dims4()?;
        if n_channels != inputs {
            return Err(Error::Shape(format!("a convolution of {inputs} channels got {:?}", x.dims())));
        }
        let x = x.contiguous()?;
        let (input, weight, bias) = (Values::of(&x)?, Values::of(&self.weight)?, Values::of(&self.bias)?);
        let conv = Conv { weight: &weight, bias: &bias, form: self.form };
        let extent = Extent { height, width };
        let output = self.form.output_extent(extent);
        let output_len = outputs * output.height * output.width;
        let mut out = vec![0.0; b * output_len];
        for (out, input) in out.chunks_mut(output_len).zip(input.chunks(inputs * height * width)) {
            kernels::conv::convolve(&conv, input, extent, out);
        }
        values::tensor(out, (b, outputs, output.height, output.width))
    }
}
