//! What the tests need beside cargo: found, installed where that is possible, or named as missing.

use crate::stages::{Outcome, succeeds};
use std::path::Path;
use std::process::Command;

/// A part of the Rust toolchain that a machine may lack.
pub(crate) struct Component {
    name: &'static str,
    /// The cargo subcommand that it provides.
    subcommand: &'static str,
}

pub(crate) const RUSTFMT: Component = Component { name: "rustfmt", subcommand: "fmt" };
pub(crate) const CLIPPY: Component = Component { name: "clippy", subcommand: "clippy" };

impl Component {
    /// What to tell the user if it is missing.
    pub(crate) fn missing(&self, root: &Path) -> Option<String> {
        let present = succeeds(cargo(root).args([self.subcommand, "--version"]));
        (!present).then(|| format!("{0} is missing; `rustup component add {0}` installs it", self.name))
    }

    fn install(&self) -> bool {
        println!("installing {}", self.name);
        succeeds(Command::new("rustup").args(["component", "add", self.name]))
    }
}

/// The cargo that runs us, in the repository's root.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Looks for what the later stages need. Fails only where nothing can be built at all.
pub(crate) fn prepare(root: &Path) -> Outcome {
    for component in [RUSTFMT, CLIPPY] {
        if let Some(missing) = component.missing(root)
            && !component.install()
        {
            println!("{missing}");
        }
    }
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    if succeeds(Command::new(&compiler).arg("--version")) {
        println!("cargo and a C compiler: found");
        Outcome::Passed
    } else {
        println!("no C compiler: `{}` does not run; SQLite is compiled from C", compiler.to_string_lossy());
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_component_is_named_with_the_command_that_installs_it() {
        let component = Component { name: "clairvoyance", subcommand: "no-such-subcommand" };
        let missing = component.missing(&crate::repository_root()).expect("no such subcommand");
        assert!(missing.contains("rustup component add clairvoyance"), "{missing}");
    }
}
