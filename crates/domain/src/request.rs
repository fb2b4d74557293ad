//! A request for pictures, valid by construction: `Draft` is what a client wrote, `GenerationRequest` what we accept.

use crate::catalogue::{App, Catalogue, Mode, PromptRule, SizeRule};
use crate::fault::Invalid;
use crate::id::AppId;
use crate::limits::{PROMPT_CHARS_MAX, REFERENCE_CHARS_MAX, URL_CHARS_MAX};
use crate::quantity::{Batch, GuidanceScale, Size, Steps, Strength};
use std::fmt;

const URLS_ALLOWED: &str = "an http, https or data: URL";

/// What a client wrote, each field of its right type but of any value. `None`: the client was silent.
#[derive(Clone, Default, PartialEq)]
pub struct Draft {
    pub app_id: Option<String>,
    pub image: Option<String>,
    pub control_image: Option<String>,
    pub prompt: Option<String>,
    pub guidance_scale: Option<f64>,
    pub batch: Option<i64>,
    pub strength: Option<f64>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub negative_prompt: Option<String>,
    pub inference_type: Option<String>,
    pub seed: Option<u64>,
    pub num_inference_steps: Option<i64>,
    pub output_format: Option<String>,
    pub reference_id: Option<String>,
}

/// An accepted request, defaults filled in.
#[derive(Clone, PartialEq)]
pub struct GenerationRequest {
    pub app: AppId,
    /// The reference picture as the client named it: an `http`, `https` or `data:` URL.
    pub image: String,
    /// A ready-made control picture, as `image`; only for apps that would make one of the reference.
    pub control_image: Option<String>,
    /// Empty only where the app allows it.
    pub prompt: String,
    pub negative_prompt: String,
    pub guidance_scale: GuidanceScale,
    pub strength: Strength,
    pub batch: Batch,
    pub steps: Steps,
    /// `None`: the reference picture's own size.
    pub size: Option<Size>,
    pub seed: u64,
    /// `None`: the app runs on whatever there is.
    pub inference_type: Option<InferenceType>,
    pub output_format: OutputFormat,
    /// The caller's own name for the task, echoed back.
    pub reference_id: Option<String>,
    /// Names of parameters that the client gave and the app does not use; told to the client, never dropped silently.
    pub ignored: Vec<String>,
}

/// Never prints what a client wrote: a prompt or a picture's URL in a log is a leak.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

/// As [`Draft`]'s.
impl fmt::Debug for GenerationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationRequest").field("app", &self.app).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// The class of GPU that a deployed app runs on, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InferenceType {
    A10g,
    A100,
    H100,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    Png,
    Jpeg,
    Webp,
}

impl GenerationRequest {
    /// Checks a draft against the catalogue and fills in the defaults; `fresh_seed` serves if the client named none.
    pub fn accept(draft: Draft, catalogue: &Catalogue, fresh_seed: u64) -> Result<Self, Invalid> {
        let app = known_app(draft.app_id.as_deref(), catalogue)?;
        let defaults = app.defaults;
        let (size, size_ignored) = size_for(app, draft.width, draft.height)?;
        let inference_type = draft.inference_type.as_deref().map(InferenceType::parse).transpose()?;
        let mut ignored = size_ignored;
        let control_image = draft.control_image.map(|url| picture_url("control_image", url)).transpose()?;
        let takes_control = matches!(app.mode, Mode::Canny | Mode::Depth);
        if control_image.is_some() && !takes_control {
            ignored.push("control_image".to_owned());
        }
        if inference_type.is_some() && !app.deployed {
            ignored.push("inference_type".to_owned());
        }
        Ok(Self {
            app: app.id.clone(),
            image: image_url(draft.image)?,
            control_image: control_image.filter(|_| takes_control),
            prompt: prompt_for(app, draft.prompt)?,
            negative_prompt: short_text("negative_prompt", draft.negative_prompt, PROMPT_CHARS_MAX)?
                .unwrap_or_default(),
            guidance_scale: draft.guidance_scale.map_or(Ok(defaults.guidance_scale), GuidanceScale::new)?,
            strength: draft.strength.map_or(Ok(defaults.strength), Strength::new)?,
            batch: draft.batch.map_or(Ok(Batch::ONE), Batch::new)?,
            steps: draft.num_inference_steps.map_or(Ok(defaults.steps), Steps::new)?,
            size,
            seed: draft.seed.unwrap_or(fresh_seed),
            inference_type: app.deployed.then_some(inference_type.unwrap_or(InferenceType::A10g)),
            output_format: draft.output_format.as_deref().map_or(Ok(OutputFormat::Png), OutputFormat::parse)?,
            reference_id: reference_id(draft.reference_id)?,
            ignored,
        })
    }
}

