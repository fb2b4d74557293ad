//! One attempt at one task: the reference picture in, pictures and thumbnails out.

use crate::config::WorkerConfig;
use crate::device::{Device, Mishap, Order, Painted};
use crate::lookout::{Lookout, Stop};
use bytes::Bytes;
use domain::catalogue::App;
use domain::fault::{ErrorCode, Fault};
use domain::id::{BlobKey, ModelId};
use domain::limits::SIDE_PX_MAX;
use domain::request::{GenerationRequest, OutputFormat};
use domain::task::{PaintedImage, Painting, Task};
use engine::{EngineError, Fit, Output, Plan};
use imaging::{ImageError, Metadata, Picture, SOFTWARE};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use store::contract::{Lease, Retry, StoreError, Stores};
use tokio::sync::Semaphore;
use tracing::Span;

/// The longest side of a thumbnail, pixels.
const THUMBNAIL_PX_MAX: u32 = 256;
/// Pictures that are decoded at a time, all attempts together: until it is scaled down, one of the largest that are taken
/// in has some 200 MB.
pub(crate) const DECODINGS_MAX: usize = 2;

pub(crate) struct Attempt<'a> {
    config: &'a WorkerConfig,
    device: &'a Device,
    task: &'a Task,
    lookout: Arc<Lookout>,
    /// One permit for each picture that may be decoded now.
    decodings: Arc<Semaphore>,
    /// Files that this attempt has stored; the store's once it takes the painting.
    uploads: Mutex<Vec<BlobKey>>,
}

