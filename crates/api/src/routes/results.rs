//! `GET /results/{name}`: finished pictures. Whoever knows the name may have the picture, until it expires.

use crate::Api;
use crate::error::ApiResult;
use crate::wire::Envelope;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::ToSchema;

/// The bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "the document's word for bytes")]
pub(crate) struct Picture(Vec<u8>);

/// Sends a finished picture or its thumbnail. Needs no token: the name has 128 random bits.
#[utoipa::path(
    get,
    path = "/results/{name}",
    operation_id = "get_result",
    tag = "images",
    params(("name" = String, Path)),
    responses(
        (
            status = 200,
            description = "The picture, as the task asked for it; a thumbnail is a JPEG",
            content((Picture = "image/png"), (Picture = "image/jpeg"), (Picture = "image/webp")),
        ),
        (status = 404, description = "No such result, or it has expired", body = Envelope),
        (status = 503, description = "Too much at once", body = Envelope),
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
