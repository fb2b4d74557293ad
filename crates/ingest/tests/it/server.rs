//! A server written by hand, so that it can break every rule of HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server does with a connection after it has read the head of a request.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// The bytes again and again, as fast as they are taken.
    SendForever(Vec<u8>),
    Wait(Duration),
}

/// What to do for a path. It closes the connection afterwards.
pub(crate) type Script = Arc<dyn Fn(&str) -> Vec<Step> + Send + Sync>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    n_sent: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(script, None).await
    }

    pub(crate) async fn start_with(
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, heads: Arc::default(), n_sent: Arc::default() };
        let (script, heads, n_sent): (Script, _, _) = (Arc::new(script), server.heads.clone(), server.n_sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, heads, n_sent, tls) = (script.clone(), heads.clone(), n_sent.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, script, heads, n_sent).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            answer(stream, script, heads, n_sent).await;
                        }
                    }
                });
            }
        });
        server
    }

    /// One answer for every path.
    pub(crate) async fn answering(bytes: Vec<u8>) -> Self {
        Self::start(move |_| vec![Step::Send(bytes.clone())]).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same with a name instead of the address.
    pub(crate) fn url_at(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn n_requests(&self) -> usize {
        self.heads().len()
    }

    pub(crate) fn n_sent(&self) -> usize {
        self.n_sent.load(Ordering::SeqCst)
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    n_sent: Arc<AtomicUsize>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    for step in script(&path) {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                n_sent.fetch_add(bytes.len(), Ordering::SeqCst);
            }
            Step::SendForever(bytes) => loop {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                n_sent.fetch_add(bytes.len(), Ordering::SeqCst);
            },
            Step::Wait(time) => tokio::time::sleep(time).await,
        }
    }
    let _ = stream.shutdown().await;
}

/// A well-formed answer.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    with_headers(200, &format!("Content-Length: {}\r\n", body.len()), body)
}

pub(crate) fn with_headers(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Because\r\nContent-Type: image/png\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

pub(crate) fn redirect(location: &str) -> Vec<u8> {
    with_headers(302, &format!("Location: {location}\r\nContent-Length: 0\r\n"), b"")
}
