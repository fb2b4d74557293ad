//! Where the hub is, and what lets us in.

use super::error::PullError;
use http::HeaderValue;
use std::fmt;
use url::Url;

const TOKEN_CHARS_MAX: usize = 512;

/// A hub's address, perhaps with a path before everything it serves.
#[derive(Clone)]
pub struct Endpoint(Url);

impl Endpoint {
    /// The public one.
    pub const DEFAULT: &str = "https://huggingface.co";

    /// An http or https URL without credentials, query and fragment.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let allowed = "allowed: an http or https URL without a user name, a query and a fragment";
        let wrong = || PullError::Setting { setting: "HF_ENDPOINT", problem: allowed.to_owned() };
        let url = Url::parse(text.trim()).map_err(|_| wrong())?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        if is_web && is_plain && url.fragment().is_none() { Ok(Self(url)) } else { Err(wrong()) }
    }

    /// How errors name it.
    pub fn host(&self) -> String {
        host_of(&self.0)
    }

    /// Where people read about a repository and accept its licence.
    pub fn page(&self, repository: &str) -> String {
        format!("{}/{repository}", self.0.as_str().trim_end_matches('/'))
    }

    /// A URL below the endpoint; every part is one part of the path, whatever it is made of.
    pub(super) fn at<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.0.clone();
        url.path_segments_mut().expect("an http URL has a path, this is a bug").pop_if_empty().extend(parts);
        url
    }

    /// Whether a request there may carry the token.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }
}

/// A host and, if it is not the usual one, its port.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A secret. Never printed; sent to the endpoint and to nobody else.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// One word of visible ASCII; surrounding space is not a part of it.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let text = text.trim();
        let well_formed = (1..=TOKEN_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let value = well_formed.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok()).flatten();
        let allowed = format!("allowed: 1 to {TOKEN_CHARS_MAX} visible ASCII characters");
        let mut value = value.ok_or(PullError::Setting { setting: "HF_TOKEN", problem: allowed })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_stays_one_part() {
        let endpoint = Endpoint::parse("http://localhost:9/hub/").unwrap();
        let url = endpoint.at(["api", "models", "o", "n", "tree", "refs/pr/1"]);
        assert_eq!(url.as_str(), "http://localhost:9/hub/api/models/o/n/tree/refs%2Fpr%2F1");
        assert_eq!(endpoint.page("o/n"), "http://localhost:9/hub/o/n");
        assert_eq!(endpoint.host(), "localhost:9");
    }

    #[test]
    fn an_endpoint_is_a_plain_url() {
        for text in ["", "huggingface.co", "ftp://x", "https://u:p@x", "https://x?a", "https://x#a"] {
            let error = Endpoint::parse(text).err().unwrap().to_string();
            assert!(error.starts_with("HF_ENDPOINT: "), "{text}: {error}");
        }
    }

    #[test]
    fn a_token_is_one_word_and_never_printed() {
        let token = Token::parse(" hf_secret\n").unwrap();
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
        for text in ["", "two words", "hf_\u{e9}", &"x".repeat(513)] {
            let error = Token::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("HF_TOKEN: allowed") && !error.contains("two words"), "{error}");
        }
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_endpoint() {
        let endpoint = Endpoint::parse("https://hub.test").unwrap();
        let check = |text: &str, expect: bool| assert_eq!(endpoint.is_origin_of(&Url::parse(text).unwrap()), expect);
        check("https://hub.test/anything", true);
        check("https://hub.test:443/", true);
        check("http://hub.test/", false);
        check("https://hub.test:444/", false);
        check("https://cdn.hub.test/", false);
    }
}
