//! Rules for what Rust code may do where: `unsafe`, the environment, unfinished and silenced code.

use super::Finding;
use super::source::words;
use super::tree::File;

/// The only crate that may be unsafe.
const UNSAFE_CRATE: &str = "crates/kernels/";

/// Who may read the environment, beside tests and build scripts: the composition root and this program.
const ENVIRONMENT_READERS: [&str; 2] = ["crates/pentimento/", "xtask/"];

/// Code that says of itself that it is not done, or not run.
const UNFINISHED_CODE: [&str; 3] = ["todo!(", "unimplemented!(", "#[ignore"];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_rust() {
        return;
    }
    let first_test_line = file.first_test_line();
    let may_read = file.path.ends_with("build.rs") || ENVIRONMENT_READERS.iter().any(|who| file.path.starts_with(who));
    let text: Vec<&str> = file.text.lines().collect();
    for (idx, line) in file.code.lines().enumerate() {
        let mut refuse = |message: String| findings.push(Finding::new(&file.path, idx + 1, message));
        for unfinished in UNFINISHED_CODE.iter().filter(|code| line.contains(*code)) {
            refuse(format!("`{unfinished}`: unfinished code, or a test that does not run"));
        }
        if line.contains("[allow(") {
            refuse("`allow`: use `#[expect(lint, reason = \"…\")]`".to_owned());
        }
        if line.contains("[expect(") && !attribute_at(&file.code, idx).contains("reason") {
            refuse("`expect` without a reason".to_owned());
        }
        if line.contains("env::var") && !may_read && idx < first_test_line {
            refuse("only the binary reads the environment".to_owned());
        }
        if words(line).any(|word| word == "unsafe") {
            if !file.path.starts_with(UNSAFE_CRATE) {
                refuse(format!("`unsafe` outside {UNSAFE_CRATE}"));
            } else if !is_explained(&text, idx) {
                refuse("`unsafe` without a `// SAFETY:` comment just above".to_owned());
            }
        }
    }
}

/// The attribute that begins on this line, up to its bracket.
fn attribute_at(code: &str, idx: usize) -> String {
    let rest: Vec<&str> = code.lines().skip(idx).collect();
    let rest = rest.join("\n");
    let end = rest.find(")]").unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// Whether a comment stands right above the line, its attributes, or the statement that it goes on with.
fn is_explained(text: &[&str], idx: usize) -> bool {
    for line in text[..idx].iter().rev().map(|line| line.trim()) {
        let is_comment = line.starts_with("//");
        if is_comment && (line.contains("SAFETY:") || line.contains("# Safety")) {
            return true;
        }
        let goes_on = line.starts_with("#[") || !line.ends_with([';', '{', '}', ',']);
        if line.is_empty() || !(is_comment || goes_on) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::bad::{findings, refused};
    use super::*;

    const LIBRARY: &str = "crates/app/src/lib.rs";
    const KERNELS: &str = "crates/kernels/src/lib.rs";

    #[test]
    fn unsafe_code_lives_in_one_crate() {
        let explained = "//! A.\n// SAFETY: b.\nunsafe { c() };\n";
        refused(&findings(check, LIBRARY, explained), &format!("{LIBRARY}:3:"), "outside crates/kernels/");
        assert!(findings(check, KERNELS, explained).is_empty());
        assert!(findings(check, LIBRARY, "//! A.\n// unsafe\nlet unsafe_code = \"unsafe\";\n").is_empty());
    }

    #[test]
    fn unsafe_code_is_explained() {
        refused(&findings(check, KERNELS, "//! A.\nunsafe { b() };\n"), &format!("{KERNELS}:2:"), "SAFETY");
        let stale = "// SAFETY: b.\nc();\nunsafe { d() };\n";
        refused(&findings(check, KERNELS, stale), &format!("{KERNELS}:3:"), "SAFETY");
        let continued = "// SAFETY: b,\n// and c.\n#[inline]\nlet d =\n    unsafe { e() };\n";
        assert!(findings(check, KERNELS, continued).is_empty());
        assert!(findings(check, KERNELS, "/// # Safety\n/// A.\nunsafe fn b() {}\n").is_empty());
    }

    #[test]
    fn only_the_binary_reads_the_environment() {
        let text = "//! A.\nlet b = std::env::var_os(\"C\");\n";
        refused(&findings(check, LIBRARY, text), &format!("{LIBRARY}:2:"), "environment");
        for path in ["crates/pentimento/src/main.rs", "xtask/src/main.rs", "crates/a/build.rs", "crates/a/tests/b.rs"] {
            assert!(findings(check, path, text).is_empty(), "{path}");
        }
        let in_tests = "//! A.\n#[cfg(test)]\nmod tests {\n    use std::env::var;\n}\n";
        assert!(findings(check, LIBRARY, in_tests).is_empty());
        assert!(findings(check, LIBRARY, "//! A.\nlet b = env!(\"C\");\n").is_empty());
    }

    #[test]
    fn unfinished_code_is_refused() {
        for code in UNFINISHED_CODE {
            refused(&findings(check, LIBRARY, &format!("//! A.\n{code}\n")), &format!("{LIBRARY}:2:"), "unfinished");
            assert!(findings(check, LIBRARY, &format!("//! A.\nlet a = \"{code}\";\n")).is_empty());
        }
    }

    #[test]
    fn a_silenced_lint_has_a_reason() {
        refused(&findings(check, LIBRARY, "#[allow(dead_code)]\n"), &format!("{LIBRARY}:1:"), "`allow`");
        refused(&findings(check, LIBRARY, "#[expect(dead_code)]\n"), &format!("{LIBRARY}:1:"), "without a reason");
        assert!(findings(check, LIBRARY, "#![expect(\n    dead_code,\n    reason = \"b\"\n)]\n").is_empty());
    }
}
