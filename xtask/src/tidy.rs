//! The rules of this repository that no other tool checks. They are data and text scans, no parser: they hold for
//! code that rustfmt has formatted.
//!
//! Each rule is a module with a unit test that shows it refuse a bad snippet; the test below holds them all against
//! the tree.

mod arrows;
mod guards;
mod licences;
mod links;
mod logs;
mod manifest;
mod once;
mod proofs;
mod shape;
mod source;
mod text;
mod tree;

use crate::stages::Outcome;
use crate::tools;
use std::fmt;
use std::path::Path;
use std::process::Stdio;

/// Prints what breaks a rule.
pub(crate) fn report(root: &Path) -> Outcome {
    let findings = match check(root) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("error: {error}");
            return Outcome::Failed;
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} findings", findings.len());
    if findings.is_empty() { Outcome::Passed } else { Outcome::Failed }
}

/// Everything in the tree that breaks a rule; `Err` if the tree cannot be read.
fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let files = tree::read(root)?;
    let mut findings = Vec::new();
    for file in &files {
        for rule in RULES {
            rule(file, &mut findings);
        }
    }
    links::check(&files, root, &mut findings);
    proofs::check(&files, &mut findings);
    arrows::check(&files, &mut findings);
    licences::check(&files, root, &mut findings);
    once::check(root, &mut findings);
    findings.sort();
    Ok(findings)
}

/// What `cargo tree` says of the packages that `Cargo.lock` names.
fn cargo_tree(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = tools::cargo(root).args(["tree", "--locked"]).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

const RULES: [fn(&tree::File, &mut Vec<Finding>); 5] =
    [text::check, shape::check, guards::check, logs::check, manifest::check];

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1; 0 speaks of the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(&crate::repository_root()).expect("the tree can be read");
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }

    #[test]
    fn a_finding_says_where_it_is() {
        assert_eq!(Finding::new("a.rs", 7, "too long").to_string(), "a.rs:7: too long");
        assert_eq!(Finding::new("a.rs", 0, "too long").to_string(), "a.rs: too long");
    }
}

/// What the rules' own tests share.
#[cfg(test)]
mod bad {
    use super::{Finding, tree::File};

    /// The findings of one rule in one file, as they are printed.
    pub(super) fn findings(rule: fn(&File, &mut Vec<Finding>), path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        rule(&File::new(path, text), &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    /// Expects one finding, with these words, on this line.
    #[track_caller]
    pub(super) fn refused(found: &[String], line: &str, words: &str) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(line) && found[0].contains(words), "{found:?}");
    }
}
