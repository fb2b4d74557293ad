//! HTTP: the wire contract over the use cases of `app`. One file per dialect and resource.
//!
//! The only crate that knows axum. Every answer that is an error carries the contract's eight fields, also where no
//! handler ran: an unknown route, a malformed head, a panic.

mod body;
mod caller;
pub mod drain;
mod error;
mod fields;
mod links;
mod observe;
pub mod openapi;
mod routes;
mod server;
mod shape;
pub mod telemetry;
mod wire;

use app::App;
use axum::Router;
use axum::routing::{get, post};
use domain::memory::Budget;
use drain::DrainSignal;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::routes::{apps, events, health, image_to_image, page, results, status, tasks};

/// The HTTP side of the server. A clone is a handle to the same thing.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Parts>,
    requests: Arc<Semaphore>,
    body_memory: Budget,
}

/// What the composition root puts together.
pub struct Parts {
    pub app: App,
    pub config: Config,
    pub metrics: PrometheusHandle,
    pub drain: DrainSignal,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// How clients reach this server, for the URLs of results; `None`: as they say in `Host`.
    pub public_url: Option<String>,
    /// The URL where `Host` says nothing usable.
    pub fallback_url: String,
    /// How long a caller that did not ask for a queue is kept waiting before it gets the task's id instead.
    pub sync_wait: Duration,
    pub limits: Limits,
}

/// What one client can take of the server. The contract's own limits are in `domain::limits`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Requests in the hands of a handler, streams of events included.
    pub requests: usize,
    /// All bodies together that are being read or parsed.
    pub bodies_bytes: usize,
    /// From the first byte of a request's head to its last, and between two requests.
    pub head_read: Duration,
    /// From the first byte of a request's body to its last.
    pub body_read: Duration,
    /// How long a client may take nothing of what it is sent.
    pub write_stall: Duration,
    /// How long bytes that nobody wants are read and dropped, so that the client reads its answer.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            requests: 2048,
            bodies_bytes: 512 << 20,
            head_read: Duration::from_secs(20),
            body_read: Duration::from_secs(120),
            write_stall: Duration::from_secs(30),
            linger: Duration::from_secs(10),
        }
    }
}

/// A server that has drained: nobody waits for a picture any more, but others come and ask how it stands.
pub struct Closing {
    listener: TcpListener,
    api: Api,
}

impl Closing {
    /// Answers for as long as it is polled: new tasks and `/readyz` with 503, and how tasks stand.
    pub async fn turn_away(self) {
        server::turn_away(&self.listener, &self.api).await;
    }
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        let limits = parts.config.limits;
        Self {
            requests: Arc::new(Semaphore::new(limits.requests)),
            body_memory: Budget::new(limits.bodies_bytes),
            inner: Arc::new(parts),
        }
    }

    /// Serves until a drain has begun and nobody waits any more; see [`drain`]. What is returned answers on.
    pub async fn serve(self, listener: TcpListener) -> Closing {
        server::serve(&listener, &self).await;
        Closing { listener, api: self }
    }

    fn app(&self) -> &App {
        &self.inner.app
    }

    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn router(&self) -> Router {
        let quick = Router::new()
            .route("/healthz", get(health::get_health))
            .route("/readyz", get(health::get_readiness))
            .route("/metrics", get(health::get_metrics));
        let limited = Router::new()
            .route("/", get(page::get_page))
            .route("/getImagetoImage", post(image_to_image::create_image))
            .route("/getImageToImage", post(image_to_image::create_image))
            .route("/getImage", post(status::get_image))
            .route("/v1/apps", get(apps::list_apps))
            .route("/v1/tasks", get(tasks::list_tasks))
            .route("/v1/tasks/{id}", get(tasks::get_task).delete(tasks::cancel_task))
            .route("/v1/tasks/{id}/events", get(events::watch_task))
            .route("/results/{name}", get(results::get_result))
            .route("/openapi.json", get(openapi::get_openapi))
            .layer(axum::middleware::from_fn_with_state(self.clone(), observe::admit));
        let routes = quick.merge(limited).fallback(shape::no_such_route);
        observe::layers(shape::layers(routes)).with_state(self.clone())
    }
}
