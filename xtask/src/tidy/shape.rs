//! Rules for the shape of a Rust file: how it opens, and how long it and its functions may be.

use super::Finding;
use super::source::words;
use super::tree::File;

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_rust() {
        return;
    }
    if !file.text.starts_with("//! ") {
        findings.push(Finding::new(&file.path, 1, "the file does not open with `//! ` and what it is"));
    }
    let n_lines = file.first_test_line();
    if n_lines > FILE_LINES_MAX {
        let message = format!("{n_lines} lines before the tests; allowed: {FILE_LINES_MAX}");
        findings.push(Finding::new(&file.path, 0, message));
    }
    for function in functions(&file.code) {
        if function.n_lines > FUNCTION_LINES_MAX {
            let message =
                format!("`{}` takes {} lines; allowed: {FUNCTION_LINES_MAX}", function.name, function.n_lines);
            findings.push(Finding::new(&file.path, function.line, message));
        }
    }
}

struct Function<'a> {
    name: &'a str,
    /// Counted from 1.
    line: usize,
    n_lines: usize,
}

/// rustfmt ends a function with a brace below its first letter, so that braces need not be counted.
fn functions(code: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = code.lines().collect();
    let mut functions = Vec::new();
    for (idx, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = indent_of(line);
        let ends = |line: &&str| {
            indent_of(line) == indent && (line.trim_start().starts_with('}') || line.trim_end().ends_with(';'))
        };
        let is_one_line = line.ends_with(['}', ';']);
        let n_below = if is_one_line { Some(0) } else { lines[idx + 1..].iter().position(ends).map(|n| n + 1) };
        functions.push(Function { name, line: idx + 1, n_lines: 1 + n_below.unwrap_or(lines.len() - idx - 1) });
    }
    functions
}

/// The name, if a function begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = words(line);
    let qualifiers = ["pub", "crate", "super", "self", "const", "async", "unsafe", "extern", "default"];
    let first = words.find(|word| !qualifiers.contains(word))?;
    if first == "fn" { words.next() } else { None }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::super::bad::{findings, refused};
    use super::super::source::code_of;
    use super::*;

    #[test]
    fn a_file_says_what_it_is() {
        refused(&findings(check, "a.rs", "fn a() {}\n"), "a.rs:1:", "does not open");
        refused(&findings(check, "a.rs", "// A.\n"), "a.rs:1:", "does not open");
        assert!(findings(check, "a.rs", "//! A.\n").is_empty());
    }

    #[test]
    fn a_file_has_an_end() {
        let long = format!("//! A.\n{}", "// b\n".repeat(FILE_LINES_MAX));
        refused(&findings(check, "a.rs", &long), "a.rs:", "501 lines");
        let tests = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // b\n".repeat(FILE_LINES_MAX));
        assert!(findings(check, "a.rs", &tests).is_empty());
    }

    #[test]
    fn a_function_has_an_end() {
        let body = "        b();\n".repeat(FUNCTION_LINES_MAX - 1);
        let long = format!("//! A.\nimpl A {{\n    pub(crate) async fn long() {{\n{body}    }}\n}}\n");
        refused(&findings(check, "a.rs", &long), "a.rs:3:", "`long` takes 71 lines");
    }

    #[test]
    fn lengths_are_those_that_a_reader_counts() {
        let code = code_of(
            "\
fn one() {}
trait A {
    fn declared(
        a: u32,
    ) -> u32;
    fn two(
        b: u32,
    ) -> u32
    where
        u32: Copy,
    {
        let c = || {
            b
        };
        c()
    }
}
unsafe extern \"C\" fn three() {
}
let no = fn_like();
",
        );
        let lengths: Vec<_> = functions(&code).iter().map(|f| (f.name, f.line, f.n_lines)).collect();
        assert_eq!(lengths, [("one", 1, 1), ("declared", 3, 3), ("two", 6, 11), ("three", 18, 2)]);
    }
}
