//! `pentimento serve`: the store, the worker, the fetcher and the API, put together; and their end in the right order.

use crate::catalogue::{CatalogueArgs, Offer};
use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::logs::LogArgs;
use crate::memory::{CacheArgs, MemoryArgs};
use crate::remote::Sources;
use crate::terminal;
use api::drain::{self, DrainHandle};
use api::{Api, Limits};
use app::App;
use domain::catalogue::Catalogue;
use domain::gpu::{GpuFallback, GpuOffer};
use domain::limits::{KEY_TASKS_MAX, QUEUE_TASKS_MAX};
use domain::request::InferenceType;
use ingest::{FetchPolicy, Fetcher, IpRange};
use metrics_exporter_prometheus::PrometheusHandle;
use pipelines::Engines;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::contract::Stores;
use store::sqlite::StoreOptions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use worker::{Ownership, Timing, Worker, WorkerConfig, WorkerError};

/// How often the recorder of numbers tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one and says which
    #[arg(long, value_name = "ADDR", env = "PENTIMENTO_LISTEN", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// Let pictures, those that providers paint among them, be fetched from these addresses too, although they are not
    /// public; may be repeated
    #[arg(long, value_name = "CIDR", env = "PENTIMENTO_ALLOW_SOURCE", value_delimiter = ',', value_parser = range)]
    allow_source: Vec<IpRange>,
    /// How clients reach this server, for the URLs of results [default: as they say in Host]
    #[arg(long, value_name = "URL", env = "PENTIMENTO_PUBLIC_URL", value_parser = public_url)]
    public_url: Option<String>,
    /// Tasks queued or running, all keys together; more is a 503
    #[arg(long, value_name = "N", env = "PENTIMENTO_QUEUE_MAX", default_value_t = QUEUE_TASKS_MAX,
          value_parser = clap::value_parser!(u64).range(1..))]
    queue_max: u64,
    /// Tasks queued or running for one key; more is a 429
    #[arg(long, value_name = "N", env = "PENTIMENTO_KEY_TASKS_MAX", default_value_t = KEY_TASKS_MAX,
          value_parser = clap::value_parser!(u64).range(1..))]
    key_tasks_max: u64,
    /// Tasks that one key may submit per minute; more is a 429
    #[arg(long, value_name = "N", env = "PENTIMENTO_SUBMISSIONS_PER_MINUTE", default_value_t = 600,
          value_parser = clap::value_parser!(u32).range(1..))]
    submissions_per_minute: u32,
    /// How long a finished task and its pictures are kept, hours
    #[arg(long, value_name = "HOURS", env = "PENTIMENTO_KEEP_HOURS", default_value_t = 24,
          value_parser = clap::value_parser!(u32).range(1..=87_600))]
    keep_hours: u32,
    /// How long a caller that did not ask for a queue is kept waiting before it gets the task's id instead, seconds
    #[arg(long, value_name = "SECONDS", env = "PENTIMENTO_SYNC_WAIT", default_value_t = 3600)]
    sync_wait: u32,
    /// How long waiting callers, and after them the running task, may take once the server is asked to end, seconds
    #[arg(long, value_name = "SECONDS", env = "PENTIMENTO_DRAIN", default_value_t = 30)]
    drain: u32,
    /// Which classes of GPU this server offers to the deployed apps, a10g, a100 or h100; may be repeated [default: all]
    #[arg(long, value_name = "CLASS", env = "PENTIMENTO_GPU_CLASS", value_delimiter = ',', value_parser = gpu_class)]
    gpu_class: Vec<InferenceType>,
    /// What becomes of a task that names another class: refuse it, or let the nearest one take it
    #[arg(long, value_name = "POLICY", env = "PENTIMENTO_GPU_FALLBACK", default_value = "refuse",
          value_parser = gpu_fallback)]
    gpu_fallback: GpuFallback,
    /// Tasks that providers paint at a time; none of them takes a turn of this machine
    #[arg(long, value_name = "N", env = "PENTIMENTO_REMOTE_TASKS", default_value_t = 4,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    remote_tasks: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// What an address range may look like on the command line.
