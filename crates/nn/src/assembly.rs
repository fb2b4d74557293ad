//! A model put together from loose files: tensors that lie elsewhere and under other names, texts that lie nowhere, and
//! low-rank changes to tensors while they are read.

use crate::checkpoint::Checkpoint;
use crate::files::ModelFiles;
use crate::view::View;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What [`ModelFiles`] answers for a model whose files are not all in one folder.
#[derive(Clone)]
pub struct Assembly {
    /// Files that lie nowhere, by path.
    pub texts: BTreeMap<String, String>,
    /// Tensors of the components that have no folder of their own, by component.
    pub pieces: BTreeMap<String, Vec<Piece>>,
    /// What is added to tensors, by component.
    pub deltas: BTreeMap<String, Vec<Delta>>,
    /// Where everything else is.
    pub below: ModelFiles,
}

/// One tensor of a component.
#[derive(Clone)]
pub struct Piece {
    /// What the model calls it.
    pub name: String,
    pub checkpoint: Arc<Checkpoint>,
    /// What the checkpoint calls it.
    pub stored: String,
    pub view: View,
}

/// A low-rank change: `W + factor · up · down` (Hu et al., arXiv:2106.09685).
#[derive(Clone)]
pub struct Delta {
    /// The tensor that it changes.
    pub name: String,
    pub checkpoint: Arc<Checkpoint>,
    /// `(outputs, rank)` or `(outputs, rank, 1, 1)`, and which of its rows belong to the tensor.
    pub up: (String, View),
    /// `(rank, inputs)` or `(rank, inputs, side, side)`
    pub down: String,
    pub factor: f64,
}

/// Never prints weights.
impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let components: Vec<&String> = self.pieces.keys().collect();
        write!(f, "{components:?} over {:?}", self.below)
    }
}

impl Delta {
    /// Whether it is the same change.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let ((up, view), (other_up, other_view)) = (&self.up, &other.up);
        self.name == other.name
            && self.factor.to_bits() == other.factor.to_bits()
            && view == other_view
            && self.checkpoint.has_same(up, &other.checkpoint, other_up)
            && self.checkpoint.has_same(&self.down, &other.checkpoint, &other.down)
    }

    /// Adds the change to a tensor of this shape, row-major.
    pub(crate) fn add_to(&self, values: &mut [f32], shape: &[usize]) -> Result<()> {
        let (up, up_view) = &self.up;
        let wrong = || Error::Malformed {
            path: self.checkpoint.path().to_owned(),
            reason: format!("{up} and {} make no change to {} of shape {shape:?}", self.down, self.name),
        };
        let down_shape = self.checkpoint.shape(&self.down).ok_or_else(wrong)?;
        let (outputs, rank) = (*shape.first().ok_or_else(wrong)?, *down_shape.first().ok_or_else(wrong)?);
        let up = self.checkpoint.read(up, up_view)?;
        let down = self.checkpoint.read(&self.down, &View::whole(down_shape))?;
        let inputs = down.len().checked_div(rank).ok_or_else(wrong)?;
        if up.len() != outputs * rank || outputs * inputs != values.len() {
            return Err(wrong());
        }
        let up = Tensor::from_vec(up, (outputs, rank), &Device::Cpu)?;
        let down = Tensor::from_vec(down, (rank, inputs), &Device::Cpu)?;
        let change = (up.matmul(&down)? * self.factor)?.flatten_all()?.to_vec1::<f32>()?;
        for (value, change) in values.iter_mut().zip(change) {
            *value += change;
        }
        Ok(())
    }
}
