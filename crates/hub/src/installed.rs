//! Which weights lie on this machine: an operator's folder, and what travels inside the program; and which models of
//! others may be called from here.

use crate::error::HubError;
use crate::record::{RECORD_FILE, Record};
use crate::registry::{ModelEntry, Provider, Registry};
use domain::id::ModelId;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The file that every model in the diffusers layout has.
pub const INDEX_FILE: &str = "model_index.json";
/// The file of a model that is one component alone (a depth estimator), which has no index.
const COMPONENT_FILE: &str = "config.json";
/// What a file system of its own has in its root.
const LOST_AND_FOUND: &str = "lost+found";
/// What files of weights end in. What is in them is for engines to tell.
const WEIGHT_EXTENSIONS: [&str; 2] = ["safetensors", "gguf"];
/// The models that are always there, with their files.
static EMBEDDED: &[(&str, &[EmbeddedFile])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Where installed weights are.
#[derive(Clone, Debug)]
pub enum Installed {
    /// A folder in the diffusers layout, or of loose files.
    Folder(PathBuf),
    /// One file with all of a model.
    File(PathBuf),
    /// Inside the program; paths as in a folder.
    Embedded(&'static [EmbeddedFile]),
}

impl Installed {
    fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }
}

pub struct EmbeddedFile {
    /// Relative, with `/` between its parts.
    pub path: &'static str,
    pub bytes: &'static [u8],
}

/// Never prints weights.
impl std::fmt::Debug for EmbeddedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// The installed weights, by model.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// What a pull has to be told to fill the folder that was looked in; empty, if that is the usual one.
    pull_option: &'static str,
    models: BTreeMap<ModelId, Installed>,
    /// Remote models whose provider lets us in.
    remote: BTreeSet<ModelId>,
}

/// All that one engine is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub own: &'a Installed,
    /// What [`crate::registry::ModelEntry::base`] or, if it is installed, `lora_base` names.
    pub base: Option<&'a Installed>,
    /// The best installed one of [`crate::registry::ModelEntry::companions`].
    pub companion: Option<&'a Installed>,
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
}

impl Shelf {
    /// What travels inside the program, alone.
    pub fn embedded() -> Self {
        let is_whole = |files: &[EmbeddedFile]| files.iter().any(|file| file.path == INDEX_FILE);
        let id = |name: &str| ModelId::parse(name).expect("a valid id, this is a bug");
        let there = EMBEDDED.iter().filter(|(_, files)| is_whole(files));
        let models = there.map(|(name, files)| (id(name), Installed::Embedded(files))).collect();
        Self { pull_option: "", models, remote: BTreeSet::new() }
    }

    /// Also the models of a folder: a folder of model folders and of single files, each named by its model, or one
    /// model's own folder. A model in the folder goes before the embedded one of the same name. One that a pull has not
    /// completed is not there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, is a model that is not complete or not known, names a model twice, or holds other
    /// things and no model.
    pub fn open(dir: &Path, registry: &Registry) -> Result<Self, HubError> {
        let shelf = Self::open_usual(dir, registry)?;
        let is_bare = shelf.models.values().all(Installed::is_embedded);
        // An empty folder is a place for weights to come; one with other things in it is more likely a mistake.
        if is_bare && has_other_things(dir) {
            return Err(HubError::NoModel(dir.to_owned()));
        }
        Ok(shelf.filled_by(" --weights DIR"))
    }

    /// The same, with what a pull has to be told to fill its folder.
    #[must_use]
    pub fn filled_by(self, pull_option: &'static str) -> Self {
        Self { pull_option, ..self }
    }

    /// The same for the folder that a pull fills unless it is told of another: nobody named it, so that other things in
    /// it are no mistake.
    pub fn open_usual(dir: &Path, registry: &Registry) -> Result<Self, HubError> {
        let named = named_after(dir, registry);
        let dir = fs::canonicalize(dir).map_err(|error| HubError::Unreadable(dir.to_owned(), error))?;
        let mut shelf = Self::embedded();
        if dir.join(INDEX_FILE).is_file() {
            if !is_complete(&dir) {
                return Err(HubError::Incomplete(dir));
            }
            let model = named.map_or_else(|| model_of_pipeline(&dir, registry), Ok)?;
            shelf.models.insert(model, Installed::Folder(dir));
            return Ok(shelf);
        }
        if let Some(model) = named.filter(|_| has_loose_weights(&dir) && is_complete(&dir)) {
            shelf.models.insert(model, Installed::Folder(dir));
            return Ok(shelf);
        }
        let unreadable = |error| HubError::Unreadable(dir.clone(), error);
        for entry in fs::read_dir(&dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if let Some((id, installed)) = model_at(&path, registry) {
                shelf.add(id, installed)?;
            }
        }
        Ok(shelf)
    }

