//! One GET over one connection, with the body cut off at the limit.

use crate::error::FetchError;
use crate::target::Target;
use bytes::Bytes;
use domain::memory::{Held, Share};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use transport::{Body, Stream, exchange};

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
    memory: Share,
) -> Result<Answer, FetchError> {
    let answer = exchange(stream, request(target)?).await?;
    match answer.status {
        StatusCode::OK if is_encoded(&answer.headers) => Err(FetchError::Encoded),
        StatusCode::OK => picture(answer.body, bytes_max, memory).await.map(Answer::Picture),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = answer.headers.get(header::LOCATION).ok_or(FetchError::BadRedirect)?;
            Ok(Answer::Redirect(location.as_bytes().to_vec()))
        }
        status => Err(FetchError::Status(status.as_u16())),
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

async fn picture(mut body: Body, bytes_max: usize, memory: Share) -> Result<Bytes, FetchError> {
    // What the host announces; what it sends is counted below.
    if body.announced_bytes() > bytes_max as u64 {
        return Err(FetchError::TooManyBytes(bytes_max));
    }
    let mut held = Held::new(Vec::new(), memory);
    let mut is_image = false;
    while let Some(chunk) = body.chunk().await? {
        if held.len() + chunk.len() > bytes_max {
            return Err(FetchError::TooManyBytes(bytes_max));
        }
        held.extend(&chunk).map_err(|_| FetchError::Crowded)?;
        if !is_image && held.len() >= MAGIC_BYTES {
            imaging::format::recognize(held.as_ref())?;
            is_image = true;
        }
    }
    Ok(Bytes::from_owner(held))
}

/// An encoded body can unpack to a thousand times its size, and we asked for none.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
