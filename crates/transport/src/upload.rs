//! A request's body that tells whether all of it has left: what has not cannot have been accepted.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// What is handed over at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Bytes to send, of a length that is told.
pub struct Upload {
    rest: Bytes,
    has_left: HasLeft,
}

/// Whether the last of an upload's bytes was handed over for sending, and so may have arrived.
#[derive(Clone, Debug, Default)]
pub struct HasLeft(Arc<AtomicBool>);

impl Upload {
    pub fn new(bytes: Bytes) -> (Self, HasLeft) {
        let has_left = HasLeft(Arc::new(AtomicBool::new(bytes.is_empty())));
        (Self { rest: bytes, has_left: has_left.clone() }, has_left)
    }
}

impl HasLeft {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let n_bytes = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(n_bytes);
        if self.rest.is_empty() {
            self.has_left.0.store(true, Ordering::SeqCst);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange;
    use http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Sends a body to a host that reads so much and closes; whether all had left by then, and what the host read.
    async fn sent(n_bytes: usize, n_read: usize) -> (bool, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let host = tokio::spawn(async move {
            let mut read = vec![0; n_read];
            let mut n = 0;
            while n < n_read {
                match theirs.read(&mut read[n..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => n += more,
                }
            }
            let _ = theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            read.truncate(n);
            read
        });
        let (upload, has_left) = Upload::new(Bytes::from(vec![b'x'; n_bytes]));
        let request = Request::post("/").header("host", "h").body(upload).unwrap();
        let _ = exchange(ours, request).await;
        (has_left.get(), host.await.unwrap())
    }

    #[tokio::test]
    async fn what_was_not_read_has_not_left() {
        const MANY: usize = 4 << 20;
        assert!(!sent(MANY, 1000).await.0);
        let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4194304\r\n\r\n";
        let (has_left, read) = sent(MANY, head.len() + MANY).await;
        assert!(has_left && read.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&read[..head.len()]));
        assert_eq!(read.len(), head.len() + MANY);
    }

    #[test]
    fn nothing_has_left_once_there_is_nothing() {
        assert!(Upload::new(Bytes::new()).1.get());
        assert!(!Upload::new(Bytes::from_static(b"x")).1.get());
    }
}
