//! GET over HTTP/1.1, with redirects: the token stays with the hub, and every wait has an end.

use super::Patience;
use super::endpoint::{Endpoint, Token, host_of};
use super::error::PullError;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use std::net::IpAddr;
use std::time::Instant;
use tokio::time::timeout;
use transport::{Destination, Stream, Tls, TransportError};
use url::Url;

/// A hub sends a download to its network of copies, and that at times to another.
const REDIRECTS_MAX: usize = 5;
/// Of a URL that is redirected to; signed ones have a tenth of it.
const URL_BYTES_MAX: usize = 16 << 10;

/// Asks one hub.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    pub(super) patience: Patience,
    token: Option<Token>,
    tls: Tls,
}

/// The last answer of a chain of redirects.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The hub's own, from the first answer of the chain: they tell of the file that is redirected to.
    pub(super) hub_headers: HeaderMap,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Client {
    pub(super) fn new(
        endpoint: Endpoint,
        token: Option<Token>,
        extra_roots_pem: Option<&[u8]>,
        patience: Patience,
    ) -> Result<Self, PullError> {
        let tls = Tls::new(extra_roots_pem).map_err(|invalid| PullError::Setting {
            setting: "SSL_CERT_FILE",
            problem: format!("got {}; allowed: {}", invalid.got, invalid.allowed),
        })?;
        Ok(Self { endpoint, patience, token, tls })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Follows redirects. Any status but theirs is an answer.
    pub(super) async fn get(&self, mut url: Url, extra: &[(HeaderName, HeaderValue)]) -> Result<Answer, PullError> {
        let mut token = self.token.as_ref().filter(|_| self.endpoint.is_origin_of(&url));
        let mut hub_headers = None;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send(&url, request(&url, token, extra)).await?;
            let hub_headers = hub_headers.get_or_insert_with(|| answer.headers.clone());
            if !is_redirect(answer.status) {
                let body = Body::new(answer.body, host_of(&url), self.patience.clone());
                let (status, headers) = (answer.status, answer.headers);
                return Ok(Answer { status, hub_headers: hub_headers.clone(), headers, body });
            }
            let next = followed(&url, &answer.headers)?;
            // Whoever else is asked has no business with the token, nor has the hub at such a stranger's request.
            token = token.filter(|_| self.endpoint.is_origin_of(&next));
            url = next;
        }
        Err(PullError::Redirect { host: host_of(&url), problem: "too often" })
    }

    async fn send(&self, url: &Url, request: Request<Empty<Bytes>>) -> Result<transport::Answer, PullError> {
        let host = host_of(url);
        let failed = |error: TransportError| match error {
            TransportError::Tls => PullError::Tls { host: host.clone() },
            TransportError::Connect => PullError::Unreachable { host: host.clone() },
            TransportError::BadAnswer | TransportError::TooManyBytes(_) => PullError::Broken { host: host.clone() },
        };
        let late = |_| PullError::TimedOut { host: host.clone() };
        let connecting = timeout(self.patience.connect, self.connect(url));
        let stream = connecting.await.map_err(late)?.map_err(failed)?;
        let answer = timeout(self.patience.answer, transport::exchange(stream, request)).await;
        answer.map_err(late)?.map_err(failed)
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, TransportError> {
        let (name, port) = (name_of(url), url.port_or_known_default().unwrap_or_default());
        let found = tokio::net::lookup_host((name, port)).await.map_err(|_| TransportError::Connect)?;
        let addresses: Vec<IpAddr> = found.map(|socket| socket.ip()).collect();
        let encrypted_for = (url.scheme() == "https").then_some(name);
        self.tls.connect(Destination { addresses: &addresses, port, encrypted_for }).await
    }
}

/// A body that must not stop or trickle.
pub(super) struct Body {
    inner: transport::Body,
    host: String,
    patience: Patience,
    window_begin: Instant,
    window_bytes: u64,
}

impl Body {
    fn new(inner: transport::Body, host: String, patience: Patience) -> Self {
        Self { inner, host, patience, window_begin: Instant::now(), window_bytes: 0 }
    }

    /// The next piece; `None` at the end of a body that is whole.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        let piece = timeout(self.patience.idle, self.inner.chunk()).await;
        let piece = piece.map_err(|_| PullError::TimedOut { host: self.host.clone() })?;
        let piece = piece.map_err(|_| PullError::Broken { host: self.host.clone() })?;
        if let Some(data) = &piece {
            self.count(data.len() as u64)?;
        }
        Ok(piece)
    }

    /// The whole of a body that may not be large; `None` if it is.
    pub(super) async fn collect(mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, PullError> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next().await? {
            if bytes.len() + data.len() > bytes_max {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Some(bytes))
    }

    fn count(&mut self, n_bytes: u64) -> Result<(), PullError> {
        self.window_bytes += n_bytes;
        if self.window_begin.elapsed() < self.patience.slow_window {
            return Ok(());
        }
        if self.window_bytes < self.patience.slow_bytes {
            return Err(PullError::TimedOut { host: self.host.clone() });
        }
        (self.window_begin, self.window_bytes) = (Instant::now(), 0);
        Ok(())
    }
}

fn request(url: &Url, token: Option<&Token>, extra: &[(HeaderName, HeaderValue)]) -> Request<Empty<Bytes>> {
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::get(path)
        .header(header::HOST, host_of(url))
        .header(header::USER_AGENT, concat!("pentimento/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .expect("a parsed URL makes a request, this is a bug");
    if let Some(token) = token {
        request.headers_mut().insert(header::AUTHORIZATION, token.header());
    }
    request.headers_mut().extend(extra.iter().cloned());
    request
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn followed(url: &Url, headers: &HeaderMap) -> Result<Url, PullError> {
    let wrong = |problem| PullError::Redirect { host: host_of(url), problem };
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok()).ok_or_else(|| wrong("to what is no URL"))?;
    match (url.scheme(), next.scheme()) {
        ("https", "http") => Err(wrong("from https to http")),
        (_, "http" | "https") if next.as_str().len() > URL_BYTES_MAX => Err(wrong("to a URL that is too long")),
        (_, "http" | "https") if next.has_host() => Ok(next),
        _ => Err(wrong("to what is no web address")),
    }
}

/// Brackets are a URL's way to write an address, not the resolver's.
fn name_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn follows(from: &str, location: &str, expect: Option<&str>) {
        let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_str(location).unwrap())]);
        let next = followed(&Url::parse(from).unwrap(), &headers);
        assert_eq!(next.ok().as_ref().map(Url::as_str), expect, "{location}");
    }

    #[test]
    fn encryption_is_never_lost_on_the_way() {
        follows("https://a.test/x", "https://b.test/y?z", Some("https://b.test/y?z"));
        follows("https://a.test/x", "/y", Some("https://a.test/y"));
        follows("http://a.test/x", "https://a.test/y", Some("https://a.test/y"));
        follows("https://a.test/x", "http://a.test/y", None);
        follows("https://a.test/x", "file:///etc/passwd", None);
        follows("https://a.test/x", "data:,x", None);
    }

    #[test]
    fn a_url_that_fits_no_request_is_not_followed() {
        follows("https://a.test/x", &format!("/{}", "y".repeat(70_000)), None);
    }
}
