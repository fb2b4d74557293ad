//! Convolution layers.

use crate::values::{self, Values};
use crate::{Error, Result, Weights};
use candle_core::Tensor;
pub use kernels::conv::Padding;
use kernels::conv::{Conv, Extent};

/// The form of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub inputs: usize,
    pub outputs: usize,
    /// Of the square kernel.
    pub side: usize,
    pub stride: usize,
    pub padding: Padding,
    /// Whether the picture is doubled first by nearest neighbor.
    pub upsample: bool,
}

impl Form {
    /// 3x3, same size.
    pub fn same(inputs: usize, outputs: usize) -> Self {
        let padding = Padding { before: 1, after: 1 };
        Self { inputs, outputs, side: 3, stride: 1, padding, upsample: false }
    }

    /// 1x1.
    pub fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { side: 1, padding: Padding { before: 0, after: 0 }, ..Self::same(inputs, outputs) }
    }
}

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
        let Form { inputs, outputs, side, stride, padding, upsample } = self.form;
        let (b, n_channels, height, width) = x.dims4()?;
        if n_channels != inputs {
            return Err(Error::Shape(format!("a convolution of {inputs} channels got {:?}", x.dims())));
        }
        let x = x.contiguous()?;
        let (input, weight, bias) = (Values::of(&x)?, Values::of(&self.weight)?, Values::of(&self.bias)?);
        let conv = Conv { weight: &weight, bias: &bias, inputs, outputs, side, stride, padding, upsample };
        let extent = Extent { height, width };
        let output = conv.output_extent(extent);
        let output_len = outputs * output.height * output.width;
        let mut out = vec![0.0; b * output_len];
        for (out, input) in out.chunks_mut(output_len).zip(input.chunks(inputs * height * width)) {
            kernels::conv::convolve(&conv, input, extent, out);
        }
        values::tensor(out, (b, outputs, output.height, output.width))
    }
}
