//! Multi-head attention on what linear layers leave: heads side by side in the last dimension.

use crate::values::{self, Values};
use crate::{Error, Result, work};
use candle_core::Tensor;
pub use kernels::attention::Mask;
use kernels::peak::Kind;

/// Heads, the factor on the scores, and what is added to them.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub n_heads: usize,
    /// Usually `1 / sqrt(dim)`; T5 uses 1.
    pub scale: f64,
    pub mask: Mask<'a>,
}

impl Heads<'_> {
    /// `1 / sqrt(dim)`, no mask.
    pub fn plain(n_heads: usize, dim: usize) -> Self {
        Self { n_heads, scale: (dim as f64).powf(-0.5), mask: Mask::None }
    }
}

/// Scaled dot-product attention.
///
/// # Shapes
/// - q, output: `(b, queries, heads · dim)`; k, v: `(b, keys, heads · dim)`
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads<'_>) -> Result<Tensor> {
    let (b, n_queries, width) = q.dims3()?;
    let (_, n_keys, _) = k.dims3()?;
    if k.dims() != v.dims() || k.dims() != [b, n_keys, width] || !width.is_multiple_of(heads.n_heads) {
        let shapes = format!("{:?}, {:?}, {:?}", q.dims(), k.dims(), v.dims());
        return Err(Error::Shape(format!("attention over {} heads got {shapes}", heads.n_heads)));
    }
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let (q, k, v) = (Values::of(&q)?, Values::of(&k)?, Values::of(&v)?);
    let mut out = vec![0.0; q.len()];
    let keys = k.chunks(n_keys * width).zip(v.chunks(n_keys * width));
    for ((out, q), (k, v)) in out.chunks_mut(n_queries * width).zip(q.chunks(n_queries * width)).zip(keys) {
        let attention = kernels::attention::Attention {
            q,
            k,
            v,
            n_heads: heads.n_heads,
            dim: width / heads.n_heads,
            scale: heads.scale as f32,
            mask: heads.mask,
        };
        kernels::attention::attend(attention, out);
    }
    let n_seen = match heads.mask {
        Mask::Causal => (1..=n_queries).map(|query| query.min(n_keys)).sum(),
        Mask::None | Mask::Bias(_) => n_queries * n_keys,
    };
    // One product with the keys, and one with the values.
    work::note(Kind::F32, 2 * b * n_seen * width);
    values::tensor(out, (b, n_queries, width))
}
