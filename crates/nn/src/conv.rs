//! Convolution layers.

use crate::values::{self, Values};
use crate::weights::Inputs;
use crate::{Error, Precision, Result, Weights, work};
use candle_core::Tensor;
use kernels::conv::{Conv, PackedKernel};
pub use kernels::conv::{Extent, Form, Padding};
use kernels::matmul::{self, Matrix, Mode, Target, Threads};
use kernels::memory::unspecified;
use kernels::narrow::Numbers;
use kernels::peak::Kind;
use kernels::products::Products;

/// A convolution.
pub struct Conv2d {
    weight: PackedKernel,
    /// `(outputs)`
    bias: Vec<f32>,
    form: Form,
    products: (Products, Kind),
}

/// A transposed convolution whose stride is its side, with a bias: each pixel becomes a square of its own, and the
/// squares do not overlap.
pub struct ConvTranspose2d {
    /// `(inputs, outputs, side, side)`
    weight: Numbers,
    /// `(outputs)`
    bias: Tensor,
    form: Squares,
}

/// The form of a [`ConvTranspose2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squares {
    pub inputs: usize,
    pub outputs: usize,
    /// Pixels that a pixel becomes, on each side.
    pub side: usize,
}

impl Conv2d {
    /// With a bias.
    pub fn new(weights: &Weights, form: Form) -> Result<Self> {
        let bias = values::to_vec(&weights.tensor("bias", &[form.outputs])?)?;
        Ok(Self { bias, ..Self::without_bias(weights, form)? })
    }

    pub fn without_bias(weights: &Weights, form: Form) -> Result<Self> {
        let weight = weights.tensor("weight", &[form.outputs, form.inputs, form.side, form.side])?;
        // Where nothing is laid out any kernel will do.
        let weight = if weights.only_note() {
            PackedKernel::pack(&[0.0], 1)
        } else {
            PackedKernel::pack(&Values::of(&weight)?, form.outputs)
        };
        let precision = if weights.inputs() == Inputs::Exact { Precision::F32 } else { weights.precision() };
        Ok(Self { weight, bias: vec![0.0; form.outputs], form, products: precision.products() })
    }

    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, h', w')`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.compute(x, self.form, Added::default())
    }

    /// [`Conv2d::forward`], and adds `residual` while the result is still in cache.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; residual, output: `(b, outputs, h', w')`
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.compute(x, self.form, Added { residual: Some(residual), shift: None })
    }

    /// [`Conv2d::forward`] with a bias of each picture's own beside the layer's.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; shift: `(b, outputs)`; output: `(b, outputs, h', w')`
    pub fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        self.compute(x, self.form, Added { residual: None, shift: Some(shift) })
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
        self.compute(&cut, Form { upsample: false, ..self.form }, Added::default())
    }

    fn compute(&self, x: &Tensor, form: Form, added: Added<'_>) -> Result<Tensor> {
        let Form { inputs, outputs, .. } = form;
        let (b, n_channels, height, width) = x.dims4()?;
        if n_channels != inputs {
            return Err(Error::Shape(format!("a convolution of {inputs} channels got {:?}", x.dims())));
        }
        let extent = Extent { height, width };
        let output = form.output_extent(extent);
        let output_len = outputs * output.height * output.width;
        let residual = added.residual.map(|residual| of_shape(residual, &[b, outputs, output.height, output.width]));
        let (residual, shift) = (residual.transpose()?, added.shift.map(|shift| of_shape(shift, &[b, outputs])));
        let shift = shift.transpose()?;
        let (residual, shift) = (residual.as_ref().map(Values::of), shift.as_ref().map(Values::of));
        let (residual, shift) = (residual.transpose()?, shift.transpose()?);
        let x = x.contiguous()?;
        let input = Values::of(&x)?;
        let (products, kind) = self.products;
        let mut out = unspecified(b * output_len);
        for idx in 0..b {
            let mut bias = self.bias.clone();
            if let Some(shift) = &shift {
                bias.iter_mut().zip(&shift[idx * outputs..]).for_each(|(bias, shift)| *bias += shift);
            }
            let here = idx * output_len..(idx + 1) * output_len;
            let residual = residual.as_ref().map(|residual| &residual[here.clone()]);
            let conv = Conv { weight: &self.weight, bias: &bias, residual, form, products };
            let input = &input[idx * inputs * height * width..][..inputs * height * width];
            kernels::conv::convolve(&conv, input, extent, &mut out[here]);
        }
        work::note(kind, out.len() * inputs * form.side * form.side);
        values::tensor(out, (b, outputs, output.height, output.width))
    }
}

/// What is added to a convolution's result besides the layer's bias.
#[derive(Clone, Copy, Default)]
struct Added<'a> {
    /// `(b, outputs, h', w')`
    residual: Option<&'a Tensor>,
    /// `(b, outputs)`
    shift: Option<&'a Tensor>,
}

/// The tensor, contiguous, if it has this shape.
fn of_shape(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if tensor.dims() != shape {
        return Err(Error::Shape(format!("a convolution adds {:?} to a result of {shape:?}", tensor.dims())));
    }
    Ok(tensor.contiguous()?)
}

impl ConvTranspose2d {
    pub fn new(weights: &Weights, form: Squares) -> Result<Self> {
        let weight = weights.tensor("weight", &[form.inputs, form.outputs, form.side, form.side])?;
        let weight = Numbers::of(&Values::of(&weight)?);
        Ok(Self { weight, bias: weights.tensor("bias", &[form.outputs])?, form })
    }

    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, h · side, w · side)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Squares { inputs, outputs, side } = self.form;
        let (b, n_channels, height, width) = x.dims4()?;
        if n_channels != inputs {
            return Err(Error::Shape(format!("a transposed convolution of {inputs} channels got {:?}", x.dims())));
        }
        let x = x.contiguous()?;
        let input = Values::of(&x)?;
        let mut weight = unspecified(self.weight.len());
        self.weight.read(0, &mut weight);
        let (n_pixels, n_rows) = (height * width, outputs * side * side);
        let mut squares = vec![0.0; b * n_rows * n_pixels];
        for (squares, input) in squares.chunks_mut(n_rows * n_pixels).zip(input.chunks(inputs * n_pixels)) {
            let weight = Matrix::row_major(&weight, inputs, n_rows).transposed();
            let target = Target { values: squares, row_stride: n_pixels, mode: Mode::Overwrite };
            matmul::multiply(weight, Matrix::row_major(input, inputs, n_pixels), 1.0, target, Threads::All);
        }
        work::note(Kind::F32, squares.len() * inputs);
        let out = values::tensor(squares, (b, outputs, side, side, height * width))?
            .reshape(&[b, outputs, side, side, height, width])? // (b, outputs, dy, dx, h, w)
            .permute([0, 1, 4, 2, 5, 3])? // (b, outputs, h, dy, w, dx)
            .reshape((b, outputs, height * side, width * side))?;
        Ok(out.broadcast_add(&self.bias.reshape((1, outputs, 1, 1))?)?)
    }
}
