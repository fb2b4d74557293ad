//! The weights that can serve an app, whether or not they are installed.

use crate::entry::{Entry, entries};
use crate::error::HubError;
use domain::id::ModelId;

const BUILT_IN: &str = include_str!("../data/models.toml");

#[derive(Clone, Debug)]
pub struct Registry {
    models: Vec<ModelEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    pub id: ModelId,
    pub name: String,
    /// `owner/name` on huggingface.co.
    pub repository: Option<String>,
    pub licence: String,
    /// The owner wants to be asked before a download.
    pub gated: bool,
    /// This version can paint with them.
    pub paints: bool,
    pub origin: Origin,
    /// The model that these weights add to (Redux to FLUX.1); it must be installed too.
    pub base: Option<ModelId>,
    /// The model that a folder with nothing but a LoRA adds to.
    pub lora_base: Option<ModelId>,
    /// Models that help this one, best first (depth estimators); one of them must be installed.
    pub companions: Vec<ModelId>,
    /// How the pipeline's class in `model_index.json` begins.
    pub pipeline: Option<String>,
    pub note: Option<String>,
}

/// Where a model comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The weights travel inside the program.
    Embedded,
    /// The weights are to be put into a folder.
    Folder,
    /// Somebody else's API, not weights.
    Remote,
}

/// The weights that this version knows of.
pub fn built_in() -> Registry {
    parse("the built-in registry", BUILT_IN).expect("the built-in registry is valid, this is a bug")
}

fn parse(file: &str, text: &str) -> Result<Registry, HubError> {
    let models = entries(file, text, "model")?.into_iter().map(model).collect::<Result<_, _>>()?;
    Ok(Registry { models })
}

fn model(mut entry: Entry) -> Result<ModelEntry, HubError> {
    let id = entry.text("id")?;
    let model = ModelEntry {
        id: model_id(&entry, "id", &id)?,
        name: entry.text("name")?,
        repository: entry.text_if_any("repository")?,
        licence: entry.text("licence")?,
        gated: entry.flag("gated")?,
        paints: entry.flag("paints")?,
        origin: origin(&mut entry)?,
        base: entry.text_if_any("base")?.map(|id| model_id(&entry, "base", &id)).transpose()?,
        lora_base: entry.text_if_any("lora_base")?.map(|id| model_id(&entry, "lora_base", &id)).transpose()?,
        companions: companions(&mut entry)?,
        pipeline: entry.text_if_any("pipeline")?,
        note: entry.text_if_any("note")?,
    };
    entry.nothing_else()?;
    Ok(model)
}

fn model_id(entry: &Entry, field: &str, id: &str) -> Result<ModelId, HubError> {
    ModelId::parse(id).ok_or_else(|| entry.wrong(field, format!("{id} cannot be a model's id")))
}

fn companions(entry: &mut Entry) -> Result<Vec<ModelId>, HubError> {
    let ids = entry.texts_if_any("companions")?.unwrap_or_default();
    ids.iter().map(|id| model_id(entry, "companions", id)).collect()
}

fn origin(entry: &mut Entry) -> Result<Origin, HubError> {
    match entry.text_if_any("origin")?.as_deref() {
        None | Some("folder") => Ok(Origin::Folder),
        Some("embedded") => Ok(Origin::Embedded),
        Some("remote") => Ok(Origin::Remote),
        Some(other) => Err(entry.wrong("origin", format!("got {other}; allowed: folder, embedded or remote"))),
    }
}

impl Registry {
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    pub fn get(&self, id: &ModelId) -> Option<&ModelEntry> {
        self.models.iter().find(|model| model.id == *id)
    }

    /// The model whose pipeline this class name begins like; the longest match wins.
    pub fn of_pipeline(&self, class_name: &str) -> Option<&ModelEntry> {
        let matching = self.models.iter().filter_map(|model| {
            let prefix = model.pipeline.as_deref()?;
            class_name.starts_with(prefix).then_some((prefix.len(), model))
        });
        matching.max_by_key(|(length, _)| *length).map(|(_, model)| model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_known_by_the_longest_match() {
        let registry = built_in();
        let check = |class_name: &str, expect: Option<&str>| {
            let found = registry.of_pipeline(class_name).map(|model| model.id.as_str());
            assert_eq!(found, expect, "{class_name}");
        };
        check("FluxPipeline", Some("flux-dev"));
        check("FluxImg2ImgPipeline", Some("flux-dev"));
        check("FluxControlPipeline", Some("flux-canny"));
        check("FluxPriorReduxPipeline", Some("flux-redux"));
        check("StableDiffusionXLImg2ImgPipeline", Some("sdxl-base"));
        check("StableDiffusionPipeline", None);
    }

    #[test]
    fn every_model_that_another_needs_is_registered() {
        let registry = built_in();
        for model in registry.models() {
            for needed in model.base.iter().chain(&model.lora_base).chain(&model.companions) {
                assert!(registry.get(needed).is_some(), "{needed} of {}", model.id);
            }
        }
    }

    #[test]
    fn only_the_nano_model_is_embedded() {
        let registry = built_in();
        let is_embedded = |model: &&ModelEntry| model.origin == Origin::Embedded;
        let embedded: Vec<&str> = registry.models().iter().filter(is_embedded).map(|model| model.id.as_str()).collect();
        assert_eq!(embedded, ["pentimento-nano"]);
    }
}
