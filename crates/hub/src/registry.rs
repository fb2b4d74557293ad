//! The weights that can serve an app, whether or not they are installed.

use crate::download::Sha256Hex;
use crate::entry::{Entry, entries};
use crate::error::HubError;
use crate::pattern::Pattern;
use domain::id::ModelId;

const BUILT_IN: &str = include_str!("../data/models.toml");
const BUILT_IN_FILES: &str = include_str!("../data/files.toml");

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
    /// Who paints, if it is a remote model.
    pub provider: Option<Provider>,
    /// The model that these weights add to (Redux to FLUX.1); it must be installed too.
    pub base: Option<ModelId>,
    /// The model that a folder with nothing but a LoRA adds to.
    pub lora_base: Option<ModelId>,
    /// Models that help this one, best first (depth estimators); one of them must be installed.
    pub companions: Vec<ModelId>,
    /// How the pipeline's class in `model_index.json` begins.
    pub pipeline: Option<String>,
    pub note: Option<String>,
    /// What `pull` fetches; none: it cannot be pulled.
    pub source: Option<Source>,
}

/// What of a repository this program reads, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `owner/name` on huggingface.co.
    pub repository: String,
    /// A commit; or a branch, where no commit is known to us.
    pub revision: String,
    /// Each matches at least one file of the repository.
    pub files: Vec<Pattern>,
    /// What is known of single files at this revision.
    pub known: Vec<KnownFile>,
    pub licence_url: String,
    /// The licence refuses commercial use.
    pub non_commercial: bool,
}

/// What a file must be, whatever its hub says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    pub path: String,
    pub bytes: Option<u64>,
    /// 64 hexadecimal digits in lower case.
    pub sha256: Option<String>,
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

/// Somebody whose API this version speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Ideogram,
}

impl Provider {
    pub const ALL: [Self; 1] = [Self::Ideogram];

    /// As data, options and environment variables spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ideogram => "ideogram",
        }
    }

    /// How an operator gives the server a key.
    pub fn how_to_configure(self) -> String {
        let name = self.as_str();
        let variable = format!("PENTIMENTO_{}_KEY", name.to_ascii_uppercase());
        format!("put its key into the environment variable {variable}, or name a file that holds it: --{name}-key-file")
    }
}

/// The weights that this version knows of.
pub fn built_in() -> Registry {
    let mut registry = parse("the built-in registry", BUILT_IN).expect("the built-in registry is valid, this is a bug");
    add_files(&mut registry, "the built-in list of files", BUILT_IN_FILES)
        .expect("the built-in list of files is valid, this is a bug");
    registry
}

/// A registry of this text's models alone; `file` is what errors call it.
pub fn parse(file: &str, text: &str) -> Result<Registry, HubError> {
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
        provider: provider(&mut entry)?,
        base: entry.text_if_any("base")?.map(|id| model_id(&entry, "base", &id)).transpose()?,
        lora_base: entry.text_if_any("lora_base")?.map(|id| model_id(&entry, "lora_base", &id)).transpose()?,
        companions: companions(&mut entry)?,
        pipeline: entry.text_if_any("pipeline")?,
        note: entry.text_if_any("note")?,
        source: source(&mut entry)?,
    };
    entry.nothing_else()?;
    if (model.origin == Origin::Remote) != model.provider.is_some() {
        return Err(entry.wrong("provider", "a remote model has one, and no other"));
    }
    Ok(model)
}

fn model_id(entry: &Entry, field: &str, id: &str) -> Result<ModelId, HubError> {
    ModelId::parse(id).ok_or_else(|| entry.wrong(field, format!("{id} cannot be a model's id")))
}

fn companions(entry: &mut Entry) -> Result<Vec<ModelId>, HubError> {
    let ids = entry.texts_if_any("companions")?.unwrap_or_default();
    ids.iter().map(|id| model_id(entry, "companions", id)).collect()
}

