//! `GET /results/{name}`: finished pictures. Whoever knows the name may have the picture, until it expires.

use crate::Api;
use crate::error::ApiResult;
use crate::wire::Envelope;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

/// Sends a finished picture or its thumbnail. Needs no token: the name has 128 random bits.
#[utoipa::path(
    get,
    path = "/results/{name}",
    operation_id = "get_result",
    tag = "images",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "image/png, image/jpeg or image/webp", content_type = "image/png", body = Vec<u8>),
        (status = 404, description = "No such result, or it has expired", body = Envelope),
    ),
    security(()),
)]
pub(crate) async fn get_result(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Response> {
    let file = api.app().result(&name).await?;
    let headers = [
        (CONTENT_TYPE, file.media_type.to_owned()),
        (CACHE_CONTROL, format!("private, max-age={}, immutable", file.max_age_s)),
        (CONTENT_DISPOSITION, "inline".to_owned()),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox".to_owned()),
    ];
    Ok((headers, file.bytes).into_response())
}
