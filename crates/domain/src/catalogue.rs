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
    pub preset: Preset,
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

impl Mode {
    pub const ALL: [Self; 6] = [Self::Plain, Self::Redux, Self::Canny, Self::Depth, Self::Pulid, Self::Remix];

    /// As the catalogue's files spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Redux => "redux",
            Self::Canny => "canny",
            Self::Depth => "depth",
            Self::Pulid => "pulid",
            Self::Remix => "remix",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
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

/// What an app adds to every request: a style is a preset, not a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preset {
    /// Follows the client's prompt.
    pub prompt_suffix: Option<String>,
    /// Joins what the client wants to avoid.
    pub negative_prompt: Option<String>,
    /// In place of the one that the model's folder names.
    pub scheduler: Option<Scheduler>,
}

/// How noise is taken away, for models whose folder leaves the choice (SDXL's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    Euler,
    EulerAncestral,
    DpmPlusPlus2mKarras,
}

impl Preset {
    /// The prompt to paint from.
    pub fn prompt(&self, prompt: &str) -> String {
        joined(prompt, self.prompt_suffix.as_deref()).unwrap_or_default()
    }

    /// What to avoid; `None`: nothing at all, which need not be computed.
    pub fn negative_prompt(&self, negative_prompt: Option<&str>) -> Option<String> {
        match (negative_prompt, &self.negative_prompt) {
            (Some(""), None) => Some(String::new()),
            (given, preset) => joined(given.unwrap_or_default(), preset.as_deref()),
        }
    }
}

impl Scheduler {
    pub const ALL: [Self; 3] = [Self::Euler, Self::EulerAncestral, Self::DpmPlusPlus2mKarras];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::DpmPlusPlus2mKarras => "dpmpp-2m-karras",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheduler| scheduler.as_str() == text)
    }
}

/// The texts that say something, with a comma between them.
fn joined(text: &str, more: Option<&str>) -> Option<String> {
    let said: Vec<&str> = [text, more.unwrap_or_default()].into_iter().filter(|text| !text.trim().is_empty()).collect();
    (!said.is_empty()).then(|| said.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_adds_to_what_a_client_says() {
        let text = |text: &str| Some(text.to_owned());
        let preset = Preset { prompt_suffix: text("oil painting"), negative_prompt: text("blurry"), scheduler: None };
        assert_eq!(preset.prompt("a cat"), "a cat, oil painting");
        assert_eq!(preset.prompt(" "), "oil painting");
        assert_eq!(preset.negative_prompt(Some("dogs")), text("dogs, blurry"));
        assert_eq!(preset.negative_prompt(None), text("blurry"));
    }

    #[test]
    fn without_a_preset_an_absent_negative_prompt_is_not_an_empty_one() {
        let none = Preset::default();
        assert_eq!(none.prompt("a cat"), "a cat");
        assert_eq!(none.negative_prompt(None), None);
        assert_eq!(none.negative_prompt(Some("")), Some(String::new()));
    }
}
