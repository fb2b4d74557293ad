//! The rule for documents: a relative link points to a file that is there, and its anchor to a heading of it.

use super::Finding;
use super::tree::File;
use std::fs;
use std::path::Path;

pub(super) fn check(files: &[File], root: &Path, findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.ending() == "md") {
        for link in links(&file.text) {
            if let Some(message) = refusal(&link, file, root) {
                findings.push(Finding::new(&file.path, link.line, message));
            }
        }
    }
}

struct Link<'a> {
    /// Counted from 1.
    line: usize,
    /// Empty: the document itself.
    target: &'a str,
    /// Empty: the whole of the target.
    anchor: &'a str,
}

fn refusal(link: &Link<'_>, file: &File, root: &Path) -> Option<String> {
    let here = root.join(&file.path);
    let place = match link.target.strip_prefix('/') {
        Some(from_root) => root.join(from_root),
        None if link.target.is_empty() => here.clone(),
        None => here.parent().unwrap_or(root).join(link.target),
    };
    let is_here = place == here;
    if !is_here && !place.exists() {
        return Some(format!("no file at the link `{}`", link.target));
    }
    let is_document = place.extension().is_some_and(|ending| ending == "md");
    if link.anchor.is_empty() || !is_document {
        return None;
    }
    let text = if is_here { file.text.clone() } else { fs::read_to_string(place).unwrap_or_default() };
    let is_there = headings(&text).any(|heading| heading == link.anchor);
    (!is_there).then(|| format!("no heading at the link `{}#{}`", link.target, link.anchor))
}

/// The links within the repository, outside code.
fn links(text: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    for (idx, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let is_code = line[..at].matches('`').count() % 2 == 1;
            let address = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            let (target, anchor) = address.split_once('#').unwrap_or((address, ""));
            if !is_code && !target.contains(':') {
                links.push(Link { line: idx + 1, target, anchor });
            }
        }
    }
    links
}

/// The anchors that a document's headings get: lower case, without punctuation, `-` for each space.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// The lines outside code fences, counted from 0.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
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
    fn an_anchor_without_a_heading_is_refused() {
        refused(&found("# A b\n[c](#d)\n"), "xtask/a.md:2:", "#d");
        refused(&found("[c](../CONTRIBUTING.md#none)\n"), "xtask/a.md:1:", "../CONTRIBUTING.md#none");
        assert_eq!(found("# A `b`: c/d\n[e](#a-b-cd) [f](../CONTRIBUTING.md#contributing)\n"), [""; 0]);
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](src/main.rs) [b](../Cargo.toml#c) [d](/xtask) [g](https://example.com/none#h)\n\
                    `[h](none)`\n```\n[i](none)\n```\n[`j`](crate::none)\n";
        assert_eq!(found(text), [""; 0]);
    }
}
