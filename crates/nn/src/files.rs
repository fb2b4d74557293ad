//! A model's files, in a folder, inside the binary or put together from loose ones: one loader for all.

use crate::assembly::Assembly;
use crate::{Error, Result};
use kernels::mapped::Mapped;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a model's files are. Paths within are relative, with `/`.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// A folder, or one file that holds all of a model's tensors, below which nothing lies.
    Folder(PathBuf),
    /// `(path, bytes)`
    Embedded(Arc<[(&'static str, &'static [u8])]>),
    /// Some of them elsewhere, in other layouts, or changed while they are read.
    Assembled(Arc<Assembly>),
}

/// The bytes of one file, mapped or in the binary.
#[derive(Clone, Debug)]
pub enum FileBytes {
    Mapped(Arc<Mapped>),
    Embedded(&'static [u8]),
}

impl ModelFiles {
    /// The bytes of a file; `None` if there is no such file.
    pub fn bytes(&self, path: &str) -> Result<Option<FileBytes>> {
        match self {
            Self::Folder(folder) => FileBytes::open(&folder.join(path)),
            Self::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                Ok(found.map(|(_, bytes)| FileBytes::Embedded(bytes)))
            }
            Self::Assembled(assembly) => assembly.below.bytes(path),
        }
    }

    /// The text of a file that must be there.
    pub fn text(&self, path: &str) -> Result<String> {
        self.optional_text(path)?.ok_or_else(|| self.malformed(path, "no such file".to_owned()))
    }

    pub fn optional_text(&self, path: &str) -> Result<Option<String>> {
        if let Self::Assembled(assembly) = self {
            return match assembly.texts.get(path) {
                Some(text) => Ok(Some(text.clone())),
                None => assembly.below.optional_text(path),
            };
        }
        // An empty file cannot be mapped on every system, so text is read, not mapped.
        if let Self::Folder(folder) = self {
            let path = folder.join(path);
            return match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if is_absent(&error) => Ok(None),
                Err(source) => Err(Error::File { path, source }),
            };
        }
        let Some(bytes) = self.bytes(path)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|error| self.malformed(path, error.to_string()))?;
        Ok(Some(text.to_owned()))
    }

    /// How errors name a file.
    pub fn display(&self, path: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(path).display().to_string(),
            Self::Embedded(_) => format!("embedded {path}"),
            Self::Assembled(assembly) => assembly.below.display(path),
        }
    }

    fn malformed(&self, path: &str, reason: String) -> Error {
        Error::Malformed { path: self.display(path), reason }
    }
}

impl FileBytes {
    /// Maps a file; `None` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        match Mapped::open(path) {
            Ok(mapped) => Ok(Some(Self::Mapped(Arc::new(mapped)))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(Error::File { path: path.to_owned(), source }),
        }
    }
}

/// Nothing lies below a model that is one file.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped,
            Self::Embedded(bytes) => bytes,
        }
    }
}
