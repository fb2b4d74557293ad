//! The files that the rules are held against: what git tracks, and what it would track if it were added.

use super::source;
use std::path::Path;
use std::process::Command;

/// Larger files are data, whatever they are called.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Endings of files in which people write.
const ENDINGS: [&str; 15] =
    ["rs", "md", "toml", "py", "sh", "sql", "html", "css", "js", "json", "yml", "yaml", "txt", "run", "lock"];

/// One text file of the repository.
pub(super) struct File {
    /// From the root, with `/` between its parts.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and the insides of literals blanked out, byte for byte; empty unless it is Rust.
    pub(super) code: String,
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if ending_of(path) == "rs" { source::code_of(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.ending() == "rs"
    }

    pub(super) fn ending(&self) -> &str {
        ending_of(&self.path)
    }

    /// Integration tests, benches, examples, and the inline tests of a crate that got a file of their own.
    pub(super) fn is_test(&self) -> bool {
        let folders = ["/tests/", "/benches/", "/examples/"];
        folders.iter().any(|folder| self.path.contains(folder)) || self.path.ends_with("/tests.rs")
    }

    /// The first line, counted from 0, of the module that only tests see; the number of lines if there is none.
    pub(super) fn first_test_line(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        let opens_tests = |idx: usize| {
            let is_attribute = |line: &&&str| line.starts_with("#[");
            let item = lines[idx..].iter().find(|line| !is_attribute(line)).copied().unwrap_or_default();
            lines[idx].starts_with("#[cfg(test)]") && item.starts_with("mod ") && item.ends_with('{')
        };
        (0..lines.len()).find(|&idx| opens_tests(idx)).unwrap_or(lines.len())
    }
}

/// Reads every text file below the root that is not ignored.
pub(super) fn read(root: &Path) -> Result<Vec<File>, String> {
    let mut paths = list(root)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let place = root.join(&path);
        let is_text = ENDINGS.contains(&ending_of(&path));
        // What git still lists may be gone from the folder.
        let Ok(metadata) = place.metadata() else { continue };
        if !is_text || !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            continue;
        }
        let bytes = std::fs::read(&place).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
        files.push(File::new(&path, &text));
    }
    Ok(files)
}

/// What follows the last dot or slash.
fn ending_of(path: &str) -> &str {
    path.rsplit(['.', '/']).next().unwrap_or_default()
}

/// Asks git; in a copy without a repository, walks the folders.
fn list(root: &Path) -> Result<Vec<String>, String> {
    let arguments = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    match Command::new("git").args(arguments).current_dir(root).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
        }
        _ => {
            let mut paths = Vec::new();
            walk(root, "", &mut paths).map_err(|error| format!("the folders cannot be walked: {error}"))?;
            Ok(paths)
        }
    }
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_output = matches!(name.as_str(), ".git" | "target" | "__pycache__");
        if is_output {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_and_the_walk_both_find_this_file() {
        let root = crate::repository_root();
        let here = "xtask/src/tidy/tree.rs".to_owned();
        assert!(list(&root).unwrap().contains(&here));
        let mut walked = Vec::new();
        walk(&root, "", &mut walked).unwrap();
        assert!(walked.contains(&here));
        assert!(!walked.iter().any(|path| path.starts_with("target/")));
    }

    #[test]
    fn tests_begin_at_their_module_not_at_an_import_for_them() {
        let text = "//! A.\n#[cfg(test)]\nuse b::C;\nfn d() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(File::new("crates/a/src/lib.rs", text).first_test_line(), 5);
        assert_eq!(File::new("crates/a/src/lib.rs", "//! A.\nfn d() {}\n").first_test_line(), 2);
        assert_eq!(File::new("crates/a/tests/it/main.rs", "//! A.\n").first_test_line(), 0);
    }
}
