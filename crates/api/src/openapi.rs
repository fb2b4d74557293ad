//! The API as a document: `GET /openapi.json`, and `openapi.json` beside this crate, which is its review.

use crate::routes::{apps, events, health, image_to_image, results, status, tasks};
use crate::wire;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use std::sync::LazyLock;
use utoipa::openapi::OpenApi as Spec;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pentimento",
        description = "Image to image: a picture and a prompt in, a repainted picture out.\n\n\
            `POST /getImageToImage` is another spelling of `POST /getImagetoImage`."
    ),
    paths(
        image_to_image::create_image,
        status::get_image,
        tasks::list_tasks,
        tasks::get_task,
        tasks::cancel_task,
        events::watch_task,
        apps::list_apps,
        results::get_result,
        health::get_health,
        health::get_readiness,
        health::get_metrics,
    ),
    components(schemas(wire::TimeRequired, wire::Input, wire::Output)),
    modifiers(&BearerToken),
    security(("bearer" = [])),
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, spec: &mut Spec) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        spec.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// The document, indented, with a newline at its end.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let json = Document::openapi().to_pretty_json().expect("the document is serializable, this is a bug");
        json + "\n"
    });
    &DOCUMENT
}

pub(crate) async fn get_openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], document()).into_response()
}