fn source(entry: &mut Entry) -> Result<Option<Source>, HubError> {
    let Some(files) = entry.texts_if_any("files")? else { return Ok(None) };
    let pattern = |text: &String| {
        Pattern::parse(text).ok_or_else(|| entry.wrong("files", format!("{text} is no path within a repository")))
    };
    let files = files.iter().map(pattern).collect::<Result<_, _>>()?;
    Ok(Some(Source {
        repository: entry.text("repository")?,
        revision: entry.text("revision")?,
        files,
        known: Vec::new(),
        licence_url: entry.text("licence_url")?,
        non_commercial: entry.flag("non_commercial")?,
    }))
}

fn add_files(registry: &mut Registry, file: &str, text: &str) -> Result<(), HubError> {
    for mut entry in entries(file, text, "file")? {
        let model = entry.text("model")?;
        let known = known_file(&mut entry)?;
        let place = registry.models.iter_mut().find(|place| place.id.as_str() == model);
        let source = place.and_then(|place| place.source.as_mut());
        let Some(source) = source.filter(|source| source.files.iter().any(|pattern| pattern.matches(&known.path)))
        else {
            return Err(entry.wrong("path", format!("{} is no file that {model} needs", known.path)));
        };
        source.known.push(known);
    }
    Ok(())
}

fn known_file(entry: &mut Entry) -> Result<KnownFile, HubError> {
    let path = entry.text("path")?;
    let bytes = entry.whole_if_any("bytes")?;
    let bytes = bytes.map(|bytes| u64::try_from(bytes).map_err(|_| entry.wrong("bytes", "below zero"))).transpose()?;
    let sha256 = entry.text_if_any("sha256")?;
    if let Some(wrong) = sha256.as_ref().filter(|text| Sha256Hex::parse(text).is_none()) {
        return Err(entry.wrong("sha256", format!("got {wrong}; allowed: 64 hexadecimal digits in lower case")));
    }
    if bytes.is_none() && sha256.is_none() {
        return Err(entry.wrong("bytes, sha256", "missing; allowed: at least one of them"));
    }
    entry.nothing_else()?;
    Ok(KnownFile { path, bytes, sha256 })
}

fn origin(entry: &mut Entry) -> Result<Origin, HubError> {
    match entry.text_if_any("origin")?.as_deref() {
        None | Some("folder") => Ok(Origin::Folder),
        Some("embedded") => Ok(Origin::Embedded),
        Some("remote") => Ok(Origin::Remote),
        Some(other) => Err(entry.wrong("origin", format!("got {other}; allowed: folder, embedded or remote"))),
    }
}

fn provider(entry: &mut Entry) -> Result<Option<Provider>, HubError> {
    let Some(name) = entry.text_if_any("provider")? else { return Ok(None) };
    let known = || Provider::ALL.map(Provider::as_str).join(", ");
    let found = Provider::ALL.into_iter().find(|provider| provider.as_str() == name);
    found.map(Some).ok_or_else(|| entry.wrong("provider", format!("got {name}; allowed: {}", known())))
}

impl Registry {
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    pub fn get(&self, id: &ModelId) -> Option<&ModelEntry> {
        self.models.iter().find(|model| model.id == *id)
    }

    /// The model of this id, or of the repository that has this name at any owner's.
    pub fn named(&self, name: &str) -> Option<&ModelEntry> {
        let is_called = |repository: &String| repository.rsplit('/').next() == Some(name);
        self.models.iter().find(|model| model.id.as_str() == name || model.repository.as_ref().is_some_and(is_called))
    }

