//! Reads the catalogue of apps from TOML: the built-in one, and an operator's own on top of it.

use crate::entry::{Entry, entries};
use crate::error::HubError;
use domain::catalogue::{App, Catalogue, Defaults, Mode, Preset, PromptRule, Scheduler, SizeRule};
use domain::fault::Invalid;
use domain::id::{AppId, ModelId};
use domain::limits::PROMPT_CHARS_MAX;
use domain::quantity::{GuidanceScale, Size, Steps, Strength};
use std::path::Path;

const BUILT_IN: &str = include_str!("../data/catalogue.toml");
/// Longest side that an operator's own app may list, pixels; a typing error must not ask for terabytes.
const LISTED_SIDE_PX_MAX: u32 = 4096;

/// The twelve apps of the Image to Image API.
pub fn built_in() -> Catalogue {
    parse("the built-in catalogue", BUILT_IN).expect("the built-in catalogue is valid, this is a bug")
}

/// The built-in apps and those of an operator's file; an entry with a built-in id takes its place.
pub fn with_file(path: &Path) -> Result<Catalogue, HubError> {
    let text = std::fs::read_to_string(path).map_err(|error| HubError::Unreadable(path.to_owned(), error))?;
    let file = path.display().to_string();
    let mut apps = built_in().apps().to_vec();
    for own in parse(&file, &text)?.apps() {
        match apps.iter_mut().find(|app| app.id == own.id) {
            Some(place) => *place = own.clone(),
            None => apps.push(own.clone()),
        }
    }
    Catalogue::new(apps).map_err(|twice| twice_named(&file, twice))
}

/// A catalogue of this text's apps alone; `file` is what errors call it.
pub fn parse(file: &str, text: &str) -> Result<Catalogue, HubError> {
    let apps: Vec<App> = entries(file, text, "app")?.into_iter().map(app).collect::<Result<_, _>>()?;
    Catalogue::new(apps).map_err(|twice| twice_named(file, twice))
}

fn twice_named(file: &str, twice: String) -> HubError {
    let problem = "an id or slug that another entry has".to_owned();
    HubError::Field { file: file.to_owned(), entry: format!("app {twice}"), field: "id, slug".to_owned(), problem }
}

fn app(mut entry: Entry) -> Result<App, HubError> {
    let id = entry.text("id")?;
    let id = AppId::parse(&id)
        .ok_or_else(|| entry.wrong("id", format!("got {id}; allowed: letters, digits, '-', '_' and '.'")))?;
    let app = App {
        id,
        slug: entry.text("slug")?,
        name: entry.text("name")?,
        models: models(&mut entry)?,
        mode: mode(&mut entry)?,
        size_rule: size_rule(&mut entry)?,
        prompt: prompt(&mut entry)?,
        deployed: entry.flag("deployed")?,
        defaults: defaults(&mut entry)?,
        preset: preset(&mut entry)?,
    };
    entry.nothing_else()?;
    Ok(app)
}

fn models(entry: &mut Entry) -> Result<Vec<ModelId>, HubError> {
    let texts = entry.texts("models")?;
    let read = |text: &String| {
        ModelId::parse(text).ok_or_else(|| entry.wrong("models", format!("{text} cannot be a model's id")))
    };
    texts.iter().map(read).collect()
}

fn mode(entry: &mut Entry) -> Result<Mode, HubError> {
    let name = entry.text("mode")?;
    let known = || Mode::ALL.map(Mode::as_str).join(", ");
    Mode::parse(&name).ok_or_else(|| entry.wrong("mode", format!("got {name}; allowed: {}", known())))
}

fn size_rule(entry: &mut Entry) -> Result<SizeRule, HubError> {
    let Some(texts) = entry.texts_if_any("sizes")? else { return Ok(SizeRule::TakesInput) };
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=LISTED_SIDE_PX_MAX).contains(side));
    let size = |text: &String| {
        let sides = text.split_once('x').and_then(|(width, height)| Some(Size::new(side(width)?, side(height)?)));
        let allowed = format!("WIDTHxHEIGHT, each side 1 to {LISTED_SIDE_PX_MAX}");
        sides.ok_or_else(|| entry.wrong("sizes", format!("got {text}; allowed: {allowed}")))
    };
    texts.iter().map(size).collect::<Result<_, _>>().map(SizeRule::OneOf)
}

fn prompt(entry: &mut Entry) -> Result<PromptRule, HubError> {
    match entry.text("prompt")?.as_str() {
        "required" => Ok(PromptRule::Required),
        "optional" => Ok(PromptRule::Optional),
        other => Err(entry.wrong("prompt", format!("got {other}; allowed: required or optional"))),
    }
}

fn defaults(entry: &mut Entry) -> Result<Defaults, HubError> {
    let guidance_scale = GuidanceScale::new(entry.number("guidance_scale")?);
    let steps = Steps::new(entry.whole("steps")?);
    let strength = Strength::new(entry.number("strength")?);
    // The file's own name of the field, which may differ from the wire's.
    let wrong = |field: &'static str| {
        let entry = &*entry;
        move |invalid: Invalid| entry.wrong(field, format!("got {}; allowed: {}", invalid.got, invalid.allowed))
    };
    Ok(Defaults {
        guidance_scale: guidance_scale.map_err(wrong("guidance_scale"))?,
        steps: steps.map_err(wrong("steps"))?,
        strength: strength.map_err(wrong("strength"))?,
    })
}

