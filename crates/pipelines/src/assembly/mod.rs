//! Models as people have them: a folder in the diffusers layout, loose files in any published layout, or one file.
//!
//! What a file holds is told from the names and shapes of its tensors, never from its own name. The result answers as a
//! folder in the diffusers layout would, so that engines know of no other: [`texts`] makes the files that are not there.

mod lora;
mod texts;
mod vocabulary;

pub use lora::{Lora, with_loras};

use hub::installed::{has_loose_weights, is_weights};
use models::layout::{self, Content, Part, Renamed, Shapes};
use nn::assembly::{Assembly, Piece};
use nn::checkpoint::Checkpoint;
use nn::files::{FileBytes, ModelFiles};
use nn::{Error, Result, Weights};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const INDEX: &str = "model_index.json";
/// Loose files that a folder is searched for; one with more is a collection, not a model.
const FILES_MAX: usize = 64;

/// What lies at a path.
#[derive(Debug)]
pub enum Opened {
    Model(ModelFiles),
    /// Nothing but changes to another model.
    Loras(Vec<PathBuf>),
}

/// The pipelines that loose files make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Flux,
    Sdxl,
    Redux,
}

/// One component, and the file that it was found in.
struct Found {
    checkpoint: Arc<Checkpoint>,
    tensors: Vec<Renamed>,
}

/// Opens a folder or a file. Weights in a component's own folder go before loose ones.
pub fn open(path: &Path) -> Result<Opened> {
    let folder = ModelFiles::Folder(path.to_owned());
    let has_folder = |part: Part| has_loose_weights(&path.join(part.component()));
    let index = index_of(&folder)?;
    let wanted = |part: Part| match &index {
        Some(index) => names_component(index, part) && !has_folder(part),
        None => !has_folder(part),
    };
    let loose = if path.is_dir() { loose_files(path)? } else { vec![path.to_owned()] };
    if loose.is_empty() || index.is_some() && !Part::ALL.into_iter().any(wanted) {
        return Ok(Opened::Model(folder));
    }
    let mut found: BTreeMap<Part, Found> = BTreeMap::new();
    let mut loras = Vec::new();
    for file in &loose {
        let checkpoint = Arc::new(open_checkpoint(file)?);
        let malformed = |reason: String| Error::Malformed { path: checkpoint.path().to_owned(), reason };
        match layout::recognize(&shapes_of(checkpoint.shapes())).map_err(malformed)? {
            Content::Lora => loras.push(file.clone()),
            Content::Parts(parts) => {
                for (part, tensors) in parts.into_iter().filter(|(part, _)| wanted(*part)) {
                    if let Some(other) = found.get(&part) {
                        return Err(malformed(format!("{} is in {} too", part.described(), other.checkpoint.path())));
                    }
                    found.insert(part, Found { checkpoint: Arc::clone(&checkpoint), tensors });
                }
            }
        }
    }
    if found.is_empty() && !loras.is_empty() && !Part::ALL.into_iter().any(has_folder) {
        return Ok(Opened::Loras(loras));
    }
    let is_there = |part: Part| found.contains_key(&part) || has_folder(part);
    let family = family(is_there).ok_or_else(|| incomplete(&folder, Family::Flux, is_there))?;
    let is_needed = |part: &Part| family.parts().contains(part);
    if !family.parts().iter().all(|part| is_there(*part)) {
        return Err(incomplete(&folder, family, is_there));
    }
    if let Some((part, found)) = found.iter().find(|(part, _)| !is_needed(part)) {
        let reason = format!("{}, which the model beside it does not take", part.described());
        return Err(Error::Malformed { path: found.checkpoint.path().to_owned(), reason });
    }
    let pieces = found.into_iter().map(|(part, found)| (part.component().to_owned(), found.pieces())).collect();
    let assembly = Assembly { texts: BTreeMap::new(), pieces, deltas: BTreeMap::new(), below: folder };
    texts::complete(assembly, family).map(|assembly| Opened::Model(ModelFiles::Assembled(Arc::new(assembly))))
}

impl Family {
    const fn parts(self) -> &'static [Part] {
        match self {
            Self::Flux => &[Part::FluxTransformer, Part::ClipL, Part::T5, Part::Vae],
            Self::Sdxl => &[Part::SdxlUnet, Part::ClipL, Part::ClipG, Part::Vae],
            Self::Redux => &[Part::ReduxEmbedder, Part::Siglip],
        }
    }
}

impl Found {
    fn pieces(self) -> Vec<Piece> {
        let piece = |Renamed { name, stored, view }| {
            let checkpoint = Arc::clone(&self.checkpoint);
            Piece { name, checkpoint, stored, view }
        };
        self.tensors.into_iter().map(piece).collect()
    }
}

fn family(is_there: impl Fn(Part) -> bool) -> Option<Family> {
    let denoisers = [
        (Part::FluxTransformer, Family::Flux),
        (Part::SdxlUnet, Family::Sdxl),
        (Part::ReduxEmbedder, Family::Redux),
        (Part::Siglip, Family::Redux),
    ];
    denoisers.into_iter().find(|(part, _)| is_there(*part)).map(|(_, family)| family)
}

/// Names every part that is missing, so that one look tells what to put beside the rest.
fn incomplete(folder: &ModelFiles, family: Family, is_there: impl Fn(Part) -> bool) -> Error {
    let missing = family.parts().iter().filter(|part| !is_there(**part));
    let missing: Vec<&str> = missing.map(|part| part.described()).collect();
    let reason = format!("not a whole model; put with it, in one folder: {}", missing.join("; "));
    Error::Malformed { path: folder.display("").trim_end_matches('/').to_owned(), reason }
}

fn open_checkpoint(file: &Path) -> Result<Checkpoint> {
    let path = file.display().to_string();
    let absent = || Error::Malformed { path: path.clone(), reason: "no such file".to_owned() };
    Checkpoint::open(path.clone(), FileBytes::open(file)?.ok_or_else(absent)?)
}

fn shapes_of<'a>(shapes: impl Iterator<Item = (&'a str, &'a [usize])>) -> Shapes {
    shapes.map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

/// Names and shapes of a component, wherever its tensors lie.
fn shapes_in(files: &ModelFiles, part: Part) -> Result<Shapes> {
    Ok(shapes_of(Weights::open(files, part.component())?.shapes()))
}

/// The files of tensors right in a folder, by name.
fn loose_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| Error::File { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_weights(&path) {
            files.push(path);
        }
    }
    if files.len() > FILES_MAX {
        let reason = format!("{} files of weights; allowed: {FILES_MAX}", files.len());
        return Err(Error::Malformed { path: folder.display().to_string(), reason });
    }
    files.sort();
    Ok(files)
}

fn index_of(folder: &ModelFiles) -> Result<Option<Value>> {
    let Some(text) = folder.optional_text(INDEX)? else { return Ok(None) };
    let malformed =
        |error: serde_json::Error| Error::Malformed { path: folder.display(INDEX), reason: error.to_string() };
    serde_json::from_str(&text).map(Some).map_err(malformed)
}

/// Whether the pipeline of an index takes this part. T5 and OpenCLIP have one folder and different classes.
fn names_component(index: &Value, part: Part) -> bool {
    let class = index[part.component()][1].as_str();
    match part {
        Part::T5 => class.is_some_and(|class| class.starts_with("T5")),
        Part::ClipG => class.is_some_and(|class| class.starts_with("CLIP")),
        _ => class.is_some(),
    }
}