/// Why there is no painting.
#[derive(Debug)]
pub(crate) enum Setback {
    /// The lookout was asked to stop.
    Stopped,
    Failed {
        fault: Fault,
        retry: Retry,
    },
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        config: &'a WorkerConfig,
        device: &'a Device,
        lease: &'a Lease,
        lookout: Arc<Lookout>,
        decodings: Arc<Semaphore>,
    ) -> Self {
        Self { config, device, task: &lease.task, lookout, decodings, uploads: Mutex::default() }
    }

    pub(crate) fn lookout(&self) -> &Lookout {
        &self.lookout
    }

    pub(crate) async fn run(&self) -> Result<Painting, Setback> {
        let begun = Instant::now();
        let waited_ms = self.task.started_ms.map_or(0, |started_ms| started_ms - self.task.created_ms);
        let request = &self.task.request;
        let (app, model) = self.app_and_model()?;
        let source = self.picture(&self.task.source, "reference").await?;
        let control = match &self.task.control {
            Some(key) => Some(self.picture(key, "control").await?),
            None => None,
        };
        self.stop_if_asked()?;
        let order = Order {
            model: model.clone(),
            plan: plan(request, app, Pictures { source, control }),
            lookout: Arc::clone(&self.lookout),
        };
        let painted = self.device.paint(order).await.map_err(|mishap| self.setback(&model, &mishap))?;
        self.stop_if_unwanted()?;
        let Painted { mut output, loading } = painted;
        let withheld = std::mem::take(&mut output.withheld);
        let (model, ignored) = (output.model.clone(), ignored(request, app, &output));
        let files = self.encode(output).await?;
        let mut images = self.upload(files).await?;
        for (image, withheld) in images.iter_mut().zip(withheld) {
            image.withheld = withheld;
        }
        self.stop_if_unwanted()?;
        Ok(Painting {
            images,
            model,
            startup_s: (waited_ms.max(0) as f64 / 1000.0) + loading.as_secs_f64(),
            runtime_s: begun.elapsed().saturating_sub(loading).as_secs_f64(),
            ignored,
        })
    }

    /// Undoes what [`Attempt::run`] stored.
    pub(crate) async fn delete_uploads(&self) {
        let uploads = std::mem::take(&mut *self.uploads.lock().unwrap_or_else(PoisonError::into_inner));
        for key in uploads {
            if let Err(error) = self.stores().blobs.delete(&key).await {
                tracing::warn!(%error, "a file of an attempt that came to nothing could not be deleted");
            }
        }
    }

    fn stores(&self) -> &Stores {
        &self.config.stores
    }

    fn stop_if_asked(&self) -> Result<(), Setback> {
        self.lookout.stop().map_or(Ok(()), |_| Err(Setback::Stopped))
    }

    /// What is painted is not thrown away because the worker goes.
    fn stop_if_unwanted(&self) -> Result<(), Setback> {
        match self.lookout.stop() {
            Some(Stop::Cancel | Stop::Lost) => Err(Setback::Stopped),
            Some(Stop::Drain) | None => Ok(()),
        }
    }

    fn app_and_model(&self) -> Result<(&App, ModelId), Setback> {
        let app = self.config.catalogue.by_id(self.task.request.app.as_str());
        app.and_then(|app| Some((app, self.config.engines.model_for(&app.models)?))).ok_or_else(|| {
            let detail = format!("no weights are installed for the app {}", self.task.request.app);
            never(Fault::new(ErrorCode::Unavailable, detail))
        })
    }

    /// A stored picture within the limit of the engines.
    async fn picture(&self, key: &BlobKey, role: &str) -> Result<Picture, Setback> {
        let bytes = match self.stores().blobs.get(key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let detail = format!("the {role} picture is no longer stored");
                return Err(never(Fault::new(ErrorCode::Failed, detail)));
            }
            Err(error) => return Err(self.store_failed(&error)),
        };
        let permit = Arc::clone(&self.decodings).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed, this is a bug");
        let decode = move || {
            // Until it is done, even if nobody waits for it any more.
            let _permit = permit;
            imaging::decode(&bytes).map(|picture| imaging::fit_within(&picture, SIDE_PX_MAX))
        };
        self.apart(decode).await?.map_err(|error| {
            let detail = format!("the {role} picture cannot be read: {error}");
            never(Fault::new(ErrorCode::SourceUnavailable, detail))
        })
    }

    async fn encode(&self, output: Output) -> Result<Vec<Files>, Setback> {
        let request = &self.task.request;
        let (n_painted, n_wanted) = (output.images.len(), request.batch.get() as usize);
        if n_painted != n_wanted {
            let detail = format!("the engine painted {n_painted} pictures instead of {n_wanted}");
            return Err(never(Fault::new(ErrorCode::Internal, detail)));
        }
        let format = request.output_format;
        let metadata = Metadata {
            software: SOFTWARE.to_owned(),
            model: output.model.as_str().to_owned(),
            seed: Some(request.seed),
        };
        let encode = move || output.images.iter().map(|picture| Files::of(picture, format, &metadata)).collect();
        let encoded: Result<Vec<Files>, ImageError> = self.apart(encode).await?;
        encoded.map_err(|error| never(Fault::new(ErrorCode::Failed, error.to_string())))
    }

    async fn upload(&self, files: Vec<Files>) -> Result<Vec<PaintedImage>, Setback> {
        let format = self.task.request.output_format;
        let mut images = Vec::with_capacity(files.len());
        for Files { image, thumbnail } in files {
            images.push(PaintedImage {
                image: self.put("r", format, image).await?,
                thumbnail: self.put("t", OutputFormat::Jpeg, thumbnail).await?,
                withheld: false,
            });
        }
        Ok(images)
    }

    async fn put(&self, prefix: &str, format: OutputFormat, bytes: Vec<u8>) -> Result<BlobKey, Setback> {
        let key = unguessable_key(prefix, format)
            .ok_or_else(|| self.again(Fault::new(ErrorCode::Internal, "the system gives no random bytes")))?;
        // Noted first: a put that fails may have left something all the same.
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        self.stores().blobs.put(&key, Bytes::from(bytes)).await.map_err(|error| self.store_failed(&error))?;
        Ok(key)
    }

    /// Runs heavy work where it holds nobody up.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Setback> {
        let span = Span::current();
        let work = tokio::task::spawn_blocking(move || span.in_scope(work));
        work.await.map_err(|error| {
            tracing::error!(%error, "a picture could not be converted");
            self.again(Fault::new(ErrorCode::Internal, "a picture could not be converted"))
        })
    }

    fn setback(&self, model: &ModelId, mishap: &Mishap) -> Setback {
        match mishap {
            Mishap::Engine(EngineError::Cancelled) if self.lookout.stop().is_some() => return Setback::Stopped,
            Mishap::Engine(EngineError::Refused(reason)) => {
                return never(Fault::new(ErrorCode::Failed, reason.clone()));
            }
            Mishap::Engine(EngineError::Unsafe(reason)) => {
                return never(Fault::new(ErrorCode::Unsafe, reason.clone()));
            }
            _ => {}
        }
        // What is told here is for the operator; a client gets no insides.
        tracing::error!(model.id = %model, error = %mishap, "the engine failed");
        match mishap {
            Mishap::Engine(EngineError::Weights(_)) => {
                let detail = format!("the weights of {model} cannot be used on this server");
                never(Fault::new(ErrorCode::Unavailable, detail))
            }
            Mishap::Engine(EngineError::Denied(_)) => {
                never(Fault::new(ErrorCode::Unavailable, format!("{model} cannot be used on this server")))
            }
            Mishap::Engine(EngineError::Lost(reason)) => never(Fault::new(ErrorCode::Failed, reason.clone())),
            Mishap::Engine(_) => self.again(Fault::new(ErrorCode::Failed, "the engine failed while painting")),
            Mishap::Panicked | Mishap::Gone => {
                self.again(Fault::new(ErrorCode::Failed, "the engine crashed while painting"))
            }
        }
    }

    fn store_failed(&self, error: &StoreError) -> Setback {
        tracing::error!(%error, "the file store failed");
        self.again(Fault::new(ErrorCode::Internal, "a file could not be read or stored"))
    }

    /// The next attempt may do better, after a pause.
    fn again(&self, fault: Fault) -> Setback {
        let pause = self.config.timing.retry_after(self.task.attempt);
        Setback::Failed { fault, retry: Retry::AfterMs(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)) }
    }
}

