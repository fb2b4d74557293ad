//! Which apps can be served here now: the question that `app` asks of the engines, which it does not know.

use domain::catalogue::App;
use domain::id::ModelId;

pub trait Availability: Send + Sync {
    /// The model that would serve this app; otherwise one sentence that says which command installs its weights.
    fn model_for(&self, app: &App) -> Result<ModelId, String>;
}
