//! What can be wrong with a file that an operator wrote or a folder that an operator named.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The file is not TOML at all.
    #[error("{file}: {problem}")]
    Syntax { file: String, problem: String },
    /// One field of one entry.
    #[error("{file}, {entry}: {field}: {problem}")]
    Field { file: String, entry: String, field: String, problem: String },
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error(
        "{0} holds no model: neither a model_index.json, nor folders or files of weights that are named by their models"
    )]
    NoModel(PathBuf),
    #[error("{0} is not complete; pull the model again")]
    Incomplete(PathBuf),
    #[error("{model} is there twice: {first} and {second}")]
    Twice { model: String, first: PathBuf, second: PathBuf },
    #[error("{path}: {problem}")]
    Index { path: PathBuf, problem: String },
}
