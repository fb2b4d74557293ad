//! A TCP stream that keeps back hyper's own bodiless answers, knows whether the client is owed one, and gives up on a
//! client that takes nothing of what it is sent.

use http::StatusCode;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Longer than any answer that hyper makes of its own accord, bytes.
const OWN_ANSWER_BYTES_MAX: usize = 256;

pub(super) struct Overheard {
    stream: TcpStream,
    suppressed: Option<StatusCode>,
    /// Bytes came after the last that were sent.
    is_owed_answer: bool,
    stall: Stall,
}

impl Overheard {
    pub(super) fn new(stream: TcpStream, stall_max: Duration) -> Self {
        Self { stream, suppressed: None, is_owed_answer: false, stall: Stall::new(stall_max) }
    }

    /// The status of an answer that was kept back; a better one is to be sent in its place.
    pub(super) fn suppressed(&self) -> Option<StatusCode> {
        self.suppressed
    }

    pub(super) fn is_owed_answer(&self) -> bool {
        self.is_owed_answer
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Overheard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.is_owed_answer = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(status) = own_answer(buf) {
            self.suppressed = Some(status);
            return Poll::Ready(Ok(buf.len()));
        }
        self.is_owed_answer = false;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall.limit(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && let Some(status) = own_answer(only)
        {
            self.suppressed = Some(status);
            return Poll::Ready(Ok(only.len()));
        }
        self.is_owed_answer = false;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stall.limit(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The clock of a write that makes no progress.
struct Stall {
    max: Duration,
    end: Pin<Box<Sleep>>,
    is_running: bool,
}

impl Stall {
    fn new(max: Duration) -> Self {
        Self { max, end: Box::pin(sleep(Duration::ZERO)), is_running: false }
    }

    /// Fails a write that has been pending for too long.
    fn limit(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.is_running = false;
            return written;
        }
        if !self.is_running {
            self.is_running = true;
            self.end.as_mut().reset(Instant::now() + self.max);
        }
        ready!(self.end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

/// The status of a whole answer of a 4xx kind without a body: hyper's own, since no route here sends such a one.
fn own_answer(bytes: &[u8]) -> Option<StatusCode> {
    if bytes.len() > OWN_ANSWER_BYTES_MAX || !bytes.starts_with(b"HTTP/1.") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let status: StatusCode = text.split(' ').nth(1)?.parse().ok()?;
    let is_bodiless = text.to_ascii_lowercase().contains("\r\ncontent-length: 0\r\n");
    (status.is_client_error() && is_bodiless).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bodiless_refusal_is_kept_back() {
        let refusal = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(own_answer(refusal), Some(StatusCode::BAD_REQUEST));
        let other = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(own_answer(other), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        for own in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"\r\n\r\n",
        ] {
            assert_eq!(own_answer(own), None);
        }
    }
}