impl InferenceType {
    pub const ALL: [Self; 3] = [Self::A10g, Self::A100, Self::H100];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A10g => "a10g",
            Self::A100 => "a100",
            Self::H100 => "h100",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| Invalid::new("inference_type", text, "a10g, a100 or h100"))
    }
}

impl OutputFormat {
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::Webp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| Invalid::new("output_format", text, "png, jpeg or webp"))
    }
}

fn known_app<'a>(app_id: Option<&str>, catalogue: &'a Catalogue) -> Result<&'a App, Invalid> {
    let allowed = || {
        let ids: Vec<&str> = catalogue.apps().iter().map(|app| app.id.as_str()).collect();
        format!("one of {}", ids.join(", "))
    };
    let id = app_id.ok_or_else(|| Invalid::new("app_id", "nothing", allowed()))?;
    catalogue.by_id(id).ok_or_else(|| Invalid::new("app_id", id, allowed()))
}

fn image_url(image: Option<String>) -> Result<String, Invalid> {
    let image = image.ok_or_else(|| Invalid::new("image", "nothing", URLS_ALLOWED))?;
    picture_url("image", image)
}

fn picture_url(field: &'static str, image: String) -> Result<String, Invalid> {
    let scheme = image.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match scheme.as_str() {
        "data" => Ok(image),
        "http" | "https" if image.len() <= URL_CHARS_MAX => Ok(image),
        "http" | "https" => {
            let got = format!("{} characters", image.len());
            Err(Invalid::new(field, got, format!("a URL of at most {URL_CHARS_MAX} characters")))
        }
        _ => Err(Invalid::new(field, image, URLS_ALLOWED)),
    }
}

fn prompt_for(app: &App, prompt: Option<String>) -> Result<String, Invalid> {
    let prompt = short_text("prompt", prompt, PROMPT_CHARS_MAX)?.unwrap_or_default();
    if prompt.trim().is_empty() && app.prompt == PromptRule::Required {
        return Err(Invalid::new("prompt", "nothing", format!("1 to {PROMPT_CHARS_MAX} characters")));
    }
    Ok(prompt)
}

/// A caller's own reference, if it may be one.
pub fn reference_id(text: Option<String>) -> Result<Option<String>, Invalid> {
    short_text("ref_id", text, REFERENCE_CHARS_MAX)
}

/// The error counts the characters; it does not repeat them, since a prompt never leaves the request.
fn short_text(field: &'static str, text: Option<String>, chars_max: usize) -> Result<Option<String>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let n_chars = text.chars().count();
    if n_chars > chars_max {
        return Err(Invalid::new(field, format!("{n_chars} characters"), format!("at most {chars_max} characters")));
    }
    if text.contains('\0') {
        return Err(Invalid::new(field, "a NUL character", "text without NUL"));
    }
    Ok(Some(text))
}

/// The size to paint, and the size fields that the app ignores.
fn size_for(app: &App, width: Option<i64>, height: Option<i64>) -> Result<(Option<Size>, Vec<String>), Invalid> {
    match &app.size_rule {
        SizeRule::TakesInput => {
            let given = [("width", width), ("height", height)];
            for (field, value) in given {
                let Some(value) = value else { continue };
                // One side at a time, the other at a value that is always right.
                let checked = if field == "width" { Size::requested(value, 256) } else { Size::requested(256, value) };
                checked?;
            }
            let ignored = given.iter().filter(|(_, value)| value.is_some()).map(|(field, _)| (*field).to_owned());
            Ok((None, ignored.collect()))
        }
        SizeRule::OneOf(sizes) => listed_size(sizes, width, height).map(|size| (Some(size), Vec::new())),
    }
}

