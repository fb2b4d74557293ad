//! Tells code from comments and literals in Rust text, so that a rule about code is not fooled by a string.

use std::ops::Range;

/// The text with comments and the insides of literals blanked out. Every byte keeps its place, every line its number.
pub(super) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let token = token(&bytes[at..]);
        for byte in &mut code[at + token.hidden.start..at + token.hidden.end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += token.length;
    }
    String::from_utf8(code).expect("whole comments and literals are blanked, this is a bug otherwise")
}

/// The identifiers and keywords of a line of code.
pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

struct Token {
    length: usize,
    /// The part that is no code.
    hidden: Range<usize>,
}

impl Token {
    fn code(length: usize) -> Self {
        Self { length, hidden: 0..0 }
    }

    fn comment(length: usize) -> Self {
        Self { length, hidden: 0..length }
    }

    /// A literal whose inside begins at `start` and whose closing delimiter takes `closing` bytes.
    fn literal(start: usize, length: usize, closing: usize) -> Self {
        Self { length, hidden: start..length.saturating_sub(closing).max(start) }
    }
}

/// The token at the start of the rest of a text, which is not empty.
fn token(rest: &[u8]) -> Token {
    match rest {
        [b'/', b'/', ..] => Token::comment(rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, 0),
        [b'\'', ..] => character(rest, 0),
        [first, ..] if is_word(*first) => word(rest),
        _ => Token::code(1),
    }
}

/// A word, or the literal that its last letters open: `b"…"`, `r#"…"#`, `b'…'`.
fn word(rest: &[u8]) -> Token {
    let length = rest.iter().position(|&b| !is_word(b)).unwrap_or(rest.len());
    match (&rest[..length], rest.get(length)) {
        (b"b" | b"c", Some(b'"')) => quoted(rest, length),
        (b"b", Some(b'\'')) => character(rest, length),
        (b"r" | b"br" | b"cr", Some(b'"' | b'#')) => raw(rest, length),
        _ => Token::code(length),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> Token {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Token::comment(at)
}

/// A string with escapes whose opening quote is at `open`.
fn quoted(rest: &[u8], open: usize) -> Token {
    let mut at = open + 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return Token::literal(open + 1, at + 1, 1),
            _ => at += 1,
        }
    }
    Token::literal(open + 1, rest.len(), 0)
}

/// A string without escapes whose hashes begin at `open`; a raw identifier (`r#type`) is code.
fn raw(rest: &[u8], open: usize) -> Token {
    let n_hashes = rest[open..].iter().take_while(|&&b| b == b'#').count();
    let start = open + n_hashes + 1;
    if rest.get(start - 1) != Some(&b'"') {
        return Token::code(open + n_hashes);
    }
    let closing = [b"\"".as_slice(), &b"#".repeat(n_hashes)].concat();
    let inside = rest[start..].windows(closing.len()).position(|window| window == closing);
    match inside {
        Some(inside) => Token::literal(start, start + inside + closing.len(), closing.len()),
        None => Token::literal(start, rest.len(), 0),
    }
}

/// A character whose opening quote is at `open`; the quote of a lifetime is code.
fn character(rest: &[u8], open: usize) -> Token {
    let inside = &rest[open + 1..];
    let n_escaped = if inside.first() == Some(&b'\\') { 2 } else { 1 };
    // The longest characters are `\u{10ffff}`; a quote further away belongs to something else.
    let close = inside.iter().take(12).skip(n_escaped).position(|&b| b == b'\'').map(|idx| idx + n_escaped);
    let is_character = |length: usize| {
        n_escaped == 2 || std::str::from_utf8(&inside[..length]).is_ok_and(|text| text.chars().count() == 1)
    };
    match close {
        Some(length) if is_character(length) => Token::literal(open + 1, open + length + 2, 1),
        _ => Token::code(open + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str) {
        assert_eq!(code_of(text), code);
    }

    #[test]
    fn comments_are_blanked() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check("a /* b\nc */ d", "a     \n     d");
    }

    #[test]
    fn literals_keep_their_quotes() {
        check(r#"a("b \" // c") d"#, r#"a("         ") d"#);
        check(r##"a(r#"b " c"#)"##, r##"a(r#"     "#)"##);
        check("a(b\"x\", b'y', '\\'', '\\u{e9}', 'é')", "a(b\" \", b' ', '  ', '      ', '  ')");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        check("fn a<'b>(c: &'b str, d: &'b str) {}", "fn a<'b>(c: &'b str, d: &'b str) {}");
        check("r#type(\"a\")", "r#type(\" \")");
    }

    #[test]
    fn an_open_literal_ends_with_the_text() {
        check("a \"b", "a \" ");
        check("a r#\"b", "a r#\" ");
        check("a /* b", "a     ");
    }

    #[test]
    fn words_are_identifiers() {
        assert_eq!(words("let a_b = c::d(&e);").collect::<Vec<_>>(), ["let", "a_b", "c", "d", "e"]);
    }
}
