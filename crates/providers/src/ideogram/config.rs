//! What it takes to call Ideogram: a key, an address, and how long to be patient.

use crate::backoff::Backoff;
use domain::fault::Invalid;
use http::HeaderValue;
use ingest::FetchPolicy;
use std::fmt;
use std::time::Duration;
use url::{Host, Url};

const KEY_BYTES_MAX: usize = 512;
const OFFICIAL_URL: &str = "https://api.ideogram.ai";

#[derive(Clone, Debug)]
pub struct IdeogramConfig {
    pub key: ApiKey,
    pub base_url: BaseUrl,
    pub rendering_speed: RenderingSpeed,
    /// For one try of a call, from looking up the name to the last byte of the answer.
    pub call_time_max: Duration,
    /// For connecting once, lookup and encryption included.
    pub connect_time_max: Duration,
    pub backoff: Backoff,
    /// Where results may be fetched from; the links in an answer are as little to be trusted as a client's.
    pub results: FetchPolicy,
}

impl IdeogramConfig {
    /// With the official address and the usual patience.
    pub fn new(key: ApiKey) -> Self {
        Self {
            key,
            base_url: BaseUrl::official(),
            rendering_speed: RenderingSpeed::Default,
            call_time_max: Duration::from_secs(120),
            connect_time_max: Duration::from_secs(10),
            backoff: Backoff::default(),
            results: FetchPolicy { time_max: Duration::from_secs(30), ..FetchPolicy::default() },
        }
    }
}

/// The secret that an account is charged by.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// # Errors
    /// Never tells what it got.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(text).ok();
        let got = if text.is_empty() { "nothing" } else { "something else" };
        let mut value = value
            .filter(|_| is_visible && (1..=KEY_BYTES_MAX).contains(&text.len()))
            .ok_or_else(|| Invalid::new("Ideogram key", got, "1 to 512 visible ASCII characters"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// A key in a log is a key to be revoked.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Where the API is: the official host, or a proxy before it.
#[derive(Clone)]
pub struct BaseUrl(Url);

impl BaseUrl {
    pub fn official() -> Self {
        Self::parse(OFFICIAL_URL).expect("a valid URL, this is a bug")
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed = "an http or https URL without credentials, query and fragment";
        let url = Url::parse(text).ok().filter(|url| {
            let has_secrets = !url.username().is_empty() || url.password().is_some();
            let is_plain = url.query().is_none() && url.fragment().is_none();
            matches!(url.scheme(), "http" | "https") && url.host().is_some() && !has_secrets && is_plain
        });
        // What was given may hold a password.
        url.map(Self).ok_or_else(|| Invalid::new("Ideogram URL", "something else", allowed))
    }

    /// Whether the key travels encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(crate) fn host(&self) -> Host<&str> {
        self.0.host().expect("checked when parsed, this is a bug")
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// For the `Host` header: the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> &str {
        &self.0[url::Position::BeforeHost..url::Position::AfterPort]
    }

    /// The path of an endpoint below this address.
    pub(crate) fn path(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({})", self.authority())
    }
}

/// Ideogram's trade of time and money for quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderingSpeed {
    Turbo,
    Default,
    Quality,
}

impl RenderingSpeed {
    pub const ALL: [Self; 3] = [Self::Turbo, Self::Default, Self::Quality];

    /// As an operator writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turbo => "turbo",
            Self::Default => "default",
            Self::Quality => "quality",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|speed| speed.as_str() == text);
        found.ok_or_else(|| Invalid::new("rendering speed", text, "turbo, default or quality"))
    }

    pub(crate) const fn on_the_wire(self) -> &'static str {
        match self {
            Self::Turbo => "TURBO",
            Self::Default => "DEFAULT",
            Self::Quality => "QUALITY",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_told() {
        let key = ApiKey::parse("sesame-4711").unwrap();
        let config = IdeogramConfig::new(key);
        assert!(!format!("{config:?} {:?}", config.key.header()).contains("4711"));
        for bad in ["", "open sesame", "sesame\n", "sésame", &"x".repeat(513)] {
            let error = ApiKey::parse(bad).unwrap_err().to_string();
            assert!(error.contains("visible ASCII") && !error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn an_address_may_have_a_path_and_no_secrets() {
        let path = |base: &str| BaseUrl::parse(base).unwrap().path("/v1/x");
        assert_eq!(path("https://api.ideogram.ai"), "/v1/x");
        assert_eq!(path("http://proxy:8080/ideogram/"), "/ideogram/v1/x");
        for bad in ["", "proxy:8080", "ftp://a/", "https://user:word@a/", "https://a/?key=word", "https://a/#b"] {
            let error = BaseUrl::parse(bad).unwrap_err().to_string();
            assert!(error.contains("http or https") && !error.contains("word"), "{bad}: {error}");
        }
        assert!(BaseUrl::official().is_encrypted() && !BaseUrl::parse("http://a").unwrap().is_encrypted());
    }
}
