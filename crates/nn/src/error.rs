//! What can go wrong with weights and layers.

use std::path::PathBuf;

const MEBIBYTE: u64 = 1 << 20;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    Malformed { path: String, reason: String },
    /// Every tensor that does not fit, at once, so that one look tells what is wrong with a checkpoint.
    #[error("the weights of {component} do not fit: {}", summary(.missing, .unused, .mismatched))]
    DoNotFit { component: String, missing: Vec<String>, unused: Vec<String>, mismatched: Vec<String> },
    /// What is wanted is rounded up and what there is down, so that what does not fit never reads as if it did.
    #[error(
        "the weights of {component} take {} MiB of memory, and weights may take {} MiB",
        .bytes.div_ceil(MEBIBYTE),
        .budget / MEBIBYTE
    )]
    OverBudget { component: String, bytes: u64, budget: u64 },
    #[error("{0}")]
    Shape(String),
    /// Damaged weights do this, and number formats that are too narrow for a model.
    #[error("the model gave what is no number")]
    NotFinite,
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

fn summary(missing: &[String], unused: &[String], mismatched: &[String]) -> String {
    let parts = [("missing", missing), ("unused", unused), ("of another shape", mismatched)];
    let listed = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| list(what, names));
    listed.collect::<Vec<_>>().join("; ")
}

/// Names at most twelve; a checkpoint of another model would otherwise print thousands.
fn list(what: &str, names: &[String]) -> String {
    const N_NAMED: usize = 12;
    let named = names.iter().take(N_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let rest = names.len().saturating_sub(N_NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{} {what}: {named}{more}", names.len())
}
