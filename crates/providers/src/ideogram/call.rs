//! One call, tried again only while nobody can have been charged for it.
//!
//! What is safe to try again: no connection, one that broke before all of the request had left, and an answer that says
//! that nothing was painted (429, and 5xx but 504). What is not: silence, or a broken answer, after all of the request
//! had left, and a 504, which says that a machine in between gave up waiting. Those may have been painted and charged,
//! so they end the task in words that say so.

use super::answer::{self, Painted};
use super::config::IdeogramConfig;
use super::form::Form;
use engine::EngineError;
use http::{Request, StatusCode, header};
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use transport::{Answer, Destination, HasLeft, Stream, Tls, TransportError, Upload, exchange, retry_after};
use url::Host;

const ENDPOINT: &str = "/v1/ideogram-v3/remix";
const KEY_HEADER: &str = "api-key";
/// An answer is links and prompts, eight at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What became of one try.
enum Setback {
    /// Nothing was painted; another try costs nothing.
    Again {
        why: String,
        asked: Option<Duration>,
    },
    Final(EngineError),
}

/// Who calls, and whom.
pub(crate) struct Caller<'a> {
    pub(crate) config: &'a IdeogramConfig,
    pub(crate) tls: &'a Tls,
}

impl Caller<'_> {
    /// The pictures that were painted, in order.
    pub(crate) async fn remix(&self, form: &Form) -> Result<Vec<Painted>, EngineError> {
        let backoff = self.config.backoff;
        let mut n_tries = 0;
        loop {
            n_tries += 1;
            let (why, asked) = match self.try_once(form).await {
                Ok(painted) => return Ok(painted),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Again { why, asked }) => (why, asked),
            };
            if n_tries >= backoff.tries_max {
                return Err(EngineError::Failed(format!("Ideogram: {why} (asked {n_tries} times)")));
            }
            let pause = backoff.pause(n_tries, asked);
            tracing::warn!(why, n_tries, pause_s = pause.as_secs_f64(), "Ideogram is asked again after a pause");
            sleep(pause).await;
        }
    }

    async fn try_once(&self, form: &Form) -> Result<Vec<Painted>, Setback> {
        let (upload, has_left) = Upload::new(form.body.clone());
        let limit = self.config.call_time_max;
        match timeout(limit, self.ask(form, upload, &has_left)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(broken(&has_left, &format!("no whole answer within {} s", limit.as_secs().max(1)))),
        }
    }

    async fn ask(&self, form: &Form, upload: Upload, has_left: &HasLeft) -> Result<Vec<Painted>, Setback> {
        let stream = self.connect().await?;
        let request = self.request(form, upload)?;
        let answer = exchange(stream, request).await;
        let answer = answer.map_err(|_| broken(has_left, "the connection broke before an answer"))?;
        judged(&answer)?;
        let is_json = answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"))
        });
        let body = answer.body.whole(ANSWER_BYTES_MAX).await.map_err(|error| match error {
            TransportError::TooManyBytes(_) => lost("the answer is too large"),
            _ => lost("the connection broke within the answer"),
        })?;
        if !is_json {
            return Err(lost("the answer is no JSON"));
        }
        answer::read(&body).map_err(|_| lost("the answer cannot be read"))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Setback> {
        let connecting = timeout(self.config.connect_time_max, self.connect_without_limit());
        connecting.await.unwrap_or_else(|_| Err(again(&TransportError::Connect.to_string())))
    }

    async fn connect_without_limit(&self) -> Result<Box<dyn Stream>, Setback> {
        let base = &self.config.base_url;
        let (host, addresses) = match base.host() {
            Host::Ipv4(address) => (address.to_string(), vec![IpAddr::V4(address)]),
            Host::Ipv6(address) => (address.to_string(), vec![IpAddr::V6(address)]),
            Host::Domain(name) => {
                let found =
                    lookup_host((name, base.port())).await.map_err(|_| again("its name leads to no address"))?;
                (name.to_owned(), found.map(|socket| socket.ip()).collect())
            }
        };
        let encrypted_for = base.is_encrypted().then_some(host.as_str());
        let to = Destination { addresses: &addresses, port: base.port(), encrypted_for };
        self.tls.connect(to).await.map_err(|error| again(&error.to_string()))
    }

    fn request(&self, form: &Form, upload: Upload) -> Result<Request<Upload>, Setback> {
        let base = &self.config.base_url;
        let request = Request::post(base.path(ENDPOINT))
            .header(header::HOST, base.authority())
            .header(KEY_HEADER, self.config.key.header())
            .header(header::USER_AGENT, concat!("Pentimento/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONTENT_TYPE, &form.content_type)
            .header(header::CONNECTION, "close")
            .body(upload);
        request.map_err(|_| Setback::Final(EngineError::Failed("the request cannot be written".to_owned())))
    }
}

/// What the status says. Its body is for nobody: it may repeat the prompt.
fn judged(answer: &Answer) -> Result<(), Setback> {
    let status = answer.status;
    let told = format!("it answers with status {}", status.as_u16());
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::UNPROCESSABLE_ENTITY => Err(Setback::Final(EngineError::Unsafe(
            "Ideogram's safety check refuses the prompt or the reference picture".to_owned(),
        ))),
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
            Err(Setback::Final(EngineError::Denied(format!("Ideogram: {told}"))))
        }
        StatusCode::GATEWAY_TIMEOUT => Err(lost(&told)),
        StatusCode::TOO_MANY_REQUESTS => Err(Setback::Again { why: told, asked: retry_after(&answer.headers) }),
        _ if status.is_server_error() => Err(Setback::Again { why: told, asked: retry_after(&answer.headers) }),
        // The key goes to the configured address and to no other.
        _ if status.is_redirection() => {
            Err(Setback::Final(EngineError::Denied(format!("Ideogram: {told}, which is not followed"))))
        }
        _ if status.is_success() => Err(lost(&told)),
        _ => Err(Setback::Final(EngineError::Refused(format!("Ideogram refuses the request: {told}")))),
    }
}

fn again(why: &str) -> Setback {
    Setback::Again { why: why.to_owned(), asked: None }
}

fn lost(why: &str) -> Setback {
    let text = format!("Ideogram: {why}; it may have painted and charged, so it is not asked again");
    Setback::Final(EngineError::Lost(text))
}

/// A request of which a part never left cannot have been accepted.
fn broken(has_left: &HasLeft, why: &str) -> Setback {
    if has_left.get() { lost(why) } else { again(why) }
}
