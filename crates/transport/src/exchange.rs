//! A request out, and the answer in: its head at once, its body as the caller reads it.

use crate::connect::Stream;
use crate::error::TransportError;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::task::JoinHandle;

const HEADERS_MAX: usize = 64;
/// The head of an answer, and what is read of its body at once.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What the host answered.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// The rest of an answer. The connection ends when it is dropped.
pub struct Body {
    incoming: Incoming,
    _driver: Driver,
}

/// Sends the request and waits for the head of the answer.
///
/// # Errors
/// [`TransportError::BadAnswer`] for a connection that breaks and for what is not HTTP. How much of the request had
/// arrived by then cannot be known.
pub async fn exchange<B>(stream: impl Stream + 'static, request: Request<B>) -> Result<Answer, TransportError>
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let handshake =
        Builder::new().max_headers(HEADERS_MAX).max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| TransportError::BadAnswer)?;
    // Dropped with this future or with the body, on success, error and timeout alike, and the connection with it.
    let driver = Driver(tokio::spawn(async move {
        // Its error comes to us through the answer as well.
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await.map_err(|_| TransportError::BadAnswer)?;
    let (head, incoming) = answer.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, body: Body { incoming, _driver: driver } })
}

impl Body {
    /// The least that the host announces, bytes; what it sends may be another number.
    pub fn announced_bytes(&self) -> u64 {
        self.incoming.size_hint().lower()
    }

    /// The next bytes; `None` after the last.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        while let Some(frame) = self.incoming.frame().await {
            // What is no data is a trailer, which nobody here wants.
            if let Ok(data) = frame.map_err(|_| TransportError::BadAnswer)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything, if it is no more than this.
    pub async fn whole(mut self, bytes_max: usize) -> Result<Bytes, TransportError> {
        if self.announced_bytes() > bytes_max as u64 {
            return Err(TransportError::TooManyBytes(bytes_max));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(TransportError::TooManyBytes(bytes_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    }
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The answer to a request, when the host sends these bytes and closes.
    async fn answer(bytes: &'static [u8]) -> Result<Answer, TransportError> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = theirs.read(&mut head).await;
            let _ = theirs.write_all(bytes).await;
        });
        let request = Request::get("/").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
        exchange(ours, request).await
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let whole = |bytes_max| async move {
            let answer =
                answer(b"HTTP/1.1 201 Made\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n");
            let answer = answer.await.unwrap();
            assert_eq!((answer.status.as_u16(), &answer.headers["x-a"]), (201, &"b".parse().unwrap()));
            answer.body.whole(bytes_max).await
        };
        assert_eq!(whole(4).await.as_deref(), Ok(&b"abcd"[..]));
        assert_eq!(whole(3).await, Err(TransportError::TooManyBytes(3)));
        let announced = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        assert_eq!(announced.body.announced_bytes(), 5);
        assert_eq!(announced.body.whole(4).await, Err(TransportError::TooManyBytes(4)), "before it is read");
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_answer() {
        for bytes in [&b""[..], b"HTTP/1.1 20", b"nonsense\r\n\r\n"] {
            assert_eq!(answer(bytes).await.err(), Some(TransportError::BadAnswer));
        }
        let half = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
        assert_eq!(half.body.whole(100).await, Err(TransportError::BadAnswer));
    }
}
