//! Where a server keeps what it remembers, if nobody says otherwise.

use std::env;
use std::path::PathBuf;

/// The `--data` option, which several commands share.
#[derive(clap::Args)]
pub(crate) struct DataArg {
    /// Where tasks, keys, pictures and pulled weights are kept [default: the user's data folder]
    #[arg(long = "data", value_name = "DIR", env = "PENTIMENTO_DATA", global = true)]
    dir: Option<PathBuf>,
}

impl DataArg {
    /// Whether somebody named the folder.
    pub(crate) fn is_given(&self) -> bool {
        self.dir.is_some()
    }

    /// What another command has to be told to find the same folder: nothing, or ` --data DIR`.
    pub(crate) fn option(&self) -> String {
        self.dir.as_ref().map_or_else(String::new, |dir| format!(" --data {}", dir.display()))
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(default_dir)
    }
}

/// The user's data folder as the platform has it; without a home, a folder right here.
fn default_dir() -> PathBuf {
    let named = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) {
        named("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        named("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        named("XDG_DATA_HOME").or_else(|| named("HOME").map(|home| home.join(".local/share")))
    };
    base.map_or_else(|| PathBuf::from("pentimento-data"), |base| base.join("pentimento"))
}
