//! Control pictures: what a control model paints under, made of the reference or given ready-made.

use crate::cache::Cache;
use crate::residency::{Component, Residency};
use domain::catalogue::Mode;
use engine::{EngineError, Plan};
use imaging::Picture;
use nn::Result;
use std::sync::Arc;

/// Makes control pictures.
pub(crate) trait Preprocessor: Send {
    /// The control picture of a reference, in the reference's size.
    fn control(&self, reference: &Picture) -> Result<Picture>;

    /// The weights that it needs, if it needs any.
    fn component(&self) -> Option<&dyn Component> {
        None
    }
}

/// Edges, found with the thresholds that FLUX.1 Canny was trained with.
pub(crate) struct Edges {
    cache: Arc<Cache>,
}

impl Edges {
    pub(crate) fn new(residency: &Residency) -> Self {
        Self { cache: Arc::clone(residency.cache()) }
    }
}

impl Preprocessor for Edges {
    fn control(&self, reference: &Picture) -> Result<Picture> {
        let found = || Ok(imaging::canny(reference, imaging::Canny::default()));
        self.cache.get_or("edges", |print| print.picture(reference), found)
    }
}

/// Where a run's control picture comes from.
#[derive(Clone, Copy)]
pub(crate) enum Control<'a> {
    /// The caller has made it.
    Given(&'a Picture),
    /// Of the reference.
    Made(&'a dyn Preprocessor),
}

impl<'a> Control<'a> {
    /// What the plan wants; `depth` is the estimator that is installed beside the model.
    pub(crate) fn of(
        plan: &'a Plan,
        edges: &'a Edges,
        depth: Option<&'a dyn Preprocessor>,
    ) -> std::result::Result<Self, EngineError> {
        let refused = |reason: &str| Err(EngineError::Refused(reason.to_owned()));
        if let Some(picture) = &plan.control_image {
            return Ok(Self::Given(picture));
        }
        let maker: &dyn Preprocessor = match (plan.mode, depth) {
            (Mode::Canny, _) => edges,
            (Mode::Depth, Some(depth)) => depth,
            (Mode::Depth, None) => {
                return refused(
                    "mode: got depth, but no depth estimator is installed; allowed: canny, or a control_image",
                );
            }
            (other, _) => {
                return Err(EngineError::Refused(format!(
                    "mode: got {}; this model paints under a control picture: use the app flux-canny or flux-depth (mode \
                     canny or depth), or give a control_image",
                    other.as_str()
                )));
            }
        };
        match plan.source {
            Some(_) => Ok(Self::Made(maker)),
            None => refused("image: without a reference or a control_image there is nothing to paint under"),
        }
    }
}
