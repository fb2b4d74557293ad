//! `/v1/tasks`: the caller's tasks with their exact state.

use crate::Api;
use crate::caller::Authenticated;
use crate::error::ApiResult;
use crate::links::Links;
use crate::wire::Envelope;
use crate::wire::task::{TaskList, TaskView};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use domain::fault::{ErrorCode, Fault, Invalid};
use domain::id::TaskId;

const LIST_DEFAULT: u32 = 20;
const LIST_MAX: u32 = 100;

/// Shows one task. One that failed is found like any other: the status is 200.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    operation_id = "get_task",
    tag = "tasks",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = TaskView),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 404, description = "No such task of this key", body = Envelope),
    ),
)]
pub(crate) async fn get_task(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    Path(id): Path<String>,
) -> ApiResult<Json<TaskView>> {
    let standing = api.app().status(&caller, &id).await?;
    Ok(Json(TaskView::of(&standing.task, &links).at(standing.position)))
}

/// Cancels a queued or running task; a running one stops within one step. One that is over stays as it is.
#[utoipa::path(
    delete,
    path = "/v1/tasks/{id}",
    operation_id = "cancel_task",
    tag = "tasks",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = TaskView),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 404, description = "No such task of this key", body = Envelope),
    ),
)]
pub(crate) async fn cancel_task(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    Path(id): Path<String>,
) -> ApiResult<Json<TaskView>> {
    let task = api.app().cancel(&caller, &id).await?;
    Ok(Json(TaskView::of(&task, &links)))
}

/// Lists the caller's tasks, newest first.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    operation_id = "list_tasks",
    tag = "tasks",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 100, 20 if left out"),
        ("before" = Option<String>, Query, description = "the last task of the page before"),
    ),
    responses(
        (status = 200, body = TaskList),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 404, description = "`before` is no task of this key", body = Envelope),
        (status = 422, description = "A value that is not allowed", body = Envelope),
    ),
)]
pub(crate) async fn list_tasks(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<TaskList>> {
    let page = Page::read(query.as_deref().unwrap_or_default())?;
    let tasks = api.app().list(&caller, page.limit, page.before.as_ref()).await?;
    let is_full = tasks.len() == page.limit as usize;
    let next_before = tasks.last().filter(|_| is_full).map(|task| task.id.to_string());
    Ok(Json(TaskList { tasks: tasks.iter().map(|task| TaskView::of(task, &links)).collect(), next_before }))
}

struct Page {
    limit: u32,
    before: Option<TaskId>,
}

impl Page {
    fn read(query: &str) -> Result<Self, Fault> {
        let mut page = Self { limit: LIST_DEFAULT, before: None };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                    let allowed = || format!("a whole number from 1 to {LIST_MAX}");
                    page.limit = limit.ok_or_else(|| Invalid::new("limit", &value, allowed()))?;
                }
                "before" => {
                    let unknown = || Fault::new(ErrorCode::NotFound, "before: no task of this key has this id");
                    page.before = Some(TaskId::parse(&value).ok_or_else(unknown)?);
                }
                _ => {}
            }
        }
        Ok(page)
    }
}
