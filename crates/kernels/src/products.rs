//! The number formats of products that are formed while a model runs, by attention and by convolutions.

pub use crate::dispatch::multiplies_bf16;

/// What is multiplied. Sums, and all that is not a product, are f32 in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    F32,
    /// Numbers of 8 significant bits, where the processor multiplies them itself; elsewhere it is f32.
    Bf16,
}

impl Products {
    /// What this processor multiplies if it is asked for these.
    pub fn here(self) -> Self {
        if multiplies_bf16() { self } else { Self::F32 }
    }
}
