//! The cache that Hugging Face's own tools share: files by their hash, and by commit and path.

use super::{Plan, PlannedFile};
use std::path::PathBuf;

/// A folder of `models--owner--name` folders, read and never changed.
pub(super) struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Where this file may lie: its size fits, its content is not yet verified.
    pub(super) fn find(&self, plan: &Plan, file: &PlannedFile) -> Option<PathBuf> {
        let model = self.dir.as_ref()?.join(format!("models--{}", plan.repository.replace('/', "--")));
        let blob = model.join("blobs").join(file.checksum.as_str());
        // Where links cannot be made, the file itself lies in the snapshot.
        let snapshot = model.join("snapshots").join(&plan.commit).join(&file.path);
        [blob, snapshot].into_iter().find(|path| {
            // Links lead to what they are a name of.
            std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
        })
    }
}
