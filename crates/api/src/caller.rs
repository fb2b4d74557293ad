//! Who asks: the bearer token, checked before any body is read.

use crate::Api;
use crate::error::ApiError;
use app::keys::Caller;
use axum::extract::FromRequestParts;
use domain::fault::{ErrorCode, Fault};
use http::header::AUTHORIZATION;
use http::request::Parts;

/// A request with a valid key.
pub(crate) struct Authenticated(pub(crate) Caller);

impl FromRequestParts<Api> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let token = bearer_token(parts)?;
        Ok(Self(api.app().keys().authenticate(token).await?))
    }
}

fn bearer_token(parts: &Parts) -> Result<&str, Fault> {
    let refused = |detail: &str| Fault::new(ErrorCode::Unauthorized, detail);
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let header = headers.next().ok_or_else(|| refused("the Authorization header is missing; send Bearer <token>"))?;
    if headers.next().is_some() {
        return Err(refused("more than one Authorization header"));
    }
    let text = header.to_str().map_err(|_| refused("the Authorization header is not ASCII"))?;
    match text.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(refused("the Authorization header is not of the form: Bearer <token>")),
    }
}
