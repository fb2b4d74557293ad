//! The rule for claims: in a document's table, the last column of which is called `proof`, each name in code is a test.

use super::Finding;
use super::tree::File;
use std::collections::BTreeSet;

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    let tests: BTreeSet<&str> = files.iter().filter(|file| file.ending() == "rs").flat_map(tests).collect();
    for file in files.iter().filter(|file| file.ending() == "md") {
        for (line, name) in proofs(&file.text) {
            if !tests.contains(name) {
                findings.push(Finding::new(&file.path, line, format!("no test is called `{name}`")));
            }
        }
    }
}

/// Functions, and what a macro of recorded runs makes functions of: a name and a comma, alone on a line.
fn tests(file: &File) -> impl Iterator<Item = &str> {
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    file.text.lines().map(str::trim).filter_map(move |line| {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let function = function.and_then(|rest| rest.split(['(', '<']).next());
        function.or(line.strip_suffix(',')).filter(|name| is_name(name))
    })
}

/// Lines, counted from 1, and the names in code in the last cells of the tables that end with `proof`.
fn proofs(text: &str) -> Vec<(usize, &str)> {
    let mut is_proof = false;
    let mut proofs = Vec::new();
    for (idx, line) in text.lines().enumerate() {
        let last = line.trim_end().strip_suffix('|').and_then(|row| row.rsplit('|').next());
        let Some(last) = last.filter(|_| line.starts_with('|')) else {
            is_proof = false;
            continue;
        };
        if is_proof {
            proofs.extend(last.split('`').skip(1).step_by(2).map(|name| (idx + 1, name)));
        }
        is_proof |= last.trim() == "proof";
    }
    proofs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_its_test_is_refused() {
        let code =
            File::new("a.rs", "    #[test]\n    fn it_paints() {\n    async fn it_waits() {\n    flux_img2img,\n");
        let table =
            "| a | proof |\n| --- | --- |\n| `code` | `it_paints`, `it_waits`, `flux_img2img` |\n| b | `it_sings` |\n";
        let other = "\n| a | b |\n| --- | --- |\n| c | `it_dances` |\n";
        let mut findings = Vec::new();
        check(&[code, File::new("a.md", &format!("{table}{other}"))], &mut findings);
        assert_eq!(findings, [Finding::new("a.md", 4, "no test is called `it_sings`")]);
    }
}
