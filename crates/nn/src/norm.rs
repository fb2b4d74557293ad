//! Normalization layers.

mod shared;

use crate::values::{self, Values};
use crate::{Error, Result, Weights};
use candle_core::Tensor;
use kernels::memory::unspecified;
use kernels::norm::Affine;
pub use shared::{Part, SharedStatistics};

/// Layer norm over the last dimension, with a learned affine transform.
pub struct LayerNorm {
    /// `(n)`
    weight: Tensor,
    /// `(n)`
    bias: Tensor,
    eps: f64,
}

/// RMS norm over the last dimension (Zhang and Sennrich, arXiv:1910.07467).
pub struct RmsNorm {
    /// `(n)`
    weight: Vec<f32>,
    eps: f64,
}

/// Group norm over channels (Wu and He, arXiv:1803.08494).
pub struct GroupNorm {
    /// `(channels)`
    weight: Tensor,
    /// `(channels)`
    bias: Tensor,
    n_groups: usize,
    eps: f64,
}

impl LayerNorm {
    pub fn new(weights: &Weights, n: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: weights.tensor("weight", &[n])?, bias: weights.tensor("bias", &[n])?, eps })
    }

    /// # Shapes
    /// - x, output: `(…, n)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (Values::of(&self.weight)?, Values::of(&self.bias)?);
        normalize(x, self.eps, Affine::Learned { weight: &weight, bias: &bias })
    }
}

/// Layer norm without learned parameters, then `x (1 + scale) + shift`: adaptive layer norm (Peebles and Xie,
/// arXiv:2212.09748). One modulation per picture of the batch.
///
/// # Shapes
/// - x, output: `(b, tokens, n)`; scale, shift: `(b, n)`
pub fn modulated_layer_norm(x: &Tensor, eps: f64, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (b, n_tokens, n) = x.dims3()?;
    let (x, scale, shift) = (x.contiguous()?, scale.contiguous()?, shift.contiguous()?);
    let (input, scale, shift) = (Values::of(&x)?, Values::of(&scale)?, Values::of(&shift)?);
    if scale.len() != b * n || shift.len() != b * n {
        return Err(Error::Shape(format!("a modulation does not fit {:?}", x.dims())));
    }
    let mut out = unspecified(input.len());
    let pictures = out.chunks_mut(n_tokens * n).zip(input.chunks(n_tokens * n));
    for ((out, input), (scale, shift)) in pictures.zip(scale.chunks(n).zip(shift.chunks(n))) {
        kernels::norm::layer_norm(input, out, n, eps as f32, Affine::Modulation { scale, shift });
    }
    values::tensor(out, (b, n_tokens, n))
}

/// `x + gate * update`, one gate per picture of the batch.
///
/// # Shapes
/// - x, update, output: `(b, tokens, n)`; gate: `(b, n)`
pub fn gated_residual(x: &Tensor, gate: &Tensor, update: &Tensor) -> Result<Tensor> {
    let (b, n_tokens, n) = x.dims3()?;
    let (update, gate) = (update.contiguous()?, gate.contiguous()?);
    let (update, gate) = (Values::of(&update)?, Values::of(&gate)?);
    let x = x.contiguous()?;
    let input = Values::of(&x)?;
    if gate.len() != b * n || update.len() != input.len() {
        return Err(Error::Shape(format!("a gate or an update does not fit {:?}", x.dims())));
    }
    let mut out = unspecified(input.len());
    let pictures = input.chunks(n_tokens * n).zip(update.chunks(n_tokens * n)).zip(gate.chunks(n));
    for (out, ((input, update), gate)) in out.chunks_mut(n_tokens * n).zip(pictures) {
        kernels::activation::add_gated(input, gate, update, out);
    }
    values::tensor(out, (b, n_tokens, n))
}

impl RmsNorm {
    pub fn new(weights: &Weights, n: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: values::to_vec(&weights.tensor("weight", &[n])?)?, eps })
    }

    /// Elements of what it norms.
    pub(crate) fn n(&self) -> usize {
        self.weight.len()
    }

    /// For heads that are normed on their way into attention.
    pub(crate) fn of_heads(&self) -> kernels::attention::RmsNorm<'_> {
        kernels::attention::RmsNorm { weight: &self.weight, eps: self.eps as f32 }
    }

    /// # Shapes
    /// - x, output: `(…, n)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = values::to_vec(x)?;
        if x.dims().last() != Some(&self.n()) {
            return Err(Error::Shape(format!("an RMS norm over {} got {:?}", self.n(), x.dims())));
        }
        kernels::norm::rms_norm(&mut out, &self.weight, self.eps as f32);
        values::tensor(out, x.dims())
    }
}

impl GroupNorm {
    pub fn new(weights: &Weights, n_groups: usize, n_channels: usize, eps: f64) -> Result<Self> {
        if n_groups == 0 || !n_channels.is_multiple_of(n_groups) {
            return Err(Error::Shape(format!("{n_channels} channels do not make {n_groups} groups")));
        }
        let weight = weights.tensor("weight", &[n_channels])?;
        Ok(Self { weight, bias: weights.tensor("bias", &[n_channels])?, n_groups, eps })
    }

    /// # Shapes
    /// - x, output: `(b, channels, h, w)`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.compute(x, Follow::Nothing)
    }

    /// [`GroupNorm::forward`], then SiLU, in the same pass.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.compute(x, Follow::Silu)
    }

    fn compute(&self, x: &Tensor, follow: Follow) -> Result<Tensor> {
        let (b, n_channels, h, w) = x.dims4()?;
        let x = x.contiguous()?;
        let (input, weight, bias) = (Values::of(&x)?, Values::of(&self.weight)?, Values::of(&self.bias)?);
        if weight.len() != n_channels {
            return Err(Error::Shape(format!("a group norm of {} channels got {:?}", weight.len(), x.dims())));
        }
        let norm = kernels::norm::GroupNorm {
            n_groups: self.n_groups,
            eps: self.eps as f32,
            weight: &weight,
            bias: &bias,
            silu: follow == Follow::Silu,
            statistics: None,
        };
        let shared = shared::next(&norm, &input, h, w);
        let norm = kernels::norm::GroupNorm { statistics: shared.as_deref(), ..norm };
        let mut out = unspecified(input.len());
        let picture_len = n_channels * h * w;
        for (out, input) in out.chunks_mut(picture_len).zip(input.chunks(picture_len)) {
            kernels::norm::group_norm(input, out, norm);
        }
        values::tensor(out, (b, n_channels, h, w))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    Nothing,
    Silu,
}

fn normalize(x: &Tensor, eps: f64, affine: Affine<'_>) -> Result<Tensor> {
    let n = x.dims().last().copied().unwrap_or_default();
    let contiguous = x.contiguous()?;
    let input = Values::of(&contiguous)?;
    if let Affine::Learned { weight, .. } = affine
        && weight.len() != n
    {
        return Err(Error::Shape(format!("a layer norm over {} got {:?}", weight.len(), x.dims())));
    }
    let mut out = unspecified(input.len());
    kernels::norm::layer_norm(&input, &mut out, n, eps as f32, affine);
    values::tensor(out, x.dims())
}
