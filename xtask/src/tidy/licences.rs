//! The rule for licences: every package that the workspace resolves to may be used under those that `deny.toml` allows.

use super::tree::File;
use super::{Finding, cargo_tree};
use std::path::Path;

const LIST: &str = "deny.toml";

pub(super) fn check(files: &[File], root: &Path, findings: &mut Vec<Finding>) {
    let Some(list) = files.iter().find(|file| file.path == LIST) else {
        findings.push(Finding::new(LIST, 0, "missing"));
        return;
    };
    let allowed = allowed_by(&list.text);
    // One line `LICENCE|PACKAGE` for each package, whatever machine it is for.
    let packages = cargo_tree(root, &["--workspace", "--target", "all", "--prefix", "none", "--format", "{l}|{p}"]);
    match packages {
        Ok(packages) => refuse(&packages, &allowed, findings),
        Err(error) => findings.push(Finding::new("Cargo.lock", 0, error)),
    }
}

fn refuse(packages: &str, allowed: &[&str], findings: &mut Vec<Finding>) {
    let mut lines: Vec<&str> = packages.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        let Some((licence, package)) = line.split_once('|') else { continue };
        if !is_allowed(licence, allowed) {
            let message = format!("{package} comes under `{licence}`, which {LIST} does not allow");
            findings.push(Finding::new("Cargo.lock", 0, message));
        }
    }
}

/// The list `allow` of the table `[licenses]`.
fn allowed_by(text: &str) -> Vec<&str> {
    let table = text.split("[licenses]").nth(1).unwrap_or_default();
    let list = table.split_once("allow = [").map(|(_, list)| list).unwrap_or_default();
    let list = list.split(']').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression can be met by the allowed licences. An old manner writes `/` for `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let met = any_of(&mut rest, allowed);
    met == Some(true) && rest.is_empty()
}

/// `AND` binds tighter than `OR`. `None`: not an expression.
fn any_of(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut met = all_of(rest, allowed)?;
    while take(rest, "OR") {
        met |= all_of(rest, allowed)?;
    }
    Some(met)
}

fn all_of(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut met = one(rest, allowed)?;
    while take(rest, "AND") {
        met &= one(rest, allowed)?;
    }
    Some(met)
}

fn one(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let met = any_of(rest, allowed)?;
        return take(rest, ")").then_some(met);
    }
    let (licence, after) = rest.split_first()?;
    *rest = after;
    if take(rest, "WITH") {
        let (exception, after) = rest.split_first()?;
        *rest = after;
        return Some(allowed.contains(&format!("{licence} WITH {exception}").as_str()));
    }
    Some(allowed.contains(licence))
}

fn take(rest: &mut &[&str], token: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == token => {
            *rest = after;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bad::refused;
    use super::*;

    const ALLOWED: [&str; 3] = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn a_package_under_another_licence_is_refused() {
        let packages = "MIT|a v1.0.0\nMIT|a v1.0.0 (*)\nGPL-3.0-only|b v2.0.0\nGPL-3.0-only|b v2.0.0 (*)\n";
        let mut findings = Vec::new();
        refuse(packages, &ALLOWED, &mut findings);
        let found: Vec<String> = findings.iter().map(Finding::to_string).collect();
        refused(&found, "Cargo.lock:", "b v2.0.0 comes under `GPL-3.0-only`");
    }

    #[test]
    fn expressions_are_understood() {
        for expression in [
            "MIT",
            "GPL-2.0-only OR MIT",
            "GPL-2.0-only/MIT",
            "MIT AND ISC",
            "(GPL-2.0-only OR ISC) AND MIT",
            "GPL-2.0-only AND Zlib OR MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(expression, &ALLOWED), "{expression}");
        }
        for expression in ["", "GPL-2.0-only", "MIT AND GPL-2.0-only", "Apache-2.0", "(MIT", "MIT MIT", "MIT OR"] {
            assert!(!is_allowed(expression, &ALLOWED), "{expression}");
        }
    }

    #[test]
    fn the_list_is_read_from_its_table() {
        let text = "[bans]\nallow = [\"a\"]\n[licenses]\n# Why.\nallow = [\n    \"MIT\",\n    \"ISC\",\n]\n";
        assert_eq!(allowed_by(text), ["MIT", "ISC"]);
        assert!(allowed_by("[bans]\n").is_empty());
    }
}