fn listed_size(sizes: &[Size], width: Option<i64>, height: Option<i64>) -> Result<Size, Invalid> {
    let allowed = || {
        let list: Vec<String> = sizes.iter().map(Size::to_string).collect();
        format!("width x height one of {}", list.join(", "))
    };
    let (width, height) = match (width, height) {
        (None, None) => return sizes.first().copied().ok_or_else(|| Invalid::new("width", "nothing", allowed())),
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => return Err(Invalid::new("height", format!("nothing beside width {width}"), allowed())),
        (None, Some(height)) => {
            return Err(Invalid::new("width", format!("nothing beside height {height}"), allowed()));
        }
    };
    sizes.iter().copied().find(|size| i64::from(size.width) == width && i64::from(size.height) == height).ok_or_else(
        || {
            let field = if sizes.iter().any(|size| i64::from(size.width) == width) { "height" } else { "width" };
            Invalid::new(field, format!("{width}x{height}"), allowed())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Defaults, Preset};
    use crate::id::ModelId;

    fn catalogue() -> Catalogue {
        let app = |id: &str, size_rule, prompt, deployed| App {
            id: AppId::parse(id).unwrap(),
            slug: id.to_owned(),
            name: id.to_owned(),
            models: vec![ModelId::parse("m").unwrap()],
            mode: Mode::Plain,
            size_rule,
            prompt,
            deployed,
            defaults: Defaults {
                guidance_scale: GuidanceScale::new(3.5).unwrap(),
                steps: Steps::new(28).unwrap(),
                strength: Strength::DEFAULT,
            },
            preset: Preset::default(),
        };
        let sizes = vec![Size::new(1024, 1024), Size::new(1600, 676)];
        Catalogue::new(vec![
            app("plain", SizeRule::TakesInput, PromptRule::Required, false),
            app("listed", SizeRule::OneOf(sizes), PromptRule::Optional, true),
        ])
        .unwrap()
    }

    fn draft(app: &str) -> Draft {
        Draft {
            app_id: Some(app.to_owned()),
            image: Some("https://example.com/a.png".to_owned()),
            prompt: Some("a cat".to_owned()),
            ..Draft::default()
        }
    }

    #[track_caller]
    fn refused(draft: Draft, field: &str) {
        let error = GenerationRequest::accept(draft, &catalogue(), 1).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }

    #[test]
    fn silence_takes_the_defaults() {
        let request = GenerationRequest::accept(draft("plain"), &catalogue(), 7).unwrap();
        assert_eq!((request.seed, request.batch.get(), request.steps.get()), (7, 1, 28));
        assert_eq!((request.strength.get(), request.size), (0.7, None));
        assert!(request.ignored.is_empty());
    }

    #[test]
    fn a_size_on_one_side_over_the_limit_is_valid_if_listed() {
        let sized = Draft { width: Some(1600), height: Some(676), ..draft("listed") };
        let request = GenerationRequest::accept(sized, &catalogue(), 1).unwrap();
        assert_eq!(request.size, Some(Size::new(1600, 676)));
        let default = GenerationRequest::accept(draft("listed"), &catalogue(), 1).unwrap();
        assert_eq!(default.size, Some(Size::new(1024, 1024)));
    }

    #[test]
    fn bad_values_name_their_field() {
        refused(Draft { app_id: None, ..draft("plain") }, "app_id");
        refused(draft("unknown"), "app_id");
        refused(Draft { image: None, ..draft("plain") }, "image");
        refused(Draft { image: Some("file:///etc/passwd".into()), ..draft("plain") }, "image");
        refused(Draft { image: Some(format!("http://{}", "a".repeat(9000))), ..draft("plain") }, "image");
        refused(Draft { prompt: None, ..draft("plain") }, "prompt");
        refused(Draft { prompt: Some("  ".into()), ..draft("plain") }, "prompt");
        refused(Draft { prompt: Some("x".repeat(4001)), ..draft("plain") }, "prompt");
        refused(Draft { width: Some(1024), height: Some(676), ..draft("listed") }, "height");
        refused(Draft { width: Some(1000), height: Some(676), ..draft("listed") }, "width");
        refused(Draft { width: Some(1024), ..draft("listed") }, "height");
        refused(Draft { width: Some(255), ..draft("plain") }, "width");
        refused(Draft { height: Some(1537), ..draft("plain") }, "height");
        refused(Draft { inference_type: Some("b200".into()), ..draft("listed") }, "inference_type");
        refused(Draft { output_format: Some("bmp".into()), ..draft("plain") }, "output_format");
    }

    #[test]
    fn an_optional_prompt_may_be_absent() {
        let request = GenerationRequest::accept(Draft { prompt: None, ..draft("listed") }, &catalogue(), 1).unwrap();
        assert_eq!(request.prompt, "");
    }

    #[test]
    fn a_parameter_that_the_app_ignores_is_reported() {
        let given =
            Draft { width: Some(512), height: Some(512), inference_type: Some("a100".into()), ..draft("plain") };
        let request = GenerationRequest::accept(given, &catalogue(), 1).unwrap();
        assert_eq!(request.ignored, ["width", "height", "inference_type"]);
        assert_eq!((request.size, request.inference_type), (None, None));
    }

    #[test]
    fn a_deployed_app_has_a_class_of_gpu_and_no_other_app_does() {
        let class = |app, named: Option<&str>| {
            let named = Draft { inference_type: named.map(str::to_owned), ..draft(app) };
            GenerationRequest::accept(named, &catalogue(), 1).unwrap().inference_type
        };
        assert_eq!(class("listed", None), Some(InferenceType::A10g));
        assert_eq!(class("listed", Some("h100")), Some(InferenceType::H100));
        assert_eq!(class("plain", None), None);
    }
}
