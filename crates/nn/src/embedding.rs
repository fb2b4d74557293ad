//! Embeddings of tokens and of timesteps.

use crate::values::{self, Values};
use crate::{Error, Precision, Result, Weights};
use candle_core::Tensor;
use kernels::narrow::Numbers;

/// A table of vectors, one per token.
pub struct Embedding {
    /// `(vocabulary, n)`
    table: Numbers,
    n: usize,
}

impl Embedding {
    pub fn new(weights: &Weights, vocabulary: usize, n: usize) -> Result<Self> {
        let table = weights.tensor("weight", &[vocabulary, n])?;
        let values = Values::of(&table)?;
        let table = match weights.precision() {
            Precision::F32 => Numbers::of(&values),
            Precision::Bf16 | Precision::Int8 => Numbers::rounded(&values),
        };
        Ok(Self { table, n })
    }

    /// # Shapes
    /// - output: `(1, tokens, n)`
    pub fn forward(&self, tokens: &[u32]) -> Result<Tensor> {
        let mut out = vec![0.0; tokens.len() * self.n];
        for (row, token) in out.chunks_mut(self.n).zip(tokens) {
            let first = *token as usize * self.n;
            if first + self.n > self.table.len() {
                return Err(Error::Shape(format!("token {token} is not in the vocabulary")));
            }
            self.table.read(first, row);
        }
        values::tensor(out, (1, tokens.len(), self.n))
    }
}

/// The sinusoidal embedding of a timestep: cosines first, then sines, over falling frequencies (Vaswani et al.,
/// arXiv:1706.03762; diffusers' `get_timestep_embedding` with `flip_sin_to_cos`).
///
/// # Shapes
/// - output: `(1, n)`, `n` even
pub fn timestep_embedding(timestep: f32, n: usize) -> Result<Tensor> {
    let half = n / 2;
    let angle = |i: usize| {
        let exponent = -(10_000f64.ln()) as f32 * i as f32 / half as f32;
        timestep * exponent.exp()
    };
    let cosines = (0..half).map(|i| angle(i).cos());
    let sines = (0..half).map(|i| angle(i).sin());
    values::tensor(cosines.chain(sines).collect(), (1, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_zero_is_all_ones_then_zeros() {
        let embedding = timestep_embedding(0.0, 8).unwrap();
        assert_eq!(embedding.to_vec2::<f32>().unwrap(), [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]);
    }
}
