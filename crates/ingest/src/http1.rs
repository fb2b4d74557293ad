//! One GET over one connection, with the body cut off at the limit.

use crate::connect::Stream;
use crate::error::FetchError;
use crate::target::Target;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

const HEADERS_MAX: usize = 64;
/// The head of an answer, and what is read of its body at once.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// No image is told by fewer bytes; with so many an answer that is none can be hung up on.
const MAGIC_BYTES: usize = 32;

/// What the host answered.
pub(crate) enum Answer {
    Picture(Bytes),
    /// The `Location`, unread.
    Redirect(Vec<u8>),
}

pub(crate) async fn get(
    stream: impl Stream + 'static,
    target: &Target,
    bytes_max: usize,
) -> Result<Answer, FetchError> {
    let (mut sender, connection) = Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| FetchError::BadAnswer)?;
    // Dropped with this future, on success, error and timeout alike, and the connection with it.
    let _driver = Driver(tokio::spawn(async move {
        // Its error comes to us through the answer as well.
        let _ = connection.await;
    }));
    let answer = sender.send_request(request(target)?).await.map_err(|_| FetchError::BadAnswer)?;
    match answer.status() {
        StatusCode::OK => picture(answer, bytes_max).await.map(Answer::Picture),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = answer.headers().get(header::LOCATION).ok_or(FetchError::BadRedirect)?;
            Ok(Answer::Redirect(location.as_bytes().to_vec()))
        }
        status => Err(FetchError::Status(status.as_u16())),
    }
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(target: &Target) -> Result<Request<Empty<Bytes>>, FetchError> {
    Request::get(target.path_and_query())
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, concat!("Pentimento/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.5")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::BadUrl)
}

async fn picture(answer: Response<Incoming>, bytes_max: usize) -> Result<Bytes, FetchError> {
    if is_encoded(answer.headers()) {
        return Err(FetchError::Encoded);
    }
    let mut body = answer.into_body();
    // What the host announces; what it sends is counted below.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(FetchError::TooManyBytes(bytes_max));
    }
    let mut bytes = Vec::new();
    let mut is_image = false;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| FetchError::BadAnswer)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(FetchError::TooManyBytes(bytes_max));
        }
        bytes.extend_from_slice(&data);
        if !is_image && bytes.len() >= MAGIC_BYTES {
            imaging::format::recognize(&bytes)?;
            is_image = true;
        }
    }
    Ok(Bytes::from(bytes))
}

/// An encoded body can unpack to a thousand times its size, and we asked for none.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
