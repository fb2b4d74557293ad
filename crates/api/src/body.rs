//! A JSON body: its type, its size, the time it takes and the memory it holds are checked before its first byte is
//! parsed.

use crate::Api;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::wire::image_request::REFERENCE_NAMES;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use domain::fault::{ErrorCode, Fault};
use domain::limits::BODY_BYTES_MAX;
use domain::memory::Share;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;

/// A larger body is parsed on a thread of its own.
const PARSED_AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// A type that reads itself from a JSON object's fields.
pub(crate) trait FromFields: Sized {
    const NAMES: &'static [&'static str];

    fn from_fields(fields: Fields) -> Result<Self, Fault>;
}

/// A JSON body, parsed and as it came.
pub(crate) struct ApiJson<T> {
    pub(crate) value: T,
    pub(crate) raw: Bytes,
    /// Kept as long as the body is: all bodies together have a limit.
    pub(crate) memory: Share,
}

impl<T: FromFields> FromRequest<Api> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        check_length(request.headers())?;
        let mut memory = api.body_memory.share();
        let limit = api.config().limits.body_read;
        let collected = tokio::time::timeout(limit, collect(request.into_body(), &mut memory)).await;
        let raw = collected.unwrap_or_else(|_| {
            Err(Fault::new(ErrorCode::Malformed, format!("the body did not arrive within {} s", limit.as_secs())))
        })?;
        let fields = fields::<T>(raw.clone()).await?;
        let (app_id, ref_id) = (fields.told(&["app_id"]), fields.told(&REFERENCE_NAMES));
        let value = T::from_fields(fields).map_err(|fault| ApiError::from(fault).about(app_id, ref_id))?;
        Ok(Self { value, raw, memory })
    }
}

/// Parsing a large body takes a while, so it is not done among the tasks that wait for the network.
async fn fields<T: FromFields>(raw: Bytes) -> Result<Fields, Fault> {
    if raw.len() <= PARSED_AT_ONCE_BYTES_MAX {
        return Fields::read(&raw, T::NAMES);
    }
    let parsed = tokio::task::spawn_blocking(move || Fields::read(&raw, T::NAMES)).await;
    parsed.unwrap_or_else(|_| Err(Fault::new(ErrorCode::Internal, "the body could not be parsed; try again")))
}

async fn collect(mut body: Body, memory: &mut Share) -> Result<Bytes, Fault> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::new(ErrorCode::Malformed, "the body broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        memory.grow_to(collected.len() + data.len()).map_err(|_| crowded())?;
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Fault> {
    let refused = |got: &str| {
        let shown: String = got.chars().take(80).collect();
        Fault::new(ErrorCode::UnsupportedMedia, format!("Content-Type: got {shown}; allowed: application/json"))
    };
    let Some(value) = headers.get(CONTENT_TYPE) else { return Err(refused("nothing")) };
    let text = value.to_str().map_err(|_| refused("text that is not ASCII"))?;
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if is_json && is_utf8 { Ok(()) } else { Err(refused(text)) }
}

fn check_length(headers: &HeaderMap) -> Result<(), Fault> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) { Err(too_large()) } else { Ok(()) }
}

fn crowded() -> Fault {
    Fault::new(ErrorCode::Unavailable, "too many large bodies at once; try again").retry_after_s(1)
}

fn too_large() -> Fault {
    Fault::new(ErrorCode::TooLarge, format!("the body is larger than {BODY_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf8_is_taken() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            check_media_type(&headers).is_ok()
        };
        assert!(check("application/json") && check("Application/JSON; charset=\"UTF-8\""));
        assert!(check("application/json; profile=x"));
        for other in ["text/plain", "application/jsonp", "application/json; charset=latin1", "", "x"] {
            assert!(!check(other), "{other}");
        }
        assert!(check_media_type(&HeaderMap::new()).is_err());
    }
}
