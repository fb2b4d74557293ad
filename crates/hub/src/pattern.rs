//! Which files of a repository are meant: paths with `*` for anything within one of their parts.

use std::fmt;

/// A relative path, such as `vae/*.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// `None` unless every part between the slashes has a name, and none of them leads elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let well_formed = text.split('/').all(is_part) && !text.contains('\\');
        well_formed.then(|| Self(text.to_owned()))
    }

    pub fn matches(&self, path: &str) -> bool {
        let (mut pattern, mut parts) = (self.0.split('/'), path.split('/'));
        loop {
            match (pattern.next(), parts.next()) {
                (None, None) => return true,
                (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every piece between two stars is taken where it first occurs; the last one must end the part.
fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == part };
    let Some(mut part) = part.strip_prefix(begin) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, after)) = part.split_once(piece) else { return false };
        part = after;
    }
    part.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expect: bool) {
        assert_eq!(Pattern::parse(pattern).unwrap().matches(path), expect, "{pattern} {path}");
    }

    #[test]
    fn a_star_stays_within_its_part() {
        check("vae/*.json", "vae/config.json", true);
        check("vae/*.json", "vae/deep/config.json", false);
        check("vae/*.json", "config.json", false);
        check("*.json", "vae/config.json", false);
        check("model_index.json", "model_index.json", true);
        check("model_index.json", "model_index.json.orig", false);
        check("*/*.safetensors", "unet/model.fp16.safetensors", true);
        check("model*-of-*.safetensors", "model-1-of-2.safetensors", true);
        check("model*-of-*.safetensors", "model.safetensors", false);
        check("a*a", "a", false);
        check("*", "anything", true);
    }

    #[test]
    fn a_pattern_that_leads_elsewhere_is_none() {
        for text in ["", "/etc/passwd", "../x", "a//b", "a/./b", "a\\b", "a/"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
