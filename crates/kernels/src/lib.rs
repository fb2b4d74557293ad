//! CPU compute on plain slices: slices in, slices out, no tensors.
//!
//! Every kernel is written once: what the compiler vectorizes by itself with [`dispatch`], inner loops over the vectors of
//! [`lanes`]. Both are compiled for several instruction sets, of which one is chosen at run time, so that one binary runs
//! everywhere. Results do not depend on the number of threads: work is cut by shape alone.
//! The only crate of the workspace with `unsafe`.

mod dispatch;
mod lanes;
mod prefetch;
mod target;
mod tile;
mod unit;

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
