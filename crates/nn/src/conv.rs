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
        self.compute(x, self.form)
    }

    /// [`Conv2d::forward`] of a doubling convolution that cuts the doubled picture to a size before it is convolved: what
    /// was halved from odd sides is one row or column too large otherwise.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, height, width)`, at most `2h` and `2w`
    pub fn forward_cut(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        if (height, width) == (2 * h, 2 * w) {
            return self.forward(x);
        }
        let doubled = x.upsample_nearest2d(2 * h, 2 * w)?;
        let cut = doubled.narrow(2, 0, height)?.narrow(3, 0, width)?;
        self.compute(&cut, Form { upsample: false, ..self.form })
    }

    fn compute(&self, x: &Tensor, form: Form) -> Result<Tensor> {
        let Form { inputs, outputs, .. } = form;
        let (b, n_channels, height, width) = x.dims4()?;
        if n_channels != inputs {
            return Err(Error::Shape(format!("a convolution of {inputs} channels got {:?}", x.dims())));
        }
        let x = x.contiguous()?;
        let (input, weight, bias) = (Values::of(&x)?, Values::of(&self.weight)?, Values::of(&self.bias)?);
        let conv = Conv { weight: &weight, bias: &bias, form };
        let extent = Extent { height, width };
        let output = form.output_extent(extent);
        let output_len = outputs * output.height * output.width;
        let mut out = vec![0.0; b * output_len];
        for (out, input) in out.chunks_mut(output_len).zip(input.chunks(inputs * height * width)) {
            kernels::conv::convolve(&conv, input, extent, out);
        }
        values::tensor(out, (b, outputs, output.height, output.width))
    }
}
