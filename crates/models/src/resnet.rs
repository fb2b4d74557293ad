//! The residual block that the autoencoder and the UNet are built of: norm, SiLU and convolution, twice (He et al.,
//! arXiv:1512.03385; diffusers 0.42.1, `models/resnet.py`).

use candle_core::Tensor;
use nn::conv::{Conv2d, Form};
use nn::linear::Linear;
use nn::norm::GroupNorm;
use nn::{Error, Result, Weights};

/// What one block is, apart from its weights.
#[derive(Clone, Copy)]
pub(crate) struct ResnetForm {
    /// Channels.
    pub(crate) inputs: usize,
    /// Channels.
    pub(crate) outputs: usize,
    /// Of both norms.
    pub(crate) n_groups: usize,
    /// Of both norms.
    pub(crate) eps: f64,
    /// Elements of the time embedding; `None`: the block knows no time.
    pub(crate) time: Option<usize>,
}

pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// Where the number of channels changes.
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(crate) fn new(form: ResnetForm, weights: &Weights) -> Result<Self> {
        let ResnetForm { inputs, outputs, n_groups, eps, time } = form;
        let shortcut = || Conv2d::new(&weights.at("conv_shortcut"), Form::pointwise(inputs, outputs));
        let time_emb_proj = time.map(|n| Linear::new(&weights.at("time_emb_proj").with_exact_inputs(), n, outputs));
        Ok(Self {
            norm1: GroupNorm::new(&weights.at("norm1"), n_groups, inputs, eps)?,
            conv1: Conv2d::new(&weights.at("conv1"), Form::same(inputs, outputs))?,
            time_emb_proj: time_emb_proj.transpose()?,
            norm2: GroupNorm::new(&weights.at("norm2"), n_groups, outputs, eps)?,
            conv2: Conv2d::new(&weights.at("conv2"), Form::same(outputs, outputs))?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
        })
    }

    /// A block that knows no time.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; output: `(b, outputs, h, w)`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.time_emb_proj {
            None => self.finish(x, &self.conv1.forward(&self.norm1.forward_silu(x)?)?),
            Some(_) => Err(Error::Shape("a residual block was not told the time".to_owned())),
        }
    }

    /// A block that knows the time.
    ///
    /// # Shapes
    /// - x: `(b, inputs, h, w)`; time, after SiLU: `(b, time)`; output: `(b, outputs, h, w)`
    pub(crate) fn forward_timed(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let Some(time_emb_proj) = &self.time_emb_proj else {
            return Err(Error::Shape("a residual block has no use for the time".to_owned()));
        };
        let shift = time_emb_proj.forward(time)?; // (b, outputs)
        self.finish(x, &self.conv1.forward_shifted(&self.norm1.forward_silu(x)?, &shift)?)
    }

    fn finish(&self, x: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        let hidden = self.norm2.forward_silu(hidden)?;
        match &self.conv_shortcut {
            None => self.conv2.forward_onto(&hidden, x),
            Some(conv) => self.conv2.forward_onto(&hidden, &conv.forward(x)?),
        }
    }
}
