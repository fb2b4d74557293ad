//! The rule for logs: no prompt, token, secret or whole URL is ever written to one.

use super::Finding;
use super::source::words;
use super::tree::File;

/// Names of values that no log line may hold.
const SECRETS: [&str; 9] =
    ["prompt", "prompt_2", "negative_prompt", "token", "secret", "authorization", "bearer", "url", "image_url"];

/// Macros of `tracing` and of the error stream, by the last part of their names.
const MACROS: [&str; 14] = [
    "trace",
    "debug",
    "info",
    "warn",
    "error",
    "event",
    "span",
    "trace_span",
    "debug_span",
    "info_span",
    "warn_span",
    "error_span",
    "eprint",
    "eprintln",
];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if !file.is_rust() || file.is_test() {
        return;
    }
    let first_test_line = file.first_test_line();
    let mut begin = 0;
    for (idx, line) in file.code.split_inclusive('\n').enumerate() {
        if idx >= first_test_line {
            break;
        }
        let is_instrumented = line.trim_start().starts_with("#[") && words(line).any(|word| word == "instrument");
        if is_instrumented && !line.contains("skip_all") {
            findings.push(Finding::new(&file.path, idx + 1, "`instrument` without `skip_all` logs every argument"));
        }
        for open in macro_calls(line) {
            let code = &file.code[begin + open..];
            let length = call_length(code);
            let text = &file.text[begin + open..begin + open + length];
            for secret in SECRETS.iter().filter(|secret| names(&code[..length], text, secret)) {
                findings.push(Finding::new(&file.path, idx + 1, format!("a log line names `{secret}`")));
            }
        }
        begin += line.len();
    }
}

/// Where the brackets of logging macros open on this line.
fn macro_calls(line: &str) -> impl Iterator<Item = usize> {
    let name_before = |at: usize| line[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
    let calls = line.match_indices("!(").filter(move |(at, _)| name_before(*at).is_some_and(|n| MACROS.contains(&n)));
    calls.map(|(at, _)| at + 1)
}

/// The bytes from an opening bracket to the one that closes it.
fn call_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return at + 1,
            b')' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether the call passes a value of this name, or formats it inside its message.
fn names(code: &str, text: &str, secret: &str) -> bool {
    let in_message = |text: &str| {
        text.match_indices('{').any(|(at, _)| {
            let rest = &text[at + 1..];
            rest.strip_prefix(secret).is_some_and(|after| after.starts_with(['}', ':']))
        })
    };
    words(code).any(|word| word == secret) || in_message(text)
}

#[cfg(test)]
mod tests {
    use super::super::bad::{findings, refused};
    use super::*;

    const PATH: &str = "crates/app/src/lib.rs";

    #[track_caller]
    fn refuses(call: &str, secret: &str) {
        let found = findings(check, PATH, &format!("//! A.\nfn b() {{\n    {call};\n}}\n"));
        refused(&found, &format!("{PATH}:3:"), &format!("`{secret}`"));
    }

    #[track_caller]
    fn accepts(call: &str) {
        let found = findings(check, PATH, &format!("//! A.\nfn b() {{\n    {call};\n}}\n"));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn secrets_are_refused() {
        refuses("tracing::info!(prompt, \"queued\")", "prompt");
        refuses("warn!(task = %task.id, text = %request.negative_prompt, \"queued\")", "negative_prompt");
        refuses("error!(\n        \"no key for {token}\"\n    )", "token");
        refuses("debug!(\"fetching {url:?}\")", "url");
        refuses("let _span = tracing::info_span!(\"keys\", key = secret.as_str())", "secret");
    }

    #[test]
    fn words_about_secrets_are_not_secrets() {
        accepts("info!(task.id = %task.id, \"the prompt was accepted\")");
        accepts("info!(prompt_chars, \"queued\")");
        accepts("let answer = format!(\"{token}\")");
        accepts("assert!(token.is_empty())");
    }

    #[test]
    fn an_instrumented_function_skips_its_arguments() {
        let found = findings(check, PATH, "//! A.\n#[tracing::instrument(level = \"debug\")]\nfn b() {}\n");
        refused(&found, &format!("{PATH}:2:"), "skip_all");
        refused(&findings(check, PATH, "//! A.\n#[instrument]\nfn b() {}\n"), &format!("{PATH}:2:"), "skip_all");
        accepts("call.instrument(span)");
        assert!(findings(check, PATH, "//! A.\n#[tracing::instrument(skip_all)]\nfn b() {}\n").is_empty());
    }
}
