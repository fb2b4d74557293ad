//! The rule for documents: a relative link points to a file that is there.

use super::Finding;
use super::tree::File;
use std::path::Path;

pub(super) fn check(files: &[File], root: &Path, findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.ending() == "md") {
        let folder = root.join(&file.path);
        let folder = folder.parent().unwrap_or(root);
        for link in links(&file.text) {
            let place = match link.target.strip_prefix('/') {
                Some(from_root) => root.join(from_root),
                None => folder.join(link.target),
            };
            if !place.exists() {
                findings.push(Finding::new(&file.path, link.line, format!("no file at the link `{}`", link.target)));
            }
        }
    }
}

struct Link<'a> {
    /// Counted from 1.
    line: usize,
    /// Without the anchor.
    target: &'a str,
}

/// The links to files, outside code.
fn links(text: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (idx, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let is_code = line[..at].matches('`').count() % 2 == 1;
            let rest = &line[at + 2..];
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains(':');
            if !is_code && !is_elsewhere {
                links.push(Link { line: idx + 1, target });
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::super::bad::refused;
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&[File::new("xtask/a.md", text)], &crate::repository_root(), &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_link_to_nothing_is_refused() {
        refused(&found("a\n[b](src/none.rs#c)\n"), "xtask/a.md:2:", "src/none.rs");
        refused(&found("![b](none.png)\n"), "xtask/a.md:1:", "none.png");
        refused(&found("[b](/none.md)\n"), "xtask/a.md:1:", "/none.md");
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](src/main.rs) [b](../Cargo.toml#c) [d](/xtask) [e](#f) [g](https://example.com/none)\n\
                    `[h](none)`\n```\n[i](none)\n```\n[`j`](crate::none)\n";
        assert_eq!(found(text), [""; 0]);
    }
}
