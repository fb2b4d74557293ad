//! A component's own `config.json`.

use nn::files::ModelFiles;
use nn::{Error, Result};
use serde::de::DeserializeOwned;

/// Reads `component/name` as a configuration; the error names the file and the field.
pub fn read<T: DeserializeOwned>(files: &ModelFiles, component: &str, name: &str) -> Result<T> {
    let path = format!("{component}/{name}");
    let text = files.text(&path)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Malformed { path: files.display(&path), reason: error.to_string() })
}
