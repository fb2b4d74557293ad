//! Where a [`Fault`] meets HTTP: the one table code → status, and the one shape of an error.

use crate::shape::Shaped;
use crate::wire::Envelope;
use axum::Json;
use axum::response::{IntoResponse, Response};
use domain::fault::{ErrorCode, Fault};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

/// When a client should come back if the fault itself does not say, seconds.
const RETRY_S: u32 = 5;

pub(crate) type ApiResult<T> = Result<T, ApiError>;

pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) envelope: Envelope,
    pub(crate) retry_after_s: Option<u32>,
}

impl ApiError {
    /// A refusal that is HTTP's own and that `domain` has no code for.
    pub(crate) fn of_http(status: StatusCode, detail: &str) -> Self {
        let class = status.canonical_reason().unwrap_or("Error");
        Self { status, envelope: Envelope::refused(class, detail.to_owned()), retry_after_s: None }
    }

    /// What of the request is known already is told with the error.
    #[must_use]
    pub(crate) fn about(mut self, app_id: Option<String>, ref_id: Option<String>) -> Self {
        self.envelope.app_id = app_id.filter(|id| id.len() <= 128);
        self.envelope.ref_id = ref_id.filter(|id| id.chars().count() <= domain::limits::REFERENCE_CHARS_MAX);
        self
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let status = status_of(fault.code);
        let may_retry = matches!(fault.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
        let retry_after_s = fault.retry_after_s.or(may_retry.then_some(RETRY_S));
        Self { status, envelope: Envelope::refused(fault.code.class(), fault.detail), retry_after_s }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Shaped);
        response
    }
}

/// `domain` does not know HTTP, so the table lives here.
pub(crate) const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::SourceUnavailable => StatusCode::FAILED_DEPENDENCY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Failed | ErrorCode::Unsafe | ErrorCode::Cancelled | ErrorCode::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
