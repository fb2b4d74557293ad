//! `GET /`: what this is and how to use it, for whoever opens the address in a browser.

use crate::links::Links;
use axum::response::{Html, IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};

const PAGE: &str = include_str!("page.html");

pub(crate) async fn get_page(links: Links) -> Response {
    let base = links.base().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let headers =
        [(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"), (REFERRER_POLICY, "no-referrer")];
    (headers, Html(PAGE.replace("{base}", &base))).into_response()
}
