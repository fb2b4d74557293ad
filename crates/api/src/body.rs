//! A JSON body: its type, its size, the time it takes and the memory it holds are checked before its first byte is
//! parsed.

use crate::Api;
use crate::error::ApiError;
use crate::fields::Fields;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use domain::fault::{ErrorCode, Fault};
use domain::limits::BODY_BYTES_MAX;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    pub(crate) memory: BodyMemory,
}

impl<T: FromFields> FromRequest<Api> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        check_length(request.headers())?;
        let mut memory = BodyMemory { budget: api.body_kibibytes.clone(), held: None };
        let limit = api.config().limits.body_read;
        let collected = tokio::time::timeout(limit, collect(request.into_body(), &mut memory)).await;
        let raw = collected.unwrap_or_else(|_| {
            Err(Fault::new(ErrorCode::Malformed, format!("the body did not arrive within {} s", limit.as_secs())))
        })?;
        let value = T::from_fields(Fields::read(&raw, T::NAMES)?)?;
        Ok(Self { value, raw, memory })
    }
}

/// What one body holds of the memory for all.
pub(crate) struct BodyMemory {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    fn grow_to(&mut self, bytes: usize) -> Result<(), Fault> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(1024).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let n_permits = u32::try_from(missing).unwrap_or(u32::MAX);
        let Ok(more) = self.budget.clone().try_acquire_many_owned(n_permits) else {
            let detail = "too many large bodies at once; try again";
            return Err(Fault::new(ErrorCode::Unavailable, detail).retry_after_s(1));
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

async fn collect(mut body: Body, memory: &mut BodyMemory) -> Result<Bytes, Fault> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::new(ErrorCode::Malformed, "the body broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        memory.grow_to(collected.len() + data.len())?;
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

    #[test]
    fn all_bodies_together_have_a_limit() {
        let budget = Arc::new(Semaphore::new(4));
        let mut first = BodyMemory { budget: budget.clone(), held: None };
        let mut second = BodyMemory { budget: budget.clone(), held: None };
        first.grow_to(1).unwrap();
        first.grow_to(3000).unwrap();
        second.grow_to(1024).unwrap();
        assert_eq!(second.grow_to(1025).unwrap_err().code, ErrorCode::Unavailable);
        drop(first);
        second.grow_to(4096).unwrap();
        drop(second);
        assert_eq!(budget.available_permits(), 4);
    }
}
