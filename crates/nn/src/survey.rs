//! What an architecture asks of its weights, found by walking it: names and shapes, and nothing else.

use crate::{Result, Weights};
use std::collections::BTreeMap;

/// Names of tensors, and their shapes.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Builds the architecture once over weights that are not there, and returns what it asked for. What it built is of no
/// use, and takes little memory.
pub fn survey<T>(build: impl FnOnce(&Weights) -> Result<T>) -> Result<Shapes> {
    let weights = Weights::surveying();
    build(&weights)?;
    Ok(weights.asked())
}
