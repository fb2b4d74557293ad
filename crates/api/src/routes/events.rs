//! `GET /v1/tasks/{id}/events`: a task's progress as server-sent events, until it ends.

use crate::Api;
use crate::caller::Authenticated;
use crate::drain::DrainSignal;
use crate::error::{ApiError, ApiResult};
use crate::links::Links;
use crate::wire::Envelope;
use crate::wire::task::{ProgressView, TaskView};
use app::watch::{News, Watch};
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use domain::fault::{ErrorCode, Fault};
use futures::Stream;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How often a silent stream says that it lives, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct QueuedView {
    position: u64,
}

#[derive(Serialize)]
struct StartedView {}

/// Streams a task's progress.
///
/// Events: `queued` (`position`: how many go before it), `started`, `step` (`step` of `n_steps`), `done` (the task as
/// `GET /v1/tasks/{id}` shows it), after which the stream ends. A stream that ends without `done` was cut off: ask again.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    operation_id = "watch_task",
    tag = "tasks",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Events until the task ends", content_type = "text/event-stream", body = String),
        (status = 401, description = "No valid bearer token", body = Envelope),
        (status = 404, description = "No such task of this key", body = Envelope),
    ),
)]
pub(crate) async fn watch_task(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    links: Links,
    Path(id): Path<String>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let watch = api.app().watch(&caller, &id).await?;
    let too_many = |_| Fault::new(ErrorCode::Unavailable, "too many streams at once; try again").retry_after_s(1);
    let permit = api.requests.clone().try_acquire_owned().map_err(|full| ApiError::from(too_many(full)))?;
    let drain = api.inner.drain.clone();
    let told = Told { watch, drain, links, _permit: permit };
    let events = futures::stream::unfold(told, |mut told| async { told.next().await.map(|event| (Ok(event), told)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// One stream in progress.
struct Told {
    watch: Watch,
    drain: DrainSignal,
    links: Links,
    _permit: OwnedSemaphorePermit,
}

impl Told {
    async fn next(&mut self) -> Option<Event> {
        let news = tokio::select! {
            news = self.watch.next() => news?,
            _ = self.drain.begun() => return None,
        };
        let event = match news {
            Ok(News::Queued { position }) => Event::default().event("queued").json_data(QueuedView { position }),
            Ok(News::Started) => Event::default().event("started").json_data(StartedView {}),
            Ok(News::Step(progress)) => {
                let view = ProgressView { step: progress.step, n_steps: progress.n_steps };
                Event::default().event("step").json_data(view)
            }
            Ok(News::Ended(task)) => {
                let view = TaskView::of(&task, &self.links);
                Event::default().event("done").json_data(view)
            }
            // The task was forgotten while it was watched, or the store failed: the stream is cut off.
            Err(_) => return None,
        };
        event.ok()
    }
}