/// One picture of the batch, as bytes.
struct Files {
    image: Vec<u8>,
    thumbnail: Vec<u8>,
}

impl Files {
    fn of(picture: &Picture, format: OutputFormat, metadata: &Metadata) -> Result<Self, ImageError> {
        let thumbnail = imaging::thumbnail(picture, THUMBNAIL_PX_MAX);
        Ok(Self {
            image: imaging::encode(picture, format, metadata)?,
            thumbnail: imaging::encode(&thumbnail, OutputFormat::Jpeg, metadata)?,
        })
    }
}

/// No other attempt would do better.
fn never(fault: Fault) -> Setback {
    Setback::Failed { fault, retry: Retry::Never }
}

/// What a task paints from.
struct Pictures {
    source: Picture,
    control: Option<Picture>,
}

fn plan(request: &GenerationRequest, app: &App, pictures: Pictures) -> Plan {
    // A client's empty text says that there is nothing to avoid, which need not be computed.
    let negative_prompt = (!request.negative_prompt.is_empty()).then_some(request.negative_prompt.as_str());
    Plan {
        source: Some(pictures.source),
        mode: app.mode,
        control_image: pictures.control,
        prompt: app.preset.prompt(&request.prompt),
        prompt_2: None,
        negative_prompt: app.preset.negative_prompt(negative_prompt),
        negative_prompt_2: None,
        guidance_scale: Some(request.guidance_scale.get()),
        true_cfg_scale: None,
        strength: Some(request.strength.get()),
        steps: Some(request.steps.get()),
        scheduler: app.preset.scheduler,
        size: request.size,
        fit: Fit::Cover,
        seed: request.seed,
        batch: request.batch.get(),
        max_sequence_length: None,
    }
}

/// What the app and the engine did not use, each named once. What is as the app has it by itself, nobody misses.
fn ignored(request: &GenerationRequest, app: &App, output: &Output) -> Vec<String> {
    let is_default = |name: &str| match name {
        "guidance_scale" => request.guidance_scale == app.defaults.guidance_scale,
        "num_inference_steps" => request.steps == app.defaults.steps,
        "strength" => request.strength == app.defaults.strength,
        _ => false,
    };
    let mut all = request.ignored.clone();
    for name in output.ignored.iter().filter(|name| !is_default(name)) {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

/// A name with 128 random bits: whoever knows it may see the file.
fn unguessable_key(prefix: &str, format: OutputFormat) -> Option<BlobKey> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    BlobKey::parse(&format!("{prefix}-{:032x}.{}", u128::from_be_bytes(bytes), format.as_str()))
}
