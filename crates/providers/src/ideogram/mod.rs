//! Ideogram 3.0's remix: a picture made anew from a reference and a prompt, on Ideogram's machines.
//!
//! `POST {base}/v1/ideogram-v3/remix`, as <https://developer.ideogram.ai/api-reference/api-reference/remix-v3> has it.
//! It paints sizes of its own; what the caller gets has the size that was asked for.

pub mod config;

mod answer;
mod call;
mod form;
mod job;
mod resolution;
mod results;
mod upload;

pub use crate::backoff::Backoff;
pub use config::{ApiKey, BaseUrl, IdeogramConfig, RenderingSpeed};

use crate::patience::watched;
use answer::Painted;
use call::Caller;
use domain::id::ModelId;
use engine::{Effective, Engine, EngineError, Observer, Output, Plan, StepReport, Timings};
use imaging::Picture;
use ingest::Fetcher;
use job::Job;
use results::Results;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use transport::Tls;

/// Steps besides the fetching of each picture: the reference is ready to leave; the pictures are painted.
const STEPS_BEFORE_RESULTS: u32 = 2;

/// Paints by asking Ideogram.
pub struct IdeogramEngine {
    model: ModelId,
    config: IdeogramConfig,
    tls: Tls,
    fetcher: Arc<Fetcher>,
    /// Its own, so that the thread that owns the engine can wait for the network.
    runtime: Runtime,
}

/// Pictures, and which of them were withheld.
struct Remixed {
    images: Vec<Picture>,
    withheld: Vec<bool>,
}

impl IdeogramEngine {
    /// `model` is what the pictures are signed with. Asks nobody yet.
    pub fn new(model: ModelId, config: IdeogramConfig) -> Result<Self, EngineError> {
        let unusable = |error: &dyn std::error::Error| EngineError::Denied(error.to_string());
        let tls = Tls::new(config.results.extra_roots_pem.as_deref()).map_err(|error| unusable(&error))?;
        let fetcher = Fetcher::new(config.results.clone()).map_err(|error| unusable(&error))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| EngineError::Failed(error.to_string()))?;
        Ok(Self { model, config, tls, fetcher: Arc::new(fetcher), runtime })
    }

    fn remix(&self, job: &Job<'_>, timings: &mut Timings, observer: &mut dyn Observer) -> Result<Remixed, EngineError> {
        let mut progress = Progress { observer, step: 0, n_steps: STEPS_BEFORE_RESULTS + job.plan.batch };
        let form = job.form(self.config.rendering_speed)?;
        progress.step()?;
        self.runtime.block_on(async {
            let caller = Caller { config: &self.config, tls: &self.tls };
            let begun = Instant::now();
            let painted = watched(progress.observer, caller.remix(&form)).await?;
            timings.steps.push(begun.elapsed());
            let painted = as_many_as_asked(painted, job.plan.batch as usize)?;
            progress.step()?;
            let mut results = Results::of(&painted, &self.fetcher, self.config.backoff);
            while watched(progress.observer, results.next()).await? {
                progress.step()?;
            }
            Ok(finished(job, results.pictures()?))
        })
    }
}

impl Engine for IdeogramEngine {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Output, EngineError> {
        let job = Job::of(plan)?;
        let begun = Instant::now();
        let mut timings = Timings::default();
        let Remixed { images, withheld } = if job.strength == 0.0 {
            Remixed { images: vec![job.untouched(); plan.batch as usize], withheld: Vec::new() }
        } else {
            self.remix(&job, &mut timings, observer)?
        };
        timings.total = begun.elapsed();
        Ok(Output {
            images,
            withheld,
            model: self.model.clone(),
            // What Ideogram has no notion of is 0.
            effective: Effective {
                size: job.size,
                strength: job.strength,
                steps: 0,
                steps_run: 0,
                guidance_scale: 0.0,
                true_cfg_scale: 0.0,
                max_sequence_length: 0,
            },
            timings,
            ignored: job.ignored,
        })
    }
}

/// Tells the observer of each step, and hears whether to go on.
struct Progress<'a> {
    observer: &'a mut dyn Observer,
    step: u32,
    n_steps: u32,
}

impl Progress<'_> {
    fn step(&mut self) -> Result<(), EngineError> {
        self.step += 1;
        let report = StepReport { step: self.step, n_steps: self.n_steps };
        if self.observer.step(report).is_break() { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}

fn as_many_as_asked(mut painted: Vec<Painted>, n_asked: usize) -> Result<Vec<Painted>, EngineError> {
    if painted.len() < n_asked {
        let text = format!("Ideogram has painted {} pictures instead of {n_asked}", painted.len());
        return Err(EngineError::Lost(text));
    }
    painted.truncate(n_asked);
    if painted.iter().all(|painted| *painted == Painted::Withheld) {
        return Err(EngineError::Unsafe("Ideogram's safety check withholds every picture that it painted".to_owned()));
    }
    Ok(painted)
}

/// In the size asked for, and black where a picture was withheld.
fn finished(job: &Job<'_>, pictures: Vec<Option<Picture>>) -> Remixed {
    let withheld = pictures.iter().map(Option::is_none).collect();
    let image = |picture: Option<Picture>| match picture {
        Some(picture) => job.finish(&picture),
        None => Picture::filled(job.size, [0, 0, 0]),
    };
    Remixed { images: pictures.into_iter().map(image).collect(), withheld }
}