    /// Also the models of these providers, whose keys somebody has.
    #[must_use]
    pub fn with_remote(mut self, providers: &[Provider], registry: &Registry) -> Self {
        let callable = |model: &&ModelEntry| model.provider.is_some_and(|provider| providers.contains(&provider));
        self.remote.extend(registry.models().iter().filter(callable).map(|model| model.id.clone()));
        self
    }

    /// Whether this is a remote model that may be called.
    pub fn is_remote(&self, id: &ModelId) -> bool {
        self.remote.contains(id)
    }

    fn add(&mut self, id: ModelId, installed: Installed) -> Result<(), HubError> {
        let paths = |installed: &Installed| match installed {
            Installed::Folder(path) | Installed::File(path) => Some(path.clone()),
            Installed::Embedded(_) => None,
        };
        let added = paths(&installed);
        match (self.models.insert(id.clone(), installed).as_ref().and_then(paths), added) {
            (Some(first), Some(second)) => Err(HubError::Twice { model: id.to_string(), first, second }),
            _ => Ok(()),
        }
    }

    pub fn find(&self, id: &ModelId) -> Option<&Installed> {
        self.models.get(id)
    }

    /// What an engine for this model is made of; otherwise one sentence that says which command installs what is
    /// missing.
    pub fn parts(&self, id: &ModelId, registry: &Registry) -> Result<Parts<'_>, String> {
        let own = self.models.get(id).ok_or_else(|| self.how_to_install(id, registry))?;
        let Some(entry) = registry.get(id) else { return Ok(Parts { own, base: None, companion: None }) };
        let installed = |id: &ModelId| self.models.get(id).ok_or_else(|| self.how_to_install(id, registry));
        let base = entry.base.as_ref().map(installed).transpose()?;
        let companion = entry.companions.iter().find_map(|id| self.models.get(id));
        match (companion, entry.companions.first()) {
            (None, Some(best)) => Err(self.how_to_install(best, registry)),
            _ => Ok(Parts { own, base: base.or(self.lora_base(entry)), companion }),
        }
    }

    fn lora_base(&self, entry: &ModelEntry) -> Option<&Installed> {
        entry.lora_base.as_ref().and_then(|id| self.models.get(id))
    }

    pub fn list(&self) -> impl Iterator<Item = (&ModelId, &Installed)> {
        self.models.iter()
    }

    /// Whether the folder that was opened has one of these.
    pub fn has_any(&self, ids: &[ModelId]) -> bool {
        let on_disk = |id| self.find(id).is_some_and(|installed| !installed.is_embedded());
        ids.iter().any(on_disk)
    }

    /// The first of these that is installed with all that it needs, or may be called, and that this version can paint
    /// with; otherwise one sentence that says which command installs the first of them.
    pub fn usable(&self, ids: &[ModelId], registry: &Registry) -> Result<ModelId, String> {
        let paints = |id: &ModelId| registry.get(id).is_none_or(|model| model.paints);
        let is_there = |id: &ModelId| self.is_remote(id) || self.parts(id, registry).is_ok();
        if let Some(id) = ids.iter().find(|id| paints(id) && is_there(id)) {
            return Ok(id.clone());
        }
        let Some(first) = ids.first() else { return Err("no model serves this app".to_owned()) };
        let missing = if paints(first) { self.parts(first, registry).err() } else { None };
        let how = missing.unwrap_or_else(|| self.how_to_install(first, registry));
        let can_be_pulled =
            |id: &&ModelId| registry.get(id).is_some_and(|model| model.source.is_some() && model.paints);
        match ids.iter().find(can_be_pulled) {
            Some(other) if !can_be_pulled(&first) => {
                let place = self.pull_option;
                Err(format!("{how}; `pentimento pull {other}{place}` installs {other}, which serves this app too"))
            }
            _ => Err(how),
        }
    }

    /// One sentence: which command installs these weights, and whether that is of use.
    pub fn how_to_install(&self, id: &ModelId, registry: &Registry) -> String {
        let model = registry.get(id);
        let not_yet = "this version cannot paint with them yet";
        if let Some((remote, provider)) = model.and_then(|model| Some((model, model.provider?))) {
            return format!("{} is an API of its owner's, not weights; {}", remote.name, provider.how_to_configure());
        }
        let is_of_use = model.is_none_or(|model| model.paints);
        if self.models.contains_key(id) && !is_of_use {
            return format!("the weights of {id} are installed, but {not_yet}");
        }
        let how = match model.map(|model| (model.source.as_ref(), model.repository.as_ref(), model.note.as_ref())) {
            Some((Some(_), Some(repository), _)) => {
                let place = self.pull_option;
                let is_gated = model.is_some_and(|model| model.gated);
                let page = format!(", once their licence is accepted at https://huggingface.co/{repository}");
                let ask = if is_gated { page } else { String::new() };
                format!("`pentimento pull {id}{place}` installs them{ask}")
            }
            Some((None, Some(repository), _)) => format!("they are at https://huggingface.co/{repository}"),
            Some((_, None, Some(note))) => format!("they are {note}; put a copy into the folder of weights as {id}"),
            _ => format!("put a folder in the diffusers layout into the folder of weights as {id}"),
        };
        let then = if is_of_use { "then restart the server" } else { not_yet };
        format!("no weights for {id} are installed; {how}; {then}")
    }
}

