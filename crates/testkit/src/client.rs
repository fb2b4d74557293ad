//! A client over a bare socket: polite calls, and any bytes at all.

use crate::reply::Reply;
use serde_json::Value;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer of a healthy server takes in a test.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub token: Option<String>,
}

/// A call in the making.
#[derive(Clone, Debug)]
pub struct Call {
    client: Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: Some(token.to_owned()) }
    }

    pub fn anonymous(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        let token = self.token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        Call {
            client: self.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: token.collect(),
            body: Vec::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path).send().await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path).send().await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path).json(body).send().await
    }

    /// The last part of a URL that the server gave.
    pub async fn get_url(&self, url: &str) -> Reply {
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = after_scheme.find('/').map_or("/", |slash| &after_scheme[slash..]);
        self.get(path).await
    }
}

impl Call {
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// The call as it travels.
    pub fn bytes(&self) -> Vec<u8> {
        let (method, path) = (&self.method, &self.path);
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.client.address);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").expect("writing to memory does not fail");
        }
        write!(head, "content-length: {}\r\n\r\n", self.body.len()).expect("writing to memory does not fail");
        [head.into_bytes(), self.body.clone()].concat()
    }

    pub async fn send(&self) -> Reply {
        let (method, path) = (&self.method, &self.path);
        let bytes = exchange(self.client.address, &self.bytes()).await;
        Reply::parse(&bytes).unwrap_or_else(|| panic!("{method} {path}: no answer but {} bytes", bytes.len()))
    }

    /// Like [`Call::send`], for a server that may die at any moment: `None` unless a whole answer came.
    pub async fn try_send(&self) -> Option<Reply> {
        let stream = TcpStream::connect(self.client.address).await.ok()?;
        let reply = Reply::parse(&converse(stream, &self.bytes()).await)?;
        let length: usize = reply.header("content-length")?.parse().ok()?;
        (reply.body.len() == length).then_some(reply)
    }

    /// Sends the call and leaves the connection open, for a caller that goes away.
    pub async fn begin(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.client.address).await.expect("the server listens");
        stream.write_all(&self.bytes()).await.expect("the server reads");
        stream
    }
}

/// Sends bytes and returns all that comes back until the server closes. Keeps its own side open, as browsers do.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    converse(TcpStream::connect(address).await.expect("the server listens"), request).await
}

async fn converse(mut stream: TcpStream, request: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    // Both at once: a server may answer before it has read everything.
    let both = async { tokio::join!(writing.write_all(request), reading.read_to_end(&mut answer)) };
    let outcome = timeout(PATIENCE, both).await;
    assert!(outcome.is_ok(), "no end of the answer within {PATIENCE:?}; so far {} bytes", answer.len());
    answer
}
