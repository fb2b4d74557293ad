//! `POST /getImagetoImage`: the endpoint that this server exists for.

use crate::Api;
use crate::body::ApiJson;
use crate::caller::Authenticated;
use crate::error::{ApiError, ApiResult};
use crate::links::Links;
use crate::shape::Shaped;
use crate::wire::image_request::ImageRequest;
use crate::wire::{Envelope, Status};
use app::submit::Order;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::fault::{ErrorCode, Fault, Invalid};
use http::{HeaderMap, StatusCode};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// When a caller that meets a server about to end should come back, seconds.
const RETRY_DRAINING_S: u32 = 30;

/// Paints over a picture.
///
/// Answers with the result, or at once with a `task_id` if `celery` is true. A caller that disconnects before its answer
/// cancels the task, unless it sent an `Idempotency-Key`: the same key with the same body finds the same task again. A
/// caller that waits longer than the server keeps callers waiting gets `PENDING` and the `task_id`.
#[utoipa::path(
    post,
    path = "/getImagetoImage",
    operation_id = "create_image",
    tag = "images",
    request_body = ImageRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses(
        (status = 200, description = "SUCCESS with the result, or PENDING with a task_id", body = Envelope),
        (status = 400, description = "Not JSON, or a field of the wrong type", body = Envelope),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 409, description = "The Idempotency-Key came with another body before", body = Envelope),
        (status = 413, description = "Body or picture too large", body = Envelope),
        (status = 415, description = "Not application/json", body = Envelope),
        (status = 422, description = "A value that is not allowed", body = Envelope),
        (status = 424, description = "The picture could not be had", body = Envelope),
        (status = 429, description = "Over the key's rate or concurrency limit", body = Envelope),
        (status = 500, description = "The task failed or was cancelled", body = Envelope),
        (status = 503, description = "No weights for this app, or a full queue", body = Envelope),
    ),
)]
pub(crate) async fn create_image(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    headers: HeaderMap,
    ApiJson { value: request, raw, memory }: ApiJson<ImageRequest>,
) -> ApiResult<Answer> {
    let celery = request.celery.unwrap_or(false);
    let (app_id, ref_id) = (request.app_id.clone(), request.ref_id.clone());
    let submitted = async {
        if api.inner.drain.has_begun() {
            let fault = Fault::new(ErrorCode::Unavailable, "the server is about to end; try again");
            return Err(fault.retry_after_s(RETRY_DRAINING_S));
        }
        let idempotency_key = idempotency_key(&headers)?;
        let (draft, unknown_fields) = request.into_draft()?;
        api.app().submit(&caller, Order { draft, unknown_fields, idempotency_key, body: raw }).await
    };
    let placed = submitted.await.map_err(|fault| ApiError::from(fault).about(app_id, ref_id))?;
    drop(memory);
    let task = if celery {
        placed.keep()
    } else {
        // Dropped with this future when the caller goes away; then `placed` frees its place.
        let waited = api.app().wait(&placed.task().id, patience(&api)).await;
        let task = placed.keep();
        // A store that cannot be read for a moment is no reason to give up what it has accepted.
        waited.unwrap_or(task)
    };
    let mut envelope = Envelope::of_task(&task, &links);
    if let Some(input) = &mut envelope.input {
        input.celery = Some(celery);
    }
    Ok(Answer(envelope))
}

/// An answer about a task, in the contract's own terms: one that failed or was cancelled is a 500.
pub(crate) struct Answer(pub(crate) Envelope);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = match self.0.status {
            Status::Pending | Status::Success => StatusCode::OK,
            Status::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(self.0)).into_response();
        response.extensions_mut().insert(Shaped);
        response
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Invalid> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) => Ok(Some(key.to_owned())),
        Err(_) => Err(Invalid::new("Idempotency-Key", "bytes that are not ASCII", "visible ASCII characters")),
    }
}

/// Ends when a waiting caller is to get its task's id instead.
async fn patience(api: &Api) {
    let mut drain = api.inner.drain.clone();
    tokio::select! {
        () = tokio::time::sleep(api.config().sync_wait) => {}
        () = drain.over() => {}
    }
}
