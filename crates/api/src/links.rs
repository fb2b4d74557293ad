//! The URLs under which a client finds results: this server as the client reaches it.

use crate::{Api, Config};
use axum::extract::FromRequestParts;
use domain::id::BlobKey;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use std::convert::Infallible;

const HOST_CHARS_MAX: usize = 255;

/// Makes absolute URLs.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    base: String,
}

impl Links {
    pub(crate) fn result(&self, key: &BlobKey) -> String {
        format!("{}/results/{key}", self.base)
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn of(config: &Config, host: Option<&str>) -> Self {
        let base = match (&config.public_url, host.filter(|host| is_plain(host))) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(host)) => format!("http://{host}"),
            (None, None) => config.fallback_url.trim_end_matches('/').to_owned(),
        };
        Self { base }
    }
}

impl FromRequestParts<Api> for Links {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        Ok(Self::of(api.config(), host))
    }
}

/// A name or an address with an optional port: what a client says here ends in URLs that others may open.
fn is_plain(host: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (1..=HOST_CHARS_MAX).contains(&host.len())
        && host.bytes().all(allowed)
        && host.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use std::time::Duration;

    #[track_caller]
    fn check(public_url: Option<&str>, host: Option<&str>, expect: &str) {
        let config = Config {
            public_url: public_url.map(str::to_owned),
            fallback_url: "http://127.0.0.1:1".to_owned(),
            sync_wait: Duration::ZERO,
            limits: Limits::default(),
        };
        assert_eq!(Links::of(&config, host).base(), expect);
    }

    #[test]
    fn only_a_plain_host_is_believed() {
        check(None, Some("pictures.example:8080"), "http://pictures.example:8080");
        check(None, Some("[::1]:8080"), "http://[::1]:8080");
        for host in ["", "a b", "evil@host", "host/path", "host?x", "a:b:c", "<script>", &"a".repeat(300)] {
            check(None, Some(host), "http://127.0.0.1:1");
        }
        check(None, None, "http://127.0.0.1:1");
        check(Some("https://api.example/base/"), Some("other"), "https://api.example/base");
    }
}
