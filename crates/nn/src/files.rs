//! A model's files, in a folder or inside the binary: one loader for both.

use crate::{Error, Result};
use kernels::mapped::Mapped;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a model's files are. Paths within are relative, with `/`.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    Folder(PathBuf),
    /// `(path, bytes)`
    Embedded(Arc<[(&'static str, &'static [u8])]>),
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
            Self::Folder(folder) => {
                let path = folder.join(path);
                match Mapped::open(&path) {
                    Ok(mapped) => Ok(Some(FileBytes::Mapped(Arc::new(mapped)))),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(Error::File { path, source }),
                }
            }
            Self::Embedded(files) => {
                let found = files.iter().find(|(name, _)| *name == path);
                Ok(found.map(|(_, bytes)| FileBytes::Embedded(bytes)))
            }
        }
    }

    /// The text of a file that must be there.
    pub fn text(&self, path: &str) -> Result<String> {
        self.optional_text(path)?.ok_or_else(|| self.malformed(path, "no such file".to_owned()))
    }

    pub fn optional_text(&self, path: &str) -> Result<Option<String>> {
        // An empty file cannot be mapped on every system, so text is read, not mapped.
        if let Self::Folder(folder) = self {
            let path = folder.join(path);
            return match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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
        }
    }

    fn malformed(&self, path: &str, reason: String) -> Error {
        Error::Malformed { path: self.display(path), reason }
    }
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
