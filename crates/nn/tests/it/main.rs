//! The layers against the reference's.

mod layers;
mod resampling;
