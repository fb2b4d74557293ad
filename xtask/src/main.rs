//! Chores of this repository: `cargo xtask test`, `check` and `tidy`.
//!
//! Deliberately absent: dependencies. This program is built before anything else, on every run of the tests.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

mod stages;
mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Chores of this repository

Usage: cargo xtask <COMMAND>

Commands:
  test   Check what the tests need, then format, lint, tidy, docs, every test, and the kernels' tests once more on an
         emulated Arm processor; runs all, fails if any failed
  check  Format, tidy and lint; stops at the first that fails
  tidy   The rules of this repository that no other tool checks

Options:
  -h, --help  Print this help";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = repository_root();
    match arguments[..] {
        ["test"] => stages::run_all(&root),
        ["check"] => stages::run_until_failure(&root),
        ["tidy"] => stages::run_tidy(&root),
        ["help" | "-h" | "--help"] | ["test" | "check" | "tidy", "-h" | "--help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        _ => {
            eprintln!("error: got `{}`; allowed: test, check, tidy, --help", arguments.join(" "));
            ExitCode::from(2)
        }
    }
}

/// The folder above this crate's, wherever the command was called.
fn repository_root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().expect("this crate lies in the repository, this is a bug otherwise").to_owned()
}
