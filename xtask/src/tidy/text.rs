//! Rules for every file in which people write: white space, unfinished work, paths of one machine.

use super::Finding;
use super::source::words;
use super::tree::File;

/// Endings of the files whose white space is ours.
const CLEAN_ENDINGS: [&str; 6] = ["rs", "md", "toml", "py", "sh", "sql"];

/// Endings of the files that may not promise work; documents may name the rule.
const FINISHED_ENDINGS: [&str; 9] = ["rs", "toml", "py", "sh", "sql", "html", "css", "js", "run"];

/// Words of unfinished work, in two parts so that this file does not hold them.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders of one machine, in two parts so that this file does not hold them.
const MACHINE_FOLDERS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if CLEAN_ENDINGS.contains(&file.ending()) {
        white_space(file, findings);
    }
    if FINISHED_ENDINGS.contains(&file.ending()) {
        unfinished(file, findings);
    }
    machine_folders(file, findings);
}

fn white_space(file: &File, findings: &mut Vec<Finding>) {
    for (idx, line) in file.text.split('\n').enumerate() {
        if line.contains('\t') {
            findings.push(Finding::new(&file.path, idx + 1, "a tab"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(&file.path, idx + 1, "white space at the end of the line"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(Finding::new(&file.path, 0, "the last line has no end"));
    }
    if file.text.ends_with("\n\n") {
        findings.push(Finding::new(&file.path, 0, "an empty line at the end"));
    }
}

fn unfinished(file: &File, findings: &mut Vec<Finding>) {
    for (idx, line) in file.text.lines().enumerate() {
        for word in words(line).filter(|word| UNFINISHED.contains(word)) {
            findings.push(Finding::new(&file.path, idx + 1, format!("`{word}`: finish it, or open an issue")));
        }
    }
}

fn machine_folders(file: &File, findings: &mut Vec<Finding>) {
    for (idx, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            // The path of a URL or the middle of a relative path is no folder of a machine.
            let begins_path = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')'))
            };
            if line.match_indices(folder).any(|(at, _)| begins_path(at)) {
                findings.push(Finding::new(&file.path, idx + 1, format!("`{folder}` is a folder of one machine")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bad::{findings, refused};
    use super::*;

    #[test]
    fn white_space_is_clean() {
        refused(&findings(check, "a.md", "a\n\tb\n"), "a.md:2:", "a tab");
        refused(&findings(check, "a.md", "a \n"), "a.md:1:", "white space");
        refused(&findings(check, "a.md", "a\r\n"), "a.md:1:", "white space");
        refused(&findings(check, "a.md", "a\nb"), "a.md:", "last line");
        refused(&findings(check, "a.md", "a\n\n"), "a.md:", "empty line");
        assert!(findings(check, "a.md", "a\n\nb\n").is_empty());
        assert!(findings(check, "a.json", "{\t}").is_empty());
    }

    #[test]
    fn unfinished_work_is_refused() {
        for word in UNFINISHED {
            refused(&findings(check, "a.rs", &format!("//! A.\n// {word}: b\n")), "a.rs:2:", word);
            assert!(findings(check, "a.rs", &format!("//! {word}S and a{word} are other words.\n")).is_empty());
        }
    }

    #[test]
    fn folders_of_one_machine_are_refused() {
        for folder in MACHINE_FOLDERS {
            refused(&findings(check, "a.json", &format!("{{\"a\": \"{folder}b\"}}\n")), "a.json:1:", folder);
            assert!(findings(check, "a.md", &format!("https://example.com{folder}b\n")).is_empty());
            assert!(findings(check, "a.md", &format!("../a{folder}b\n")).is_empty());
        }
    }
}
