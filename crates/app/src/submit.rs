//! Accepting a task: check, admit, fetch the reference picture, queue. Durable before the caller hears of it.

use crate::keys::Caller;
use crate::source::{recorded_url, unchecked, whole};
use crate::{App, now_ms, random_bytes, store_failed};
use bytes::Bytes;
use domain::fault::{ErrorCode, Fault, Invalid};
use domain::id::{BlobKey, TaskId};
use domain::limits::IDEMPOTENCY_KEY_CHARS_MAX;
use domain::request::{Draft, GenerationRequest, InferenceType};
use domain::task::Task;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::iter;
use store::contract::{Idempotency, NewTask, Submission};

/// How the keys of reference pictures begin; they are never served.
pub(crate) const SOURCE_PREFIX: &str = "s-";
/// When a caller that meets a full queue should come back, seconds.
const RETRY_FULL_S: u32 = 10;
/// When a caller that meets absent weights should come back, seconds: somebody has to install them.
const RETRY_ABSENT_S: u32 = 300;

/// What a client asks for.
pub struct Order {
    pub draft: Draft,
    /// Fields that nobody knows; told to the client as ignored.
    pub unknown_fields: Vec<String>,
    pub idempotency_key: Option<String>,
    /// The body as it came: the same idempotency key must come with the same one.
    pub body: Bytes,
}

/// An accepted task. Dropped without [`Placed::keep`], it is cancelled: a caller that went away frees its place.
pub struct Placed {
    task: Task,
    place: Option<Place>,
}

struct Place {
    app: App,
    id: TaskId,
}

impl Placed {
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The task goes on whether or not anybody waits for it.
    pub fn keep(mut self) -> Task {
        self.place = None;
        self.task.clone()
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let Some(Place { app, id }) = self.place.take() else { return };
        // Without a runtime the process ends, and then the task must outlive it anyway.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = app.inner.stores.tasks.cancel(&id).await {
                tracing::warn!(task.id = %id, %error, "an abandoned task could not be cancelled");
            }
        });
    }
}

impl App {
    /// Queues a task. What a client can get wrong is told before anything is fetched, the cheapest check first.
    ///
    /// A task under an idempotency key is never cancelled because its caller went away: whoever sends such a key means
    /// to ask again, and must then find the task and not its remains.
    pub async fn submit(&self, caller: &Caller, order: Order) -> Result<Placed, Fault> {
        let idempotency = idempotency(&order).await?;
        let names_class = order.draft.inference_type.is_some();
        let mut request = GenerationRequest::accept(order.draft, &self.inner.catalogue, fresh_seed()?)?;
        request.ignored.extend(order.unknown_fields);
        if let Some(idempotency) = &idempotency {
            let earlier = self.inner.stores.tasks.remembered(&caller.key, idempotency).await.map_err(store_failed)?;
            if let Some(earlier) = earlier {
                return settled(earlier).map(|task| Placed { task, place: None });
            }
        }
        let named_class = request.inference_type.filter(|_| names_class);
        self.place(&mut request, named_class)?;
        self.admit(caller, &request).await?;
        let preparing = self.turns.to_prepare(&caller.key).await.map_err(|_| unchecked())?;
        let source = self.fetched(caller, "image", &mut request.image).await?;
        let control = match &mut request.control_image {
            Some(url) => Some(self.fetched(caller, "control_image", url).await?),
            None => None,
        };
        let (app, owner) = (self.clone(), caller.key.clone());
        // On a task of its own: a caller that goes away now must not leave a queued task behind that nobody knows of.
        let placing = tokio::spawn(async move {
            let is_awaited = idempotency.is_none();
            let id = TaskId::from_random(random_bytes()?);
            let (source, control) = (Stored::of(source)?, control.map(Stored::of).transpose()?);
            let new = NewTask {
                id,
                owner,
                request,
                source: source.key.clone(),
                control: control.as_ref().map(|control| control.key.clone()),
                idempotency,
                now_ms: now_ms(),
            };
            let task = app.enqueue(new, iter::once(source).chain(control).collect()).await?;
            drop(preparing);
            let place = is_awaited.then(|| Place { id: task.id.clone(), app: app.clone() });
            Ok(Placed { task, place })
        });
        placing.await.unwrap_or_else(|panic| {
            tracing::error!(%panic, "submitting panicked");
            Err(Fault::new(ErrorCode::Internal, "the task could not be queued; try again"))
        })
    }

    /// Gives the request the class of GPU that it runs on.
    fn place(&self, request: &mut GenerationRequest, named: Option<InferenceType>) -> Result<(), Fault> {
        let gpus = self.inner.config.gpus;
        let class = match (named, request.inference_type) {
            (Some(named), _) => gpus.place(named).map_err(|invalid| {
                Fault::new(ErrorCode::Unavailable, invalid.to_string()).retry_after_s(RETRY_ABSENT_S)
            })?,
            // Who named none takes what there is.
            (None, Some(default)) => gpus.nearest(default),
            (None, None) => return Ok(()),
        };
        if named.is_some_and(|named| named != class) {
            request.ignored.push("inference_type".to_owned());
        }
        request.inference_type = Some(class);
        Ok(())
    }

