//! Multi-head attention on what linear layers leave: heads side by side in the last dimension.

use crate::norm::RmsNorm;
use crate::rope::Rope;
use crate::values::{self, Values};
use crate::{Error, Precision, Result, work};
use candle_core::Tensor;
pub use kernels::attention::Mask;
use kernels::attention::{Operand, Part};
use kernels::memory::unspecified;

/// Heads, the factor on the scores, and what is added to them.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub n_heads: usize,
    /// Usually `1 / sqrt(dim)`; T5 uses 1.
    pub scale: f64,
    pub mask: Mask<'a>,
    /// Of the two products.
    pub precision: Precision,
}

impl Heads<'_> {
    /// `1 / sqrt(dim)`, no mask, f32.
    pub fn plain(n_heads: usize, dim: usize) -> Self {
        Self { n_heads, scale: (dim as f64).powf(-0.5), mask: Mask::None, precision: Precision::F32 }
    }

    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

/// Scaled dot-product attention.
///
/// # Shapes
/// - q, output: `(b, queries, heads · dim)`; k, v: `(b, keys, heads · dim)`
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads<'_>) -> Result<Tensor> {
    compute(&[Stream { q, k, v, norms: None }], None, heads)
}

/// Tokens that attend together with those of other streams.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    /// `(b, queries, heads · dim)`
    pub q: &'a Tensor,
    /// `(b, keys, heads · dim)`
    pub k: &'a Tensor,
    /// `(b, keys, heads · dim)`
    pub v: &'a Tensor,
    /// Of the queries' and of the keys' heads.
    pub norms: Option<(&'a RmsNorm, &'a RmsNorm)>,
}

/// Attention over the tokens of all streams, one stream after the other; queries and keys are normed and then turned by
/// their positions' angles as they are read.
///
/// # Shapes
/// - output: `(b, all queries, heads · dim)`
pub fn attend_jointly(streams: &[Stream<'_>], pe: &Rope, heads: Heads<'_>) -> Result<Tensor> {
    compute(streams, Some(pe), heads)
}

fn compute(streams: &[Stream<'_>], pe: Option<&Rope>, heads: Heads<'_>) -> Result<Tensor> {
    let [q, k, v] = [
        Gathered::of(streams.iter().map(|stream| (stream.q, stream.norms.map(|norms| norms.0))))?,
        Gathered::of(streams.iter().map(|stream| (stream.k, stream.norms.map(|norms| norms.1))))?,
        Gathered::of(streams.iter().map(|stream| (stream.v, None)))?,
    ];
    let (n_queries, n_keys) = (q.n_tokens(), k.n_tokens());
    let same = |operand: &Gathered<'_>| operand.b == q.b && operand.width == q.width;
    let dim = q.width / heads.n_heads.max(1);
    let fits = same(&k) && same(&v) && v.n_tokens() == n_keys && dim * heads.n_heads == q.width;
    let turns = pe.is_none_or(|pe| pe.fits(n_queries, dim) && pe.fits(n_keys, dim));
    let is_normed =
        streams.iter().filter_map(|stream| stream.norms).all(|norms| norms.0.n() == dim && norms.1.n() == dim);
    if !fits || !turns || !is_normed {
        let shapes: Vec<_> = streams.iter().map(|stream| [stream.q, stream.k, stream.v].map(Tensor::dims)).collect();
        return Err(Error::Shape(format!("attention over {} heads got {shapes:?}", heads.n_heads)));
    }
    let (products, kind) = heads.precision.products();
    let [q_values, k_values, v_values] = [q.values()?, k.values()?, v.values()?];
    let mut out = unspecified(q.b * n_queries * q.width);
    for (idx, out) in out.chunks_mut((n_queries * q.width).max(1)).enumerate() {
        let parts = [q.parts(&q_values, idx), k.parts(&k_values, idx), v.parts(&v_values, idx)];
        let angles = pe.map(Rope::angles);
        let attention = kernels::attention::Attention {
            q: Operand { parts: &parts[0], angles },
            k: Operand { parts: &parts[1], angles },
            v: Operand::of(&parts[2]),
            n_heads: heads.n_heads,
            dim,
            scale: heads.scale as f32,
            mask: heads.mask,
            products,
        };
        kernels::attention::attend(attention, out);
    }
    let n_seen = match heads.mask {
        Mask::Causal => (1..=n_queries).map(|query| query.min(n_keys)).sum(),
        Mask::None | Mask::Bias(_) => n_queries * n_keys,
    };
    // One product with the keys, and one with the values.
    work::note(kind, 2 * q.b * n_seen * q.width);
    values::tensor(out, (q.b, n_queries, q.width))
}

/// One operand of all streams.
struct Gathered<'a> {
    /// `(b, tokens of the stream, width)` each, contiguous.
    tensors: Vec<(Tensor, Option<&'a RmsNorm>)>,
    b: usize,
    width: usize,
}

impl<'a> Gathered<'a> {
    fn of(streams: impl Iterator<Item = (&'a Tensor, Option<&'a RmsNorm>)>) -> Result<Self> {
        let tensors = streams.map(|(tensor, norm)| Ok((tensor.contiguous()?, norm))).collect::<Result<Vec<_>>>()?;
        let Some((first, _)) = tensors.first() else {
            return Err(Error::Shape("attention over no tokens".to_owned()));
        };
        let (b, _, width) = first.dims3()?;
        for (tensor, _) in &tensors {
            let (other_b, _, other_width) = tensor.dims3()?;
            if (other_b, other_width) != (b, width) {
                return Err(Error::Shape(format!("attention over {:?} and {:?}", first.dims(), tensor.dims())));
            }
        }
        Ok(Self { tensors, b, width })
    }

    fn n_tokens(&self) -> usize {
        self.tensors.iter().map(|(tensor, _)| tensor.dims()[1]).sum()
    }

    fn values(&self) -> Result<Vec<Values<'_>>> {
        self.tensors.iter().map(|(tensor, _)| Values::of(tensor)).collect()
    }

    /// What one picture of the batch has of it.
    fn parts<'v>(&'v self, values: &'v [Values<'_>], idx: usize) -> Vec<Part<'v>> {
        let part = |((_, norm), values): (&'v (Tensor, Option<&RmsNorm>), &'v Values<'_>)| {
            let n = values.len() / self.b;
            Part { values: &values[idx * n..(idx + 1) * n], norm: norm.map(RmsNorm::of_heads) }
        };
        self.tensors.iter().zip(values).map(part).collect()
    }
}
