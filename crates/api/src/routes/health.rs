//! For those who run the server: whether it lives, whether it takes work, and its numbers.

use crate::Api;
use crate::error::ApiResult;
use crate::wire::Envelope;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::fault::{ErrorCode, Fault};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`.
    status: &'static str,
    queued: u64,
    running: u64,
}

/// Says that the process lives.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_health", tag = "operation", security(()),
    responses((status = 200, body = Health)),
)]
pub(crate) async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether the server takes work: not while it drains, nor when its records cannot be read or written.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness", tag = "operation", security(()),
    responses((status = 200, body = Readiness), (status = 503, description = "Not now", body = Envelope)),
)]
pub(crate) async fn get_readiness(State(api): State<Api>) -> ApiResult<Json<Readiness>> {
    if api.inner.drain.has_begun() {
        return Err(Fault::new(ErrorCode::Unavailable, "the server is about to end").into());
    }
    api.app().ready().await?;
    let depth = api.app().depth().await.map_err(|_| Fault::new(ErrorCode::Unavailable, "the store fails"))?;
    Ok(Json(Readiness { status: "ready", queued: depth.queued, running: depth.running }))
}

/// The server's numbers in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operation", security(()),
    responses((status = 200, content_type = "text/plain", body = String)),
)]
pub(crate) async fn get_metrics(State(api): State<Api>) -> Response {
    if let Ok(depth) = api.app().depth().await {
        metrics::gauge!("pentimento_tasks", "state" => "queued").set(depth.queued as f64);
        metrics::gauge!("pentimento_tasks", "state" => "running").set(depth.running as f64);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], api.inner.metrics.render()).into_response()
}