    async fn admit(&self, caller: &Caller, request: &GenerationRequest) -> Result<(), Fault> {
        let app = self.inner.catalogue.by_id(request.app.as_str()).expect("an accepted app is listed, this is a bug");
        if let Err(how_to_install) = self.inner.availability.model_for(app) {
            let fault = Fault::new(ErrorCode::Unavailable, format!("{}: {how_to_install}", app.name));
            return Err(fault.retry_after_s(RETRY_ABSENT_S));
        }
        self.quota.take(&caller.key)?;
        // Asked again when the task is queued; here it spares fetching and decoding what would be refused.
        let refusal = self.inner.stores.tasks.refusal(&caller.key).await.map_err(store_failed)?;
        refusal.map_or(Ok(()), |refusal| settled(refusal).map(drop))
    }

    /// Fetches and checks a picture, and leaves of its URL what is kept with the task.
    async fn fetched(&self, caller: &Caller, field: &'static str, url: &mut String) -> Result<Bytes, Fault> {
        let fetched = self.inner.sources.fetch(field, url).await?;
        let turn = self.turns.to_decode(&caller.key).await.map_err(|_| unchecked())?;
        let picture = whole(field, fetched, turn).await?;
        *url = recorded_url(url);
        Ok(picture)
    }

    /// The pictures first: a queued task always has its pictures.
    async fn enqueue(&self, new: NewTask, pictures: Vec<Stored>) -> Result<Task, Fault> {
        let (blobs, tasks) = (&self.inner.stores.blobs, &self.inner.stores.tasks);
        let id = new.id.clone();
        for picture in &pictures {
            if let Err(error) = blobs.put(&picture.key, picture.bytes.clone()).await {
                self.forget(&pictures).await;
                return Err(store_failed(error));
            }
        }
        let submitted = tasks.submit(new).await;
        let queued = matches!(&submitted, Ok(Submission::Accepted(task)) if task.id == id);
        // Where the store failed, whether the task is queued is not known: what is left over is swept up later.
        if !queued && submitted.is_ok() {
            self.forget(&pictures).await;
        }
        settled(submitted.map_err(store_failed)?)
    }

    async fn forget(&self, pictures: &[Stored]) {
        for picture in pictures {
            if let Err(error) = self.inner.stores.blobs.delete(&picture.key).await {
                tracing::warn!(%error, "a picture that no task needs could not be deleted");
            }
        }
    }
}

/// A picture and the name that it is stored under.
struct Stored {
    key: BlobKey,
    bytes: Bytes,
}

impl Stored {
    fn of(bytes: Bytes) -> Result<Self, Fault> {
        Ok(Self { key: source_key()?, bytes })
    }
}

fn settled(submission: Submission) -> Result<Task, Fault> {
    match submission {
        Submission::Accepted(task) | Submission::Existing(task) => Ok(task),
        Submission::Conflict => Err(Fault::new(
            ErrorCode::Conflict,
            "Idempotency-Key: used before with another body; allowed: the same body",
        )),
        Submission::QueueFull => {
            Err(Fault::new(ErrorCode::Unavailable, "the queue is full; try again").retry_after_s(RETRY_FULL_S))
        }
        Submission::OwnerFull => {
            let detail = "this key has as many unfinished tasks as it may have; wait for one or cancel one";
            Err(Fault::new(ErrorCode::RateLimited, detail).retry_after_s(RETRY_FULL_S))
        }
    }
}

async fn idempotency(order: &Order) -> Result<Option<Idempotency>, Fault> {
    let Some(key) = &order.idempotency_key else { return Ok(None) };
    let visible = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if key.trim().is_empty() || key.len() > IDEMPOTENCY_KEY_CHARS_MAX || !visible {
        let allowed = format!("1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters");
        return Err(Invalid::new("Idempotency-Key", format!("{} bytes", key.len()), allowed).into());
    }
    // Of a body of megabytes that takes a while, so it is not done among the tasks that wait for the network.
    let body = order.body.clone();
    let digest = tokio::task::spawn_blocking(move || Sha256::digest(&body).into()).await;
    let internal = |_| Fault::new(ErrorCode::Internal, "the body could not be read; try again");
    Ok(Some(Idempotency { key: key.clone(), body_sha256: digest.map_err(internal)? }))
}

/// 32 bits, so that a client whose numbers are doubles can send it back unchanged.
fn fresh_seed() -> Result<u64, Fault> {
    Ok(u64::from(u32::from_le_bytes(random_bytes()?)))
}

fn source_key() -> Result<BlobKey, Fault> {
    let mut name = String::from(SOURCE_PREFIX);
    for byte in random_bytes::<16>()? {
        write!(name, "{byte:02x}").expect("writing to memory does not fail");
    }
    Ok(BlobKey::parse(&name).expect("a valid key, this is a bug"))
}
