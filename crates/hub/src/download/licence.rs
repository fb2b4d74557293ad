//! Which licences the operator has accepted, remembered beside the weights.

use super::error::PullError;
use super::staging::PULL_DIR;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "accepted-licences.txt";

/// Whether somebody has accepted the licence of this name for this folder of weights.
pub fn is_accepted(weights: &Path, licence: &str) -> Result<bool, PullError> {
    let path = weights.join(PULL_DIR).join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().any(|line| line == licence)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PullError::File(path, error)),
    }
}

pub fn accept(weights: &Path, licence: &str) -> Result<(), PullError> {
    if is_accepted(weights, licence)? {
        return Ok(());
    }
    let dir = weights.join(PULL_DIR);
    fs::create_dir_all(&dir).map_err(PullError::file(&dir))?;
    let path = dir.join(FILE);
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(format!("{licence}\n").as_bytes())).map_err(PullError::file(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_licence_is_remembered_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("not/yet");
        assert!(!is_accepted(&weights, "A Licence").unwrap());
        accept(&weights, "A Licence").unwrap();
        accept(&weights, "A Licence").unwrap();
        assert!(is_accepted(&weights, "A Licence").unwrap());
        assert!(!is_accepted(&weights, "A").unwrap() && !is_accepted(&weights, "Another").unwrap());
    }
}
