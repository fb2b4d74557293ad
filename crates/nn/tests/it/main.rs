//! The layers against the reference's.

mod blocks;
mod layers;
mod resampling;