/// A model folder or file within a folder of them.
fn model_at(path: &Path, registry: &Registry) -> Option<(ModelId, Installed)> {
    if is_weights(path) {
        return Some((name_of(path)?, Installed::File(path.to_owned())));
    }
    let id = name_of(path)?;
    let holds = holds_model(path, &id, registry) && is_complete(path);
    holds.then(|| (id, Installed::Folder(path.to_owned())))
}

/// Any folder with an index or with loose weights, and one with a single component if a model that we know has its name.
fn holds_model(dir: &Path, id: &ModelId, registry: &Registry) -> bool {
    let is_component = || registry.get(id).is_some() && dir.join(COMPONENT_FILE).is_file();
    dir.join(INDEX_FILE).is_file() || has_loose_weights(dir) || is_component()
}

/// Whether files of weights lie right in a folder.
pub fn has_loose_weights(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| is_weights(&entry.path()))
}

/// Whether a file's name says that it holds tensors.
pub fn is_weights(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| WEIGHT_EXTENSIONS.contains(&extension)) && path.is_file()
}

/// Whether there is anything besides models on their way, and what every file system or desktop leaves behind.
fn has_other_things(dir: &Path) -> bool {
    let is_usual = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with('.') || name == LOST_AND_FOUND || path.join(RECORD_FILE).exists()
    };
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| !is_usual(&entry.path()))
}

/// The known model that a folder or a file is named by, as we call it or as its repository is called. A link's own name
/// goes before that of what it leads to.
pub fn named_after(path: &Path, registry: &Registry) -> Option<ModelId> {
    let places = [std::path::absolute(path), fs::canonicalize(path)];
    places.into_iter().flatten().find_map(|path| Some(registry.named(file_name(&path)?)?.id.clone()))
}

/// What a folder or a file would be called as a model.
pub fn name_of(path: &Path) -> Option<ModelId> {
    file_name(path).and_then(ModelId::parse)
}

/// Without the extension of a file.
fn file_name(path: &Path) -> Option<&str> {
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    name?.to_str()
}

