//! The accept loop: connections that are bounded, answered whatever they send, and never cut off in the middle.
//!
//! Why not `axum::serve`: hyper answers a malformed head with an empty body, or not at all, and closes at once what it
//! has not read, which takes the answer away from a client that still sends.

use crate::Api;
use crate::drain::DrainSignal;
use crate::error::ApiError;
use crate::observe::next_request_id;
use crate::server::overheard::Overheard;
use axum::Router;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::Service;

mod overheard;

/// A request's whole head, bytes; more is a 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long answers may still take to leave after the drain's last moment.
const LEAVE: Duration = Duration::from_secs(2);
/// How often a draining server looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(20);
/// A client that sends nothing for so long after its answer has had it.
const SILENCE: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more sockets to give.
const BREATHE: Duration = Duration::from_millis(100);

/// Serves until a drain has begun and nobody is left, or its last moment has passed.
pub(crate) async fn serve(listener: &TcpListener, api: &Api) {
    let limits = api.config().limits;
    let connections = Arc::new(Semaphore::new(limits.connections));
    let end = drained(api.inner.drain.clone(), connections.clone(), limits.connections);
    accept_until(end, listener, api, connections).await;
}

/// Answers on, to say that the server is about to end.
pub(crate) async fn turn_away(listener: &TcpListener, api: &Api) {
    let connections = Arc::new(Semaphore::new(api.config().limits.connections));
    accept_until(std::future::pending(), listener, api, connections).await;
}

async fn accept_until(end: impl Future<Output = ()>, listener: &TcpListener, api: &Api, connections: Arc<Semaphore>) {
    let (limits, router) = (api.config().limits, api.router());
    let mut end = pin!(end);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(listener, &connections) => accepted,
            () = &mut end => return,
        };
        let (router, drain) = (router.clone(), api.inner.drain.clone());
        tokio::spawn(async move {
            converse(stream, router, drain, limits).await;
            drop(permit);
        });
    }
}

/// New connections are taken during a drain too, so that a load balancer hears from `/readyz` that it should go.
async fn drained(mut drain: DrainSignal, connections: Arc<Semaphore>, n_connections: usize) {
    let until = drain.begun().await;
    while connections.available_permits() < n_connections && Instant::now() < until + LEAVE {
        sleep(LOOK).await;
    }
}

/// Beyond the limit, callers wait in the system's backlog.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let permit = connections.clone().acquire_owned().await;
                return (stream, permit.expect("the semaphore is never closed, this is a bug"));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                sleep(BREATHE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router, mut drain: DrainSignal, limits: crate::Limits) {
    // Progress events are small; waiting to fill a packet would hold them back. Failing to ask is no harm.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        Box::pin(async move { router.call(request).await })
    });
    let came_late = drain.has_begun();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(!came_late)
        .serve_connection(TokioIo::new(Overheard::new(stream, limits.write_stall)), service);
    let mut leaving = drain.clone();
    let mut last_moment = pin!(async {
        let until = drain.begun().await;
        // Who comes after the last moment has a moment of its own, to hear that it came too late.
        sleep_until(if came_late { until.max(Instant::now()) } else { until } + LEAVE).await;
    });
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        // A connection that came during the drain has its one request; asked to end before, it would have none.
        _ = leaving.begun(), if !came_late => {
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
                () = &mut last_moment => Ok(()),
            }
        }
        () = &mut last_moment => Ok(()),
    };
    let overheard = connection.into_parts().io.into_inner();
    let owed = match (overheard.suppressed(), ended) {
        (Some(status), _) => Some((status, "the request's head is not well-formed HTTP/1.1, or too large")),
        (None, Err(error)) if error.is_timeout() && overheard.is_owed_answer() => {
            Some((StatusCode::BAD_REQUEST, "the request's head did not arrive in time"))
        }
        (None, Err(_)) if overheard.is_owed_answer() => {
            Some((StatusCode::BAD_REQUEST, "the request broke off, or is not HTTP/1.1"))
        }
        _ => None,
    };
    let mut stream = overheard.into_inner();
    if let Some((status, detail)) = owed {
        // A client that has gone does not hear it, which is its own doing.
        let _ = timeout(limits.write_stall, stream.write_all(&last_words(status, detail))).await;
    }
    part(stream, limits.linger).await;
}

/// The answer to a request that never became one.
fn last_words(status: StatusCode, detail: &str) -> Vec<u8> {
    let id = next_request_id();
    tracing::info!(request.id = %id, http.status = status.as_u16(), "refused");
    let envelope = ApiError::of_http(status, detail).envelope;
    let body = serde_json::to_string(&envelope).expect("an envelope is serializable, this is a bug");
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Reads on for a while: closing with unread bytes resets the connection, and the client would lose its answer.
async fn part(mut stream: TcpStream, linger: Duration) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut unwanted = vec![0; 16 << 10];
    let read_on = async { while matches!(timeout(SILENCE, stream.read(&mut unwanted)).await, Ok(Ok(1..))) {} };
    // Out of time is as good as done.
    let _ = timeout(linger, read_on).await;
}