fn preset(entry: &mut Entry) -> Result<Preset, HubError> {
    let scheduler = entry.text_if_any("scheduler")?;
    let known = || Scheduler::ALL.map(Scheduler::as_str).join(", ");
    let wrong = |name: &str| entry.wrong("scheduler", format!("got {name}; allowed: {}", known()));
    let scheduler = scheduler.map(|name| Scheduler::parse(&name).ok_or_else(|| wrong(&name))).transpose()?;
    Ok(Preset {
        prompt_suffix: short_text(entry, "prompt_suffix")?,
        negative_prompt: short_text(entry, "negative_prompt")?,
        scheduler,
    })
}

fn short_text(entry: &mut Entry, field: &'static str) -> Result<Option<String>, HubError> {
    let text = entry.text_if_any(field)?;
    match text.as_ref().map(|text| text.chars().count()).filter(|n_chars| *n_chars > PROMPT_CHARS_MAX) {
        Some(n_chars) => {
            Err(entry.wrong(field, format!("got {n_chars} characters; allowed: at most {PROMPT_CHARS_MAX}")))
        }
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"
        [[app]]
        id = "ap-own"
        slug = "own"
        name = "Our Own"
        models = ["flux-dev"]
        mode = "plain"
        sizes = ["512x512"]
        prompt = "optional"
        deployed = false
        guidance_scale = 2
        steps = 8
        strength = 0.5
    "#;

    #[test]
    fn the_built_in_catalogue_has_the_twelve_apps() {
        let catalogue = built_in();
        let slugs: Vec<&str> = catalogue.apps().iter().map(|app| app.slug.as_str()).collect();
        assert_eq!(
            slugs,
            [
                "flux-dev",
                "ideogram-remix",
                "flux-redux",
                "flux-canny",
                "flux-depth",
                "flux-pulid",
                "sdxl",
                "turbo-vision",
                "qolaba-style",
                "cartoon",
                "realistic",
                "anime"
            ]
        );
        assert_eq!(catalogue.apps().iter().filter(|app| app.deployed).count(), 6);
        assert_eq!(catalogue.by_slug("flux-redux").unwrap().prompt, PromptRule::Optional);
        let canny = catalogue.by_id("ap-mNqZx4rtyjvbcfghwklpde").unwrap();
        assert_eq!((canny.defaults.steps.get(), canny.defaults.guidance_scale.get()), (50, 30.0));
    }

    #[test]
    fn every_model_of_the_built_in_catalogue_is_registered() {
        let registry = crate::registry::built_in();
        for app in built_in().apps() {
            for model in &app.models {
                assert!(registry.get(model).is_some(), "{model} of {}", app.slug);
            }
        }
    }

    #[track_caller]
    fn refused(from: &str, to: &str, expect: &str) {
        let text = OWN.replacen(from, to, 1);
        assert_ne!(text, OWN, "the test changes nothing");
        let error = parse("own.toml", &text).unwrap_err().to_string();
        assert_eq!(error, expect);
    }

    #[test]
    fn an_error_names_the_entry_the_field_and_what_is_allowed() {
        refused(
            "\"ap-own\"",
            "\"a b\"",
            "own.toml, app 1 (a b): id: got a b; allowed: letters, digits, '-', '_' and '.'",
        );
        refused("slug = \"own\"", "", "own.toml, app 1 (ap-own): slug: missing; allowed: text");
        refused("name =", "nam =", "own.toml, app 1 (ap-own): name: missing; allowed: text");
        refused(
            "steps = 8",
            "steps = 51",
            "own.toml, app 1 (ap-own): steps: got 51; allowed: a whole number from 1 to 50",
        );
        refused("steps = 8", "steps = \"8\"", "own.toml, app 1 (ap-own): steps: got \"8\"; allowed: a whole number");
        refused(
            "512x512",
            "512",
            "own.toml, app 1 (ap-own): sizes: got 512; allowed: WIDTHxHEIGHT, each side 1 to 4096",
        );
        refused(
            "\"plain\"",
            "\"plane\"",
            "own.toml, app 1 (ap-own): mode: got plane; allowed: plain, redux, canny, depth, pulid, remix",
        );
        refused(
            "[\"flux-dev\"]",
            "[]",
            "own.toml, app 1 (ap-own): models: got []; allowed: a list of texts that is not empty",
        );
        refused(
            "steps = 8",
            "steps = 8\nscheduler = \"ddim\"",
            "own.toml, app 1 (ap-own): scheduler: got ddim; allowed: euler, euler-ancestral, dpmpp-2m-karras",
        );
        refused(
            "deployed = false",
            "deployed = 0",
            "own.toml, app 1 (ap-own): deployed: got 0; allowed: true or false",
        );
        let unknown = OWN.replace("strength = 0.5", "strength = 0.5\nstrenght = 0.7");
        let error = parse("own.toml", &unknown).unwrap_err().to_string();
        assert!(error.starts_with("own.toml, app 1 (ap-own): strenght: unknown field; known are"), "{error}");
        let error = parse("own.toml", "[[apps]]").unwrap_err().to_string();
        assert_eq!(error, "own.toml: unknown key apps; allowed: [[app]] entries");
        assert!(parse("own.toml", "[[app").unwrap_err().to_string().starts_with("own.toml: "));
        let twice = format!("{OWN}{OWN}");
        assert!(parse("own.toml", &twice).unwrap_err().to_string().contains("app ap-own (own)"));
    }

    #[test]
    fn an_operators_file_adds_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.toml");
        let replaced = OWN.replace("ap-own", "ap-fGhKl3mfkdlpqrshuwwabc").replace("\"own\"", "\"flux-dev\"");
        std::fs::write(&path, format!("{OWN}{replaced}")).unwrap();
        let catalogue = with_file(&path).unwrap();
        assert_eq!(catalogue.apps().len(), 13);
        assert_eq!(catalogue.by_slug("flux-dev").unwrap().name, "Our Own");
        assert!(matches!(with_file(&dir.path().join("absent")), Err(HubError::Unreadable(..))));
    }
}
