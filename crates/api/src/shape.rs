//! The last net: whatever leaves the server as an error has the contract's shape.

use crate::error::ApiError;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use domain::fault::{ErrorCode, Fault};
use http::header::{ALLOW, HeaderName};
use http::{HeaderValue, StatusCode};
use std::any::Any;
use tower_http::catch_panic::CatchPanicLayer;

const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

/// Marks an answer that has the shape already.
#[derive(Clone, Copy)]
pub(crate) struct Shaped;

pub(crate) fn layers<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.layer(from_fn(shape)).layer(CatchPanicLayer::custom(panicked))
}

pub(crate) async fn no_such_route() -> ApiError {
    ApiError::of_http(StatusCode::NOT_FOUND, "no such route; GET /openapi.json lists them")
}

async fn shape(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error && response.extensions().get::<Shaped>().is_none() {
        let allow = response.headers_mut().remove(ALLOW);
        response = ApiError::of_http(status, detail_of(status)).into_response();
        response.headers_mut().extend(allow.map(|methods| (ALLOW, methods)));
    }
    let (name, value) = NOSNIFF;
    response.headers_mut().insert(name, value);
    response
}

fn detail_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "this route does not know this method; see the Allow header",
        StatusCode::BAD_REQUEST => "the path or the query cannot be read",
        _ => "the request was refused",
    }
}

/// The message of a panic may hold anything, so it is not even logged here: the panic hook has written it.
fn panicked(_panic: Box<dyn Any + Send>) -> Response<Body> {
    ApiError::from(Fault::new(ErrorCode::Internal, "the server met a bug of its own")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(handler: axum::routing::MethodRouter) -> (StatusCode, serde_json::Value) {
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let response = layers(Router::new().route("/", handler)).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_panic_has_the_shape_and_keeps_its_message_to_itself() {
        let (status, body) = ask(get(|| async { panic!("a secret") as () })).await;
        assert_eq!((status, &body["status"]), (StatusCode::INTERNAL_SERVER_ERROR, &"FAILED".into()));
        assert_eq!(body.as_object().unwrap().len(), 8);
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_refusal_that_no_handler_made_has_the_shape() {
        let (status, body) = ask(get(|| async { (StatusCode::BAD_REQUEST, "plain text") })).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &"Bad Request".into()));
        assert_eq!(body.as_object().unwrap().len(), 8);
    }
}
