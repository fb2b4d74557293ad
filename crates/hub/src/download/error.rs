//! Why a pull failed, in words that say what to do. None of them holds a token or a signed URL.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{setting}: {problem}")]
    Setting { setting: &'static str, problem: String },
    #[error("{host} cannot be reached; is this machine online?")]
    Unreachable { host: String },
    #[error("no secure connection to {host}: its certificate or its encryption is not accepted")]
    Tls { host: String },
    #[error("{host} took too long to answer")]
    TimedOut { host: String },
    #[error("{host} broke off in the middle of an answer")]
    Broken { host: String },
    #[error("{host} answers with status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} asks to wait {} s before the next attempt (status {status}); try again then", .wait.as_secs())]
    AsksToWait { host: String, status: u16, wait: Duration },
    #[error("{host} redirects {problem}")]
    Redirect { host: String, problem: &'static str },
    #[error("{repository} is gated: accept its licence at {page}, then set HF_TOKEN to a token of that account")]
    GatedWithoutToken { repository: String, page: String },
    #[error(
        "{repository} is gated, and the account of HF_TOKEN may not have it: accept the licence at {page}, and give the \
         token the right to read gated repositories"
    )]
    GatedForToken { repository: String, page: String },
    #[error("{host} does not accept the token in HF_TOKEN")]
    Token { host: String },
    #[error("{host} refuses {repository} (status 403)")]
    Forbidden { host: String, repository: String },
    #[error("{host} has no {what}")]
    Absent { host: String, what: String },
    /// The hub's own words about its files make no sense, or mean harm.
    #[error("the list of files of {repository} is not to be trusted: {problem}")]
    Listing { repository: String, problem: String },
    #[error("{repository} has no file like {pattern} at this revision")]
    NoFile { repository: String, pattern: String },
    #[error("{host} declares another {what} of {path} than this version knows; nothing was fetched")]
    Unexpected { host: String, path: String, what: &'static str },
    #[error("{host} declares another content of {path} than a moment ago; run the pull again")]
    Changed { host: String, path: String },
    #[error("{path} arrived with another {what} than declared; what had arrived was deleted")]
    Mismatch { path: String, what: &'static str },
    #[error("{} has {} free; the download needs {}", .dir.display(), mib(*.free), mib(*.needed))]
    NoSpace { dir: PathBuf, needed: u64, free: u64 },
    #[error("the disk is full: {} cannot be written; what has arrived is kept for the next pull", .0.display())]
    DiskFull(PathBuf),
    #[error("{} cannot be used", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("{} is one model's own folder; name a folder of model folders", .0.display())]
    ModelFolder(PathBuf),
    #[error("{} was not put there by a pull; take it away by hand", .0.display())]
    NotPulled(PathBuf),
    #[error("another pull of {0} is running")]
    InUse(String),
    #[error(
        "{} was not put there by a pull, and its {path} is another file; move the folder away to pull the model",
        .dir.display()
    )]
    Foreign { dir: PathBuf, path: String },
}

impl PullError {
    /// What a system call on a file met.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path),
            _ => Self::File(path, error),
        }
    }

    /// Another attempt may go better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => is_passing(*status),
            _ => false,
        }
    }
}

/// Statuses that say "not now".
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
