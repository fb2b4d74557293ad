//! `GET /v1/apps`: what may be asked for, and whether it can be served now.

use crate::Api;
use crate::caller::Authenticated;
use crate::wire::Envelope;
use crate::wire::app::{AppList, AppView};
use axum::Json;
use axum::extract::State;

/// Lists the apps.
#[utoipa::path(
    get,
    path = "/v1/apps",
    operation_id = "list_apps",
    tag = "apps",
    responses(
        (status = 200, body = AppList),
        (status = 401, description = "No valid bearer token", body = Envelope),
    ),
)]
pub(crate) async fn list_apps(State(api): State<Api>, Authenticated(_): Authenticated) -> Json<AppList> {
    let app = api.app();
    let views = app.catalogue().apps().iter().map(|entry| AppView::of(entry, app.availability(), app.gpus()));
    Json(AppList { apps: views.collect() })
}
