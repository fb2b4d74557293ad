//! Reads as much of a `Cargo.toml` as the rules need, and holds every crate to the workspace's versions and lints.

use super::Finding;
use super::tree::File;

/// One line of a table of dependencies.
pub(super) struct Dependency<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// Counted from 1.
    pub(super) line: usize,
    /// What stands after the name.
    specification: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Build,
    Dev,
}

/// The name of a crate's folder, for `crates/NAME/Cargo.toml`.
pub(super) fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml").filter(|name| !name.contains('/'))
}

/// The dependencies of all kinds and targets, one line each as Cargo.toml is written here.
pub(super) fn dependencies(text: &str) -> Vec<Dependency<'_>> {
    let mut dependencies = Vec::new();
    let mut kind = None;
    for (idx, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            kind = kind_of(table.trim_end_matches(']'));
            continue;
        }
        let Some(kind) = kind else { continue };
        let end = line.find(['.', '=', ' ']).unwrap_or(line.len());
        let name = line[..end].trim_matches('"');
        if !name.is_empty() && !name.starts_with('#') {
            dependencies.push(Dependency { name, kind, line: idx + 1, specification: &line[end..] });
        }
    }
    dependencies
}

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if crate_of(&file.path).is_none() {
        return;
    }
    for dependency in dependencies(&file.text) {
        if !dependency.specification.contains("workspace = true") {
            let message = format!("`{}` does not take its version from the workspace", dependency.name);
            findings.push(Finding::new(&file.path, dependency.line, message));
        }
    }
    // The crate with `unsafe` cannot take lints that deny it, so it brings its own.
    let (lints, message) = match crate_of(&file.path) {
        Some("kernels") => ("undocumented_unsafe_blocks = \"deny\"\n", "does not deny unexplained `unsafe`"),
        _ => ("[lints]\nworkspace = true\n", "does not take the workspace's lints"),
    };
    if !file.text.contains(lints) {
        findings.push(Finding::new(&file.path, 0, message));
    }
}

fn kind_of(table: &str) -> Option<Kind> {
    match table.rsplit('.').next() {
        Some("dependencies") if table.starts_with("workspace") => None,
        Some("dependencies") => Some(Kind::Normal),
        Some("build-dependencies") => Some(Kind::Build),
        Some("dev-dependencies") => Some(Kind::Dev),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bad::{findings, refused};
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn dependencies_of_all_kinds_are_read() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nb.workspace = true\n# c\nd = { workspace = true }\n\n\
                    [target.'cfg(unix)'.dependencies]\ne.workspace = true\n[dev-dependencies]\nf.workspace = true\n\
                    [build-dependencies]\ng.workspace = true\n[features]\nh = []\n";
        let read: Vec<_> = dependencies(text).iter().map(|d| (d.name, d.kind, d.line)).collect();
        let expected = [
            ("b", Kind::Normal, 4),
            ("d", Kind::Normal, 6),
            ("e", Kind::Normal, 9),
            ("f", Kind::Dev, 11),
            ("g", Kind::Build, 13),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn versions_stand_in_the_workspace_alone() {
        let text = format!("{LINTS}[dependencies]\nb = \"1\"\n");
        refused(&findings(check, "crates/a/Cargo.toml", &text), "crates/a/Cargo.toml:4:", "`b` does not");
        assert!(findings(check, "Cargo.toml", &text).is_empty());
    }

    #[test]
    fn lints_are_the_workspaces() {
        refused(&findings(check, "crates/a/Cargo.toml", "[package]\n"), "crates/a/Cargo.toml:", "lints");
        assert!(findings(check, "crates/a/Cargo.toml", LINTS).is_empty());
        refused(&findings(check, "crates/kernels/Cargo.toml", "[package]\n"), "crates/kernels/Cargo.toml:", "unsafe");
    }
}