pub(crate) fn range(text: &str) -> Result<IpRange, String> {
    IpRange::parse(text).map_err(|invalid| invalid.to_string())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.logs.begin()?;
    let offer = args.catalogue.offer(&args.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::because)?;
    let outcome = runtime.block_on(serve(args, offer));
    // A step of the engine may still run; it has nothing left to say.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: &Args, offer: Offer) -> Result<(), Failure> {
    let stores = open_stores(args)?;
    let catalogue = offer.catalogue.clone();
    let sources = Arc::new(sources(args, offer));
    let app = app(args, &stores, &catalogue, Arc::clone(&sources))?;
    // Before the worker starts: what cannot serve must not take a task, and spend an attempt at it.
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| Failure::because(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().map_err(Failure::because)?;
    let metrics = api::telemetry::install().map_err(Failure::because)?;
    let (stop, shutdown) = watch::channel(false);
    let worker = start_worker(args, WorkerParts { catalogue, engines: sources, stores: stores.clone() }, shutdown)?;
    let upkeep = tokio::spawn(keep_up(metrics.clone()));
    let (handle, signal) = drain::channel();
    let serving = tokio::spawn(api(args, app.clone(), address, metrics, signal).serve(listener));
    terminal::complain(&format!("pentimento: listening on http://{address}"));
    suggest_a_key(&app, &args.data).await;
    let outcome = until_the_end(args, handle, serving, worker, stop).await;
    upkeep.abort();
    outcome
}

fn open_stores(args: &Args) -> Result<Stores, Failure> {
    let options = StoreOptions {
        queue_tasks_max: args.queue_max,
        owner_tasks_max: args.key_tasks_max,
        ..StoreOptions::default()
    };
    store::sqlite::open(&args.data.dir(), options).map_err(Failure::because)
}

fn sources(args: &Args, offer: Offer) -> Sources {
    let residency = args.memory.residency().with_cache(args.cache.bytes());
    let local = Engines::new(offer.shelf, offer.registry.clone(), residency);
    for (model, why) in local.survey() {
        tracing::warn!(model.id = %model, why, "an installed model cannot be used");
    }
    Sources { local, remote: offer.remote, registry: offer.registry, allowed: args.allow_source.clone() }
}

fn app(args: &Args, stores: &Stores, catalogue: &Catalogue, sources: Arc<Sources>) -> Result<App, Failure> {
    let policy = FetchPolicy { allowed_sources: args.allow_source.clone(), ..FetchPolicy::default() };
    Ok(App::new(app::Parts {
        catalogue: catalogue.clone(),
        stores: stores.clone(),
        sources: Arc::new(Fetcher::new(policy).map_err(Failure::usage)?),
        availability: sources,
        config: app::Config {
            submissions_per_minute: args.submissions_per_minute,
            results_bytes: domain::limits::RESULTS_BYTES_MAX,
            keep_results: args.keep_results(),
            gpus: args.gpus(),
        },
    }))
}

/// What a worker works with.
struct WorkerParts {
    catalogue: Catalogue,
    engines: Arc<Sources>,
    stores: Stores,
}

fn start_worker(
    args: &Args,
    parts: WorkerParts,
    shutdown: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<(), WorkerError>>, Failure> {
    let timing = Timing { keep_results: args.keep_results(), drain_grace: args.drain(), ..Timing::default() };
    let worker = Worker::new(WorkerConfig {
        catalogue: Arc::new(parts.catalogue),
        engines: parts.engines,
        stores: parts.stores,
        gpu_classes: args.gpus().painted(),
        remote_tasks_max: args.remote_tasks,
        // The data folder is locked: whoever held a lease before is dead.
        ownership: Ownership::Sole,
        timing,
    });
    Ok(tokio::spawn(worker.map_err(|error| Failure::caused_by(&error))?.run(shutdown)))
}

fn api(args: &Args, app: App, address: SocketAddr, metrics: PrometheusHandle, drain: drain::DrainSignal) -> Api {
    let config = api::Config {
        public_url: args.public_url.clone(),
        fallback_url: format!("http://{address}"),
        sync_wait: Duration::from_secs(args.sync_wait.into()),
        limits: Limits::default(),
    };
    Api::new(api::Parts { app, config, metrics, drain })
}

/// First the callers, then the running task: a caller's task needs the worker.
async fn until_the_end(
    args: &Args,
    drain: DrainHandle,
    serving: JoinHandle<api::Closing>,
    mut worker: JoinHandle<Result<(), WorkerError>>,
    stop: watch::Sender<bool>,
) -> Result<(), Failure> {
    tokio::select! {
        () = asked_to_end() => {}
        ended = &mut worker => return Err(worker_failed(ended)),
    }
    tracing::info!("the server drains; another signal ends it at once");
    tokio::spawn(async {
        asked_to_end().await;
        terminal::complain("pentimento: ended at once; what was running is queued again at the next start");
        std::process::exit(1);
    });
    drain.begin(args.drain());
    let closing = serving.await.map_err(Failure::because)?;
    stop.send_replace(true);
    // Until then, who asks is told, rather than met by a closed port.
    let worker = tokio::select! {
        ended = worker => ended,
        () = closing.turn_away() => std::future::pending().await,
    };
    match worker {
        Ok(Ok(())) => Ok(()),
        ended => Err(worker_failed(ended)),
    }
}

fn worker_failed(ended: Result<Result<(), WorkerError>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::because("the worker ended before it was asked to"),
        Ok(Err(error)) => Failure::caused_by(&error),
        Err(error) => Failure::because(format!("the worker ended: {error}")),
    }
}

/// Until somebody asks the process to end.
async fn asked_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("signals cannot be heard; the server ends only by force");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// Without a key nobody can ask for anything.
async fn suggest_a_key(app: &App, data: &DataArg) {
    let keys = app.keys().list().await.unwrap_or_default();
    if keys.iter().all(|key| key.revoked_ms.is_some()) {
        let place = data.option();
        terminal::complain(&format!(
            "pentimento: there is no key yet; `pentimento keys create --name me{place}` makes one"
        ));
    }
}

impl Args {
    fn keep_results(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_hours) * 3600)
    }

    fn gpus(&self) -> GpuOffer {
        GpuOffer::new(&self.gpu_class, self.gpu_fallback).unwrap_or(GpuOffer::ANY)
    }

    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain.into())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "allowed: an address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn gpu_class(text: &str) -> Result<InferenceType, String> {
    InferenceType::parse(text).map_err(|invalid| format!("allowed: {}", invalid.allowed))
}

fn gpu_fallback(text: &str) -> Result<GpuFallback, String> {
    GpuFallback::parse(text).map_err(|invalid| format!("allowed: {}", invalid.allowed))
}

fn public_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain =
        |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>?#".contains(&b));
    match rest.filter(|rest| is_plain(rest)) {
        Some(_) => Ok(text.to_owned()),
        None => Err("allowed: an http or https URL without query and fragment".to_owned()),
    }
}
