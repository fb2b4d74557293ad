//! A look inside a run: every tensor that the reference's recordings name, as it is made.

use candle_core::Tensor;
use models::probe::Probe;

/// Told of named tensors, under the names of the recorded runs.
pub trait Trace {
    fn see(&mut self, name: &str, tensor: &Tensor);
}

/// Looks away.
pub struct Untraced;

impl Trace for Untraced {
    fn see(&mut self, _name: &str, _tensor: &Tensor) {}
}

/// The blocks of one call of a model, under `blocks.`.
pub(crate) struct Blocks<'a>(pub(crate) &'a mut dyn Trace);

impl Probe for Blocks<'_> {
    fn see(&mut self, name: &str, tensor: &Tensor) {
        self.0.see(&format!("blocks.{name}"), tensor);
    }
}
