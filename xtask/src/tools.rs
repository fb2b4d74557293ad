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

/// A processor that programs are compiled for here and that an emulator stands in for.
pub(crate) struct Emulated {
    target: &'static str,
    linker: &'static str,
    emulator: &'static str,
    /// Where the emulator finds that processor's system libraries.
    libraries: &'static str,
    /// Debian's packages of all that.
    packages: &'static [&'static str],
}

pub(crate) const ARM: Emulated = Emulated {
    target: "aarch64-unknown-linux-gnu",
    linker: "aarch64-linux-gnu-gcc",
    emulator: "qemu-aarch64-static",
    libraries: "/usr/aarch64-linux-gnu",
    packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"],
};

const CAN_EMULATE: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

impl Emulated {
    /// What to tell the user if it cannot be compiled for or emulated.
    pub(crate) fn missing(&self, root: &Path) -> Option<String> {
        if !CAN_EMULATE {
            return Some("emulated on Linux with an x86 processor only".to_owned());
        }
        if let Some(program) = self.missing_program() {
            return Some(format!("{program} is missing; `apt-get install {}` installs it", self.packages.join(" ")));
        }
        (!self.has_target(root)).then(|| format!("`rustup target add {}` has not been run", self.target))
    }

    fn missing_program(&self) -> Option<&'static str> {
        [self.linker, self.emulator].into_iter().find(|program| !succeeds(Command::new(program).arg("--version")))
    }

    fn has_target(&self, root: &Path) -> bool {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let libraries = rustc.current_dir(root).args(["--print", "target-libdir", "--target", self.target]).output();
        libraries.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    }

    /// Installs what it can: packages on Debian, where we may.
    fn install(&self, root: &Path) {
        if !CAN_EMULATE || self.missing(root).is_none() {
            return;
        }
        println!("installing {} and {}", self.packages.join(", "), self.target);
        let apt = |arguments: &[&str]| {
            succeeds(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let install = [&["install", "--yes", "--no-install-recommends"], self.packages].concat();
        // A fresh machine has no lists of packages yet.
        if self.missing_program().is_none() || apt(&install) || apt(&["update"]) && apt(&install) {
            succeeds(Command::new("rustup").args(["target", "add", self.target]));
        }
    }

    /// The cargo that runs us, for a subcommand that compiles for the processor and may run tests on it.
    pub(crate) fn cargo(&self, root: &Path, subcommand: &str) -> Command {
        let name = self.target.to_uppercase().replace('-', "_");
        let runner = format!("{} -L {}", self.emulator, self.libraries);
        let mut command = cargo(root);
        command.args([subcommand, "--target", self.target]);
        command.env(format!("CARGO_TARGET_{name}_LINKER"), self.linker);
        command.env(format!("CARGO_TARGET_{name}_RUNNER"), runner);
        command
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
    ARM.install(root);
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
    fn an_emulator_that_is_not_there_is_named_with_the_command_that_installs_it() {
        let nothing = Emulated { emulator: "no-such-emulator", linker: "cargo", packages: &["some-package"], ..ARM };
        let missing = nothing.missing(&crate::repository_root()).expect("no such emulator");
        assert!(missing.contains("emulated on Linux") || missing.contains("apt-get install some-package"), "{missing}");
    }

    #[test]
    fn an_unknown_component_is_named_with_the_command_that_installs_it() {
        let component = Component { name: "clairvoyance", subcommand: "no-such-subcommand" };
        let missing = component.missing(&crate::repository_root()).expect("no such subcommand");
        assert!(missing.contains("rustup component add clairvoyance"), "{missing}");
    }
}
