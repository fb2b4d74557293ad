//! CPU compute on plain slices: slices in, slices out, no tensors.
//!
//! Every kernel has one portable body; [`dispatch`] compiles it once more for AVX2 and AVX-512 and chooses at run time,
//! so that one binary runs everywhere. Results do not depend on the number of threads: work is cut by shape alone.
//! The only crate of the workspace with `unsafe`.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod dispatch;
mod lanes;
mod prefetch;
mod target;

pub use dispatch::limit;

pub mod activation;
pub mod attention;
pub mod conv;
pub mod mapped;
pub mod math;
pub mod matmul;
pub mod memory;
pub mod narrow;
pub mod norm;
pub mod packed;
pub mod peak;
pub mod products;
pub mod rope;

#[cfg(test)]
mod testing;
