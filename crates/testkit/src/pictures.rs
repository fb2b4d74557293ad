//! A server of pictures on the loopback interface, and the pictures.

use domain::quantity::Size;
use domain::request::OutputFormat;
use imaging::{Metadata, Picture, encode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves `/<width>x<height>.png` of any size, `/text` that is no picture, and whatever a test adds; 404 otherwise.
pub struct PictureServer {
    address: SocketAddr,
    n_served: Arc<AtomicUsize>,
}

impl PictureServer {
    pub async fn start() -> Self {
        Self::with(HashMap::new()).await
    }

    /// With answers of the test's own, by path: whole ones, head and all.
    pub async fn with(answers: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let n_served = Arc::new(AtomicUsize::new(0));
        let (answers, counter) = (Arc::new(answers), n_served.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, answers.clone(), counter.clone()));
            }
        });
        Self { address, n_served }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many requests came, whatever the answer.
    pub fn n_served(&self) -> usize {
        self.n_served.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, answers: Arc<HashMap<String, Vec<u8>>>, n_served: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    n_served.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let bytes = answers.get(path).cloned().unwrap_or_else(|| usual_answer(path));
    // Whoever does not listen to the end has its reasons.
    let _ = stream.write_all(&bytes).await;
}

fn usual_answer(path: &str) -> Vec<u8> {
    if path == "/text" {
        return http_answer("200 OK", "text/plain", b"not a picture");
    }
    let size = path.strip_prefix('/').and_then(|name| name.strip_suffix(".png")).and_then(|sides| {
        let (width, height) = sides.split_once('x')?;
        Some(Size::new(width.parse().ok()?, height.parse().ok()?))
    });
    match size {
        Some(size) => http_answer("200 OK", "image/png", &png(size)),
        None => http_answer("404 Not Found", "text/plain", b"nothing here"),
    }
}

/// A whole HTTP answer.
pub fn http_answer(status: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A picture in two colors, so that it is not the same upside down.
pub fn png(size: Size) -> Vec<u8> {
    let n_pixels = size.pixels() as usize;
    let upper = std::iter::repeat_n([200, 80, 40], n_pixels / 2);
    let lower = std::iter::repeat_n([40, 80, 200], n_pixels - n_pixels / 2);
    let picture = Picture::new(size, upper.chain(lower).flatten().collect()).expect("the pixels fill the size");
    let metadata = Metadata { software: "testkit".to_owned(), model: "none".to_owned(), seed: None };
    encode(&picture, OutputFormat::Png, &metadata).expect("a picture can be encoded")
}

/// Width and height as a PNG file's header tells them.
#[track_caller]
pub fn png_size(bytes: &[u8]) -> Size {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "not a PNG but {} bytes", bytes.len());
    let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    Size::new(side(16), side(20))
}
