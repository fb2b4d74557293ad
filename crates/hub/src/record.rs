//! What a pull wrote down about a model's folder: which files make it whole, and what they hash to.

use crate::download::{is_safe, sha256_of};
use crate::error::HubError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// Beside the model's own files.
pub const RECORD_FILE: &str = "pentimento-pull.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `owner/name`.
    pub repository: String,
    /// As it was asked for.
    pub revision: String,
    pub commit: String,
    /// False while files are being put into their places.
    pub complete: bool,
    pub files: Vec<RecordedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFile {
    /// Relative, with `/` between its parts.
    pub path: String,
    pub bytes: u64,
    /// What the hub calls the content: its SHA-256, or git's id of it.
    pub content: String,
    pub sha256: String,
    /// It was there before the pull, which found it right: what the pull brought may be taken away, this not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_there: bool,
}

/// What is wrong with one file of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Missing,
    /// It has another size.
    Size,
    /// It has another content.
    Hash,
    /// It is there in its size and cannot be read: a disk's error, or another's permissions.
    Unreadable,
}

impl Record {
    /// `None` in a folder that no pull has made.
    pub fn read(dir: &Path) -> Result<Option<Self>, HubError> {
        let path = dir.join(RECORD_FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(HubError::Index { path, problem: error.to_string() }),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(HubError::Unreadable(path, error)),
        }
    }

    /// Takes the place of an earlier one at once.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{RECORD_FILE}.new"));
        let text = serde_json::to_vec_pretty(self).expect("a record can be written as JSON, this is a bug");
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(new, dir.join(RECORD_FILE))
    }

    /// Whether all files are there in their sizes. Hashes nothing.
    pub fn is_whole(&self, dir: &Path) -> bool {
        self.complete && self.files.iter().all(|file| file.look(dir).is_none())
    }

    /// Reads and hashes every file, telling of each. A folder with a damaged file is no longer taken for whole, so that
    /// the next pull mends it. Returns how many are damaged.
    pub fn verify(
        &mut self,
        dir: &Path,
        mut tell: impl FnMut(&RecordedFile, Option<Damage>),
    ) -> Result<usize, HubError> {
        let mut n_damaged = 0;
        for file in &self.files {
            let damage = file.verify(dir);
            n_damaged += usize::from(damage.is_some());
            tell(file, damage);
        }
        if n_damaged > 0 && self.complete {
            self.complete = false;
            self.write(dir).map_err(|error| HubError::Unreadable(dir.join(RECORD_FILE), error))?;
        }
        Ok(n_damaged)
    }

    /// The files that pulls have put there, by paths that lead out of no folder.
    pub(crate) fn brought(&self) -> impl Iterator<Item = &RecordedFile> {
        self.files.iter().filter(|file| is_safe(&file.path) && !file.was_there)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl RecordedFile {
    /// What a look at the file tells, without reading it.
    pub fn look(&self, dir: &Path) -> Option<Damage> {
        match fs::metadata(dir.join(&self.path)) {
            Ok(found) if found.is_file() && found.len() == self.bytes => None,
            Ok(_) => Some(Damage::Size),
            Err(_) => Some(Damage::Missing),
        }
    }

    /// Reads the file and hashes it.
    pub fn verify(&self, dir: &Path) -> Option<Damage> {
        self.look(dir).or_else(|| match sha256_of(&dir.join(&self.path)) {
            Ok(sha256) => (sha256 != self.sha256).then_some(Damage::Hash),
            Err(_) => Some(Damage::Unreadable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_a_whole_folder_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let sha256 = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447".to_owned();
        let file =
            RecordedFile { path: "vae/a".to_owned(), bytes: 12, content: sha256.clone(), sha256, was_there: false };
        let record = Record {
            repository: "o/n".to_owned(),
            revision: "main".to_owned(),
            commit: "0".repeat(40),
            complete: true,
            files: vec![file.clone()],
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record.clone()));
        let check = |content: Option<&str>, look: Option<Damage>, verify: Option<Damage>| {
            if let Some(content) = content {
                fs::create_dir_all(dir.path().join("vae")).unwrap();
                fs::write(dir.path().join("vae/a"), content).unwrap();
            }
            assert_eq!((file.look(dir.path()), file.verify(dir.path())), (look, verify), "{content:?}");
            assert_eq!(record.is_whole(dir.path()), look.is_none());
        };
        check(None, Some(Damage::Missing), Some(Damage::Missing));
        check(Some("hello"), Some(Damage::Size), Some(Damage::Size));
        check(Some("hello wurld\n"), None, Some(Damage::Hash));
        check(Some("hello world\n"), None, None);
        assert!(!Record { complete: false, ..record }.is_whole(dir.path()));
    }
}