    /// The models whose pipeline this class name begins like; the longest match wins.
    pub fn of_pipeline(&self, class_name: &str) -> Vec<&ModelEntry> {
        let length = |model: &ModelEntry| {
            model.pipeline.as_deref().filter(|prefix| class_name.starts_with(prefix)).map(str::len)
        };
        let Some(longest) = self.models.iter().filter_map(length).max() else { return Vec::new() };
        self.models.iter().filter(|model| length(model) == Some(longest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_known_by_the_longest_match() {
        let registry = built_in();
        let check = |class_name: &str, expect: &[&str]| {
            let found: Vec<&str> =
                registry.of_pipeline(class_name).into_iter().map(|model| model.id.as_str()).collect();
            assert_eq!(found, expect, "{class_name}");
        };
        check("FluxPipeline", &["flux-dev"]);
        check("FluxImg2ImgPipeline", &["flux-dev"]);
        check("FluxControlPipeline", &["flux-canny", "flux-depth"]);
        check("FluxPriorReduxPipeline", &["flux-redux"]);
        check("StableDiffusionXLImg2ImgPipeline", &["sdxl-base"]);
        check("StableDiffusionPipeline", &[]);
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
    fn a_remote_model_names_a_provider_and_no_other_does() {
        let text = |more: &str| {
            let fields = "id = \"m\"\nname = \"M\"\nlicence = \"L\"\ngated = false\npaints = true\n";
            format!("[[model]]\n{fields}{more}")
        };
        let remote = parse("f", &text("origin = \"remote\"\nprovider = \"ideogram\"")).unwrap();
        assert_eq!(remote.models()[0].provider, Some(Provider::Ideogram));
        for more in ["origin = \"remote\"", "provider = \"ideogram\"", "origin = \"remote\"\nprovider = \"x\""] {
            let error = parse("f", &text(more)).unwrap_err().to_string();
            assert!(error.starts_with("f, model 1 (m): provider: "), "{error}");
        }
    }

    #[test]
    fn only_the_nano_models_are_embedded() {
        let registry = built_in();
        let is_embedded = |model: &&ModelEntry| model.origin == Origin::Embedded;
        let embedded: Vec<&str> = registry.models().iter().filter(is_embedded).map(|model| model.id.as_str()).collect();
        assert_eq!(embedded, ["pentimento-nano", "pentimento-nano-canny"]);
    }

    #[test]
    fn what_can_be_pulled_is_named_by_commit_or_branch_and_has_its_terms() {
        let registry = built_in();
        let pullable: Vec<&ModelEntry> = registry.models().iter().filter(|model| model.source.is_some()).collect();
        for id in ["flux-dev", "flux-schnell", "flux-redux", "flux-canny", "flux-depth", "sdxl-base", "sdxl-turbo"] {
            assert!(pullable.iter().any(|model| model.id.as_str() == id), "{id}");
        }
        for model in pullable {
            let source = model.source.as_ref().unwrap();
            let is_commit = source.revision.len() == 40 && source.revision.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_commit || source.revision == "main", "{}: {}", model.id, source.revision);
            assert!(source.licence_url.starts_with("https://"), "{}", model.id);
            assert!(
                is_commit || source.known.is_empty(),
                "{}: a branch moves on, and what is known would not",
                model.id
            );
        }
    }

    #[test]
    fn a_mistake_in_a_source_names_the_field() {
        let entry = |more: &str| {
            format!(
                "[[model]]\nid = 'a'\nname = 'A'\nlicence = 'MIT'\ngated = false\npaints = true\nrepository = 'o/a'\n\
                 revision = 'main'\nlicence_url = 'https://x'\nnon_commercial = false\n{more}\n"
            )
        };
        let read = |more: &str| parse("test", &entry(more));
        assert!(read("files = ['*.json']").is_ok());
        assert!(read("files = ['../*.json']").unwrap_err().to_string().contains("files: ../*.json is no path"));
        let stray = read("").unwrap_err().to_string();
        assert!(stray.contains("unknown field"), "terms without files are a mistake: {stray}");
        let mut registry = read("files = ['*.json']").unwrap();
        let mut add = |text: &str| add_files(&mut registry, "files", text).map_err(|error| error.to_string());
        assert!(add("[[file]]\nmodel = 'a'\npath = 'x.json'\nbytes = 3\n").is_ok());
        for (text, problem) in [
            ("[[file]]\nmodel = 'a'\npath = 'x.bin'\nbytes = 3\n", "no file that a needs"),
            ("[[file]]\nmodel = 'b'\npath = 'x.json'\nbytes = 3\n", "no file that b needs"),
            ("[[file]]\nmodel = 'a'\npath = 'x.json'\nbytes = -3\n", "bytes: below zero"),
            ("[[file]]\nmodel = 'a'\npath = 'x.json'\nsha256 = 'ABC'\n", "64 hexadecimal digits"),
            ("[[file]]\nmodel = 'a'\npath = 'x.json'\n", "at least one"),
        ] {
            let error = add(text).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
