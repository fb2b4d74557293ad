//! The apps a client may name. The catalogue is data (`hub` reads it): a new app is a new entry, not new code.

use crate::id::{AppId, ModelId};
use crate::quantity::{GuidanceScale, Size, Steps, Strength};

/// All apps, in the order in which they are listed.
#[derive(Clone, Debug)]
pub struct Catalogue {
    apps: Vec<App>,
}

/// One entry: what a client may ask of it, and what is used where the client is silent.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    pub id: AppId,
    /// What people type: `flux-dev`.
    pub slug: String,
    /// What people read: `Flux Dev`.
    pub name: String,
    /// The weights that can serve it, best first; the first installed one does.
    pub models: Vec<ModelId>,
    pub mode: Mode,
    pub size_rule: SizeRule,
    pub prompt: PromptRule,
    /// Whether `inference_type` applies (the deployed, SDXL-family apps).
    pub deployed: bool,
    pub defaults: Defaults,
}

/// How the reference picture conditions the painting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Start from the noised reference.
    Plain,
    /// The reference's SigLIP tokens beside the text's.
    Redux,
    /// The reference's edges on the channels.
    Canny,
    /// The reference's depth on the channels.
    Depth,
    /// The reference's face.
    Pulid,
    /// Somebody else's API.
    Remix,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeRule {
    /// The result has the reference's dimensions, after fitting it within the limit.
    TakesInput,
    /// The request names one of these; the first is the default.
    OneOf(Vec<Size>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRule {
    Required,
    Optional,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    pub guidance_scale: GuidanceScale,
    pub steps: Steps,
    pub strength: Strength,
}

impl Catalogue {
    /// `Err` names an id or a slug that occurs twice.
    pub fn new(apps: Vec<App>) -> Result<Self, String> {
        for (idx, app) in apps.iter().enumerate() {
            let earlier = &apps[..idx];
            if earlier.iter().any(|other| other.id == app.id || other.slug == app.slug) {
                return Err(format!("{} ({})", app.id, app.slug));
            }
        }
        Ok(Self { apps })
    }

    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    pub fn by_id(&self, id: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.id.as_str() == id)
    }

    pub fn by_slug(&self, slug: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.slug == slug)
    }
}
