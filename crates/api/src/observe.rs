//! Each request's id, log line and metrics; and how many are let in at once.

use crate::Api;
use crate::error::ApiError;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use domain::fault::{ErrorCode, Fault};
use http::header::HeaderName;
use http::{HeaderValue, Method};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) fn layers(routes: Router<Api>) -> Router<Api> {
    routes.layer(from_fn(observe))
}

/// A full server says so at once instead of letting everybody wait.
pub(crate) async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_permit) = api.requests.clone().try_acquire_owned() else {
        let fault = Fault::new(ErrorCode::Unavailable, "too many requests at once; try again").retry_after_s(1);
        return ApiError::from(fault).into_response();
    };
    next.run(request).await
}

/// Logs the route's pattern, never the URL: paths hold results' names and queries hold anything.
async fn observe(request: Request, next: Next) -> Response {
    let id = next_request_id();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", request.id = %id, http.method = method, http.route = %route);
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let (elapsed, status) = (began.elapsed(), response.status().as_u16());
    span.in_scope(|| {
        tracing::info!(http.status = status, http.latency_ms = elapsed.as_millis() as u64, "answered");
    });
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("pentimento_http_requests_total", &labels).increment(1);
    metrics::histogram!("pentimento_http_request_seconds", &labels).record(elapsed.as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Unique on this machine and ordered in time; it guards nothing, so it need not be random.
pub(crate) fn next_request_id() -> String {
    static N_REQUESTS: AtomicU64 = AtomicU64::new(0);
    let count = N_REQUESTS.fetch_add(1, Ordering::Relaxed);
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("{micros:x}-{count:x}")
}

/// A client may invent methods; the metrics may not grow with them.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}
