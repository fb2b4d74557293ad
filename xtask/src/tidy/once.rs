//! The rule for features: a package from outside has the same ones in the binary and in the tests, so that it is
//! compiled once for both.

use super::{Finding, cargo_tree};
use std::path::Path;

pub(super) fn check(root: &Path, findings: &mut Vec<Finding>) {
    let format = ["--prefix", "none", "--format", "{p} [{f}]"];
    let run = cargo_tree(root, &[&["--package", "pentimento", "--edges", "no-dev"], &format[..]].concat());
    let test = cargo_tree(root, &[&["--workspace"], &format[..]].concat());
    match (run, test) {
        (Ok(run), Ok(test)) => compare(&run, &test, findings),
        (Err(error), _) | (_, Err(error)) => findings.push(Finding::new("Cargo.lock", 0, error)),
    }
}

/// Both lists hold lines `PACKAGE vVERSION [FEATURES]`; a line with a path is a crate of ours.
fn compare(run: &str, test: &str, findings: &mut Vec<Finding>) {
    let is_outside = |line: &&str| line.contains(" [") && !line.contains(" (/");
    let plain = |line: &'_ str| line.trim_end_matches(" (*)").to_owned();
    let in_tests: Vec<String> = test.lines().filter(is_outside).map(plain).collect();
    let mut only_run: Vec<String> = run.lines().filter(is_outside).map(plain).collect();
    only_run.retain(|line| !in_tests.contains(line));
    only_run.sort_unstable();
    only_run.dedup();
    for line in only_run {
        let message = format!("the tests compile {line} once more, with other features; name theirs in the workspace");
        findings.push(Finding::new("Cargo.toml", 0, message));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bad::refused;
    use super::*;

    fn found(run: &str, test: &str) -> Vec<String> {
        let mut findings = Vec::new();
        compare(run, test, &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn other_features_in_the_tests_are_refused() {
        let run = "a v1.0.0 [std]\nb v1.0.0 []\nb v1.0.0 [] (*)\n";
        let test = "a v1.0.0 [std]\nb v1.0.0 [more]\nc v1.0.0 []\n";
        refused(&found(run, test), "Cargo.toml:", "b v1.0.0 []");
    }

    #[test]
    fn our_own_crates_may_have_features_for_tests() {
        assert_eq!(found("a v0.1.0 (/somewhere/a) []\n", "a v0.1.0 (/somewhere/a) [testing]\n"), [""; 0]);
    }
}
