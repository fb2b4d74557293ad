//! `POST /getImage`: how a task stands, in the contract's own terms.

use crate::Api;
use crate::body::{ApiJson, FromFields};
use crate::caller::Authenticated;
use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::links::Links;
use crate::routes::image_to_image::Answer;
use crate::wire::Envelope;
use crate::wire::image_request::{only, reference};
use axum::extract::State;
use domain::fault::{Fault, Invalid};
use domain::request::reference_id;
use utoipa::ToSchema;

/// Names a task.
#[derive(ToSchema)]
pub(crate) struct StatusRequest {
    /// The task's id; required, here or as `task_id`.
    id: Option<String>,
    /// The caller's own name for this call, echoed back. Also `ref_id` and `reference_id`.
    #[schema(rename = "refID", max_length = 256)]
    ref_id: Option<String>,
}

impl FromFields for StatusRequest {
    const NAMES: &'static [&'static str] = &["id", "task_id", "ref_id", "refID", "reference_id"];

    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let (id, task_id) = (fields.text("id")?, fields.text("task_id")?);
        Ok(Self { id: only("task_id", [id, task_id])?, ref_id: reference_id(reference(&mut fields)?)? })
    }
}

/// Tells how a task stands.
///
/// A queued or running task is `PENDING`; one that failed or was cancelled answers 500 with `FAILED`.
#[utoipa::path(
    post,
    path = "/getImage",
    operation_id = "get_image",
    tag = "images",
    request_body = StatusRequest,
    responses(
        (status = 200, description = "PENDING or SUCCESS", body = Envelope),
        (status = 400, description = "Not JSON, or a field of the wrong type", body = Envelope),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 404, description = "No such task of this key", body = Envelope),
        (status = 413, description = "Body too large", body = Envelope),
        (status = 415, description = "Not application/json", body = Envelope),
        (status = 422, description = "No id, or a reference that is too long", body = Envelope),
        (status = 500, description = "The task failed or was cancelled", body = Envelope),
        (status = 503, description = "Too much at once", body = Envelope),
    ),
)]
pub(crate) async fn get_image(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    ApiJson { value: request, .. }: ApiJson<StatusRequest>,
) -> ApiResult<Answer> {
    let refused = |fault: Fault| ApiError::from(fault).about(None, request.ref_id.clone());
    let id = request.id.as_deref().ok_or_else(|| Invalid::new("id", "nothing", "a task's id"));
    let id = id.map_err(|invalid| refused(invalid.into()))?;
    let standing = api.app().status(&caller, id).await.map_err(refused)?;
    let mut envelope = Envelope::of_task(&standing.task, &links);
    envelope.ref_id = request.ref_id.or(envelope.ref_id);
    Ok(Answer(envelope))
}
