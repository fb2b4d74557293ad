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

/// What a model sees of itself, under `prefix` and a point.
pub(crate) struct Prefixed<'a> {
    pub(crate) prefix: &'static str,
    pub(crate) trace: &'a mut dyn Trace,
}

impl Probe for Prefixed<'_> {
    fn see(&mut self, name: &str, tensor: &Tensor) {
        self.trace.see(&format!("{}.{name}", self.prefix), tensor);
    }
}
