//! Attention at the shapes of FLUX.1 (1024 and 512 pixels, 512 tokens of text), SDXL's first level and CLIP.

use crate::meter::{Work, measure, numbers};
use criterion::Criterion;
use kernels::attention::{Attention, Mask, Operand, Part, attend};
use kernels::products::Products;

/// Heads, their size, queries, keys.
const SHAPES: [(usize, usize, usize, usize); 4] =
    [(24, 128, 4608, 4608), (24, 128, 1536, 1536), (10, 64, 4096, 77), (12, 64, 77, 77)];

pub(crate) fn bench(criterion: &mut Criterion) {
    for (n_heads, dim, n_queries, n_keys) in SHAPES {
        let width = n_heads * dim;
        let (q, k, v) = (numbers(n_queries * width, 1), numbers(n_keys * width, 2), numbers(n_keys * width, 3));
        let mut out = vec![0.0; n_queries * width];
        let parts = [&q, &k, &v].map(|values| [Part::of(values)]);
        let [q, k, v] = [0, 1, 2].map(|idx: usize| Operand::of(&parts[idx]));
        // One product with the keys, and one with the values.
        let operations = 4 * n_queries * n_keys * width;
        let shape = format!("{n_heads}x{dim}, {n_queries} queries, {n_keys} keys");
        for (format, products, work) in
            [("f32", Products::F32, Work::F32(operations)), ("bf16", Products::Bf16, Work::Bf16(operations))]
        {
            measure(criterion, &format!("attention {format} {shape}"), work, || {
                let scale = (dim as f32).powf(-0.5);
                attend(Attention { q, k, v, n_heads, dim, scale, mask: Mask::None, products }, &mut out);
            });
        }
    }
}