/// Whether all is there that a pull said it would bring; a folder that no pull made speaks for itself.
pub fn is_complete(dir: &Path) -> bool {
    match Record::read(dir) {
        Ok(Some(record)) => record.is_whole(dir),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// A folder that no model's name is on is known by its pipeline, where one model alone has that.
fn model_of_pipeline(dir: &Path, registry: &Registry) -> Result<ModelId, HubError> {
    let path = dir.join(INDEX_FILE);
    let wrong = |problem: String| HubError::Index { path: path.clone(), problem };
    let bytes = fs::read(&path).map_err(|error| HubError::Unreadable(path.clone(), error))?;
    let index: ModelIndex = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let class_name = &index.class_name;
    match registry.of_pipeline(class_name).as_slice() {
        [model] => Ok(model.id.clone()),
        [] => Err(wrong(format!("no app is served by a {class_name}; name the folder by its model"))),
        several => {
            let names: Vec<&str> = several.iter().map(|model| model.id.as_str()).collect();
            Err(wrong(format!("a {class_name} may be {}; name the folder by its model", names.join(" or "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn id(text: &str) -> ModelId {
        ModelId::parse(text).unwrap()
    }

    fn model_folder(dir: &Path, class_name: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(INDEX_FILE), format!(r#"{{"_class_name": "{class_name}", "vae": ["a", "b"]}}"#)).unwrap();
    }

    #[test]
    fn a_folder_of_folders_is_read_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        model_folder(&dir.path().join("flux-canny"), "FluxControlPipeline");
        model_folder(&dir.path().join("my-own"), "FluxPipeline");
        fs::create_dir(dir.path().join("flux-depth")).unwrap();
        let shelf = Shelf::open(dir.path(), &registry::built_in()).unwrap();
        assert!(matches!(shelf.find(&id("flux-canny")), Some(Installed::Folder(_))));
        assert!(shelf.find(&id("my-own")).is_some());
        assert!(shelf.find(&id("flux-depth")).is_none(), "a folder without an index is no model");
        let registry = registry::built_in();
        assert_eq!(shelf.usable(&[id("flux-dev"), id("my-own")], &registry), Ok(id("my-own")));
        assert!(shelf.usable(&[id("flux-dev")], &registry).is_err());
    }

    #[test]
    fn one_models_own_folder_is_known_by_its_name_or_its_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let check = |folder: &str, class_name: &str, expect: &str| {
            let path = dir.path().join(folder);
            model_folder(&path, class_name);
            let shelf = Shelf::open(&path, &registry::built_in()).unwrap();
            assert!(shelf.find(&id(expect)).is_some_and(|found| matches!(found, Installed::Folder(_))), "{folder}");
        };
        check("flux-schnell", "FluxPipeline", "flux-schnell");
        check("FLUX.1-dev", "FluxPipeline", "flux-dev");
        check("tiny-xl", "StableDiffusionXLPipeline", "sdxl-base");
        check("FLUX.1-Depth-dev", "FluxControlPipeline", "flux-depth");
        let refused = |folder: &str, class_name: &str| {
            let other = dir.path().join(folder);
            model_folder(&other, class_name);
            Shelf::open(&other, &registry::built_in()).unwrap_err().to_string()
        };
        let unknown = refused("other", "KandinskyPipeline");
        assert!(unknown.contains("no app is served by a KandinskyPipeline"), "{unknown}");
        let ambiguous = refused("control", "FluxControlPipeline");
        assert!(ambiguous.contains("may be flux-canny or flux-depth; name the folder"), "{ambiguous}");
    }

    #[cfg(unix)]
    #[test]
    fn a_links_own_name_goes_before_that_of_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let (canny, link) = (dir.path().join("flux-canny"), dir.path().join("flux-depth"));
        model_folder(&canny, "FluxControlPipeline");
        std::os::unix::fs::symlink(&canny, &link).unwrap();
        let registry = registry::built_in();
        assert_eq!(named_after(&link, &registry), Some(id("flux-depth")));
        assert!(Shelf::open(&link, &registry).unwrap().find(&id("flux-depth")).is_some());
        let other = dir.path().join("other");
        std::os::unix::fs::symlink(&canny, &other).unwrap();
        assert_eq!(named_after(&other, &registry), Some(id("flux-canny")));
        assert_eq!(named_after(&canny.join("."), &registry), Some(id("flux-canny")));
    }

    #[test]
    fn loose_files_are_models_by_the_name_of_their_folder_or_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        file("flux-dev/flux1-dev.gguf");
        file("flux-dev/ae.safetensors");
        file("sdxl-base.safetensors");
        file("cartoon/notes.txt");
        let shelf = Shelf::open(dir.path(), &registry::built_in()).unwrap();
        assert!(matches!(shelf.find(&id("flux-dev")), Some(Installed::Folder(_))));
        assert!(matches!(shelf.find(&id("sdxl-base")), Some(Installed::File(_))));
        assert!(shelf.find(&id("cartoon")).is_none());
        let one = Shelf::open(&dir.path().join("flux-dev"), &registry::built_in()).unwrap();
        assert!(one.find(&id("flux-dev")).is_some() && one.find(&id("ae")).is_none());
        file("sdxl-base/model_index.json");
        let error = Shelf::open(dir.path(), &registry::built_in()).unwrap_err().to_string();
        assert!(error.starts_with("sdxl-base is there twice: "), "{error}");
    }

    #[test]
    fn the_embedded_models_share_every_file_but_their_own() {
        let shelf = Shelf::embedded();
        let files = |model: &str| match shelf.find(&id(model)) {
            Some(Installed::Embedded(files)) => *files,
            other => panic!("{model}: {other:?}"),
        };
        let (nano, canny) = (files("pentimento-nano"), files("pentimento-nano-canny"));
        assert_eq!(nano.len(), canny.len());
        // Its text encoders are those that its transformer learned with.
        let own = ["transformer/", "text_encoder/model", "text_encoder_2/model"];
        let is_own = |path: &str| !path.contains('/') || own.iter().any(|begin| path.starts_with(begin));
        for (base, variant) in nano.iter().zip(canny) {
            assert_eq!(base.path, variant.path);
            if ["text_encoder/config.json", "text_encoder_2/config.json"].contains(&base.path) {
                // Two files of one content, which a linker may or may not keep apart.
                assert_eq!(base.bytes, variant.bytes, "{}", base.path);
            } else {
                assert_eq!(!is_own(base.path), std::ptr::eq(base.bytes, variant.bytes), "{}", base.path);
            }
        }
    }

    #[test]
    fn a_wrong_folder_is_an_error_and_an_empty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Shelf::open(dir.path(), &registry::built_in()).is_ok());
        for usual in [".pull", ".cache", LOST_AND_FOUND] {
            fs::create_dir(dir.path().join(usual)).unwrap();
        }
        assert!(Shelf::open(dir.path(), &registry::built_in()).is_ok(), "a pull has begun");
        fs::write(dir.path().join("notes.txt"), "hello").unwrap();
        assert!(matches!(Shelf::open(dir.path(), &registry::built_in()), Err(HubError::NoModel(_))));
        assert!(Shelf::open_usual(dir.path(), &registry::built_in()).is_ok(), "nobody named it");
        let absent = dir.path().join("absent");
        assert!(matches!(Shelf::open(&absent, &registry::built_in()), Err(HubError::Unreadable(..))));
    }

    #[test]
    fn the_message_for_absent_weights_names_a_command_and_whether_it_is_of_use() {
        let registry = registry::built_in();
        let message = |model: &str| Shelf::embedded().how_to_install(&id(model), &registry);
        assert_eq!(
            message("flux-dev"),
            "no weights for flux-dev are installed; `pentimento pull flux-dev` installs them, once their licence is \
             accepted at https://huggingface.co/black-forest-labs/FLUX.1-dev; then restart the server"
        );
        assert!(message("sdxl-turbo").contains("`pentimento pull sdxl-turbo` installs them; "), "it is not gated");
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Shelf::open(dir.path(), &registry).unwrap().how_to_install(&id("flux-dev"), &registry);
        assert!(elsewhere.contains("`pentimento pull flux-dev --weights DIR`"), "{elsewhere}");
        let path = dir.path().to_str().unwrap();
        assert!(!elsewhere.contains(path), "clients read this too");
        assert!(
            message("flux-pulid").ends_with("this version cannot paint with them yet"),
            "{}",
            message("flux-pulid")
        );
        assert!(
            message("cartoon").contains("any SDXL checkpoint, a folder or one file, or a LoRA for sdxl-base"),
            "{}",
            message("cartoon")
        );
        assert_eq!(
            message("ideogram-remix"),
            "Ideogram Remix is an API of its owner's, not weights; put its key into the environment variable \
             PENTIMENTO_IDEOGRAM_KEY, or name a file that holds it: --ideogram-key-file"
        );
        assert!(message("my-own").contains("into the folder of weights as my-own"));
    }

    #[test]
    fn an_addition_is_of_use_beside_its_base_only() {
        let dir = tempfile::tempdir().unwrap();
        model_folder(&dir.path().join("flux-redux"), "FluxPriorReduxPipeline");
        let registry = registry::built_in();
        let redux = id("flux-redux");
        let alone = Shelf::open(dir.path(), &registry).unwrap().parts(&redux, &registry).map(|_| ()).unwrap_err();
        assert!(alone.starts_with("no weights for flux-dev are installed"), "{alone}");
        model_folder(&dir.path().join("flux-dev"), "FluxPipeline");
        let shelf = Shelf::open(dir.path(), &registry).unwrap();
        let parts = shelf.parts(&redux, &registry).unwrap();
        assert!(matches!(parts.base, Some(Installed::Folder(folder)) if folder.ends_with("flux-dev")));
    }

    #[test]
    fn a_remote_model_is_of_use_once_its_provider_lets_us_in() {
        let registry = registry::built_in();
        let remix = id("ideogram-remix");
        let closed = Shelf::embedded().with_remote(&[], &registry);
        assert!(
            closed.usable(std::slice::from_ref(&remix), &registry).unwrap_err().contains("PENTIMENTO_IDEOGRAM_KEY")
        );
        let open = Shelf::embedded().with_remote(&[Provider::Ideogram], &registry);
        assert_eq!(open.usable(&[id("flux-dev"), remix.clone()], &registry), Ok(remix.clone()));
        assert!(open.is_remote(&remix) && !open.is_remote(&id("pentimento-nano")));
    }

    #[test]
    fn what_can_be_pulled_is_named_where_the_first_choice_cannot() {
        let registry = registry::built_in();
        let models = [id("turbo-vision"), id("sdxl-turbo")];
        let usual = Shelf::embedded().usable(&models, &registry).unwrap_err();
        assert!(usual.starts_with("no weights for turbo-vision are installed"), "{usual}");
        assert!(
            usual.ends_with("`pentimento pull sdxl-turbo` installs sdxl-turbo, which serves this app too"),
            "{usual}"
        );
        let told = Shelf::embedded().filled_by(" --data DIR").usable(&models, &registry).unwrap_err();
        assert!(told.contains("`pentimento pull sdxl-turbo --data DIR`"), "{told}");
    }

    #[test]
    fn a_model_is_of_use_beside_the_best_of_its_companions_only() {
        let dir = tempfile::tempdir().unwrap();
        model_folder(&dir.path().join("flux-depth"), "FluxControlPipeline");
        let registry = registry::built_in();
        let depth = id("flux-depth");
        let companion = || {
            let shelf = Shelf::open(dir.path(), &registry).unwrap();
            let parts = shelf.parts(&depth, &registry)?;
            match parts.companion {
                Some(Installed::Folder(folder)) => Ok(folder.file_name().unwrap().to_str().unwrap().to_owned()),
                other => panic!("{other:?}"),
            }
        };
        let alone: String = companion().unwrap_err();
        assert!(alone.starts_with("no weights for depth-anything-v2-large are installed"), "{alone}");
        assert!(!alone.contains("cannot paint"), "{alone}");
        for better in ["depth-anything-v2-small", "depth-anything-v2-base"] {
            fs::create_dir(dir.path().join(better)).unwrap();
            fs::write(dir.path().join(better).join(COMPONENT_FILE), "{}").unwrap();
            assert_eq!(companion().as_deref(), Ok(better));
        }
        fs::create_dir(dir.path().join("unknown")).unwrap();
        fs::write(dir.path().join("unknown").join(COMPONENT_FILE), "{}").unwrap();
        let shelf = Shelf::open(dir.path(), &registry).unwrap();
        assert!(shelf.find(&id("unknown")).is_none(), "a configuration alone may be anything");
    }

    #[test]
    fn weights_that_no_engine_takes_serve_nobody() {
        let dir = tempfile::tempdir().unwrap();
        model_folder(&dir.path().join("flux-pulid"), "FluxPulidPipeline");
        model_folder(&dir.path().join("flux-schnell"), "FluxPipeline");
        let registry = registry::built_in();
        let shelf = Shelf::open(dir.path(), &registry).unwrap();
        assert_eq!(shelf.usable(&[id("flux-dev"), id("flux-schnell")], &registry), Ok(id("flux-schnell")));
        let error = shelf.usable(&[id("flux-pulid")], &registry).unwrap_err();
        assert_eq!(error, "the weights of flux-pulid are installed, but this version cannot paint with them yet");
        assert!(shelf.usable(&[id("flux-dev")], &registry).unwrap_err().contains("pentimento pull flux-dev"));
    }
}
