//! An engine that calls a local server, plans for it, and observers of what it does.

use domain::catalogue::Mode;
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Engine, EngineError, Fit, Observer, Output, Plan, StepReport};
use imaging::Picture;
use ingest::{FetchPolicy, IpRange};
use providers::ideogram::{ApiKey, Backoff, BaseUrl, IdeogramConfig, IdeogramEngine};
use std::ops::ControlFlow;
use std::time::Duration;
use testkit::ideogram::{IdeogramServer, KEY};

/// With loopback opened for results, and times that a test can wait for.
pub(crate) fn config(server: &IdeogramServer) -> IdeogramConfig {
    let usual = IdeogramConfig::new(ApiKey::parse(KEY).unwrap());
    IdeogramConfig {
        base_url: BaseUrl::parse(&server.url()).unwrap(),
        call_time_max: Duration::from_secs(5),
        connect_time_max: Duration::from_millis(500),
        backoff: Backoff { first: Duration::from_millis(20), ..Backoff::default() },
        results: FetchPolicy {
            allowed_sources: vec![IpRange::parse("127.0.0.1").unwrap()],
            time_max: Duration::from_secs(2),
            connect_time_max: Duration::from_millis(500),
            ..FetchPolicy::default()
        },
        ..usual
    }
}

/// What a worker asks for, with the five sizes' default.
pub(crate) fn plan() -> Plan {
    Plan {
        source: Some(Picture::filled(Size::new(640, 480), [200, 80, 40])),
        mode: Mode::Remix,
        control_image: None,
        prompt: "a harbor at dusk".to_owned(),
        prompt_2: None,
        negative_prompt: None,
        negative_prompt_2: None,
        guidance_scale: None,
        true_cfg_scale: None,
        strength: Some(0.7),
        steps: None,
        scheduler: None,
        size: Some(Size::new(1024, 1024)),
        fit: Fit::Cover,
        seed: 7,
        batch: 1,
        max_sequence_length: None,
    }
}

/// Runs the plan where the worker would: on a thread that may wait.
pub(crate) async fn paint(config: IdeogramConfig, plan: Plan) -> Result<Output, EngineError> {
    paint_watched(config, plan, Steps::default()).await.0
}

pub(crate) async fn paint_watched(
    config: IdeogramConfig,
    plan: Plan,
    mut steps: Steps,
) -> (Result<Output, EngineError>, Steps) {
    let work = move || {
        let model = ModelId::parse("ideogram-remix").unwrap();
        let outcome = IdeogramEngine::new(model, config).and_then(|mut engine| engine.run(&plan, &mut steps));
        (outcome, steps)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// An observer that writes down each step and wants to stop after some.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) told: Vec<(u32, u32)>,
    /// After so many steps the answer is to stop.
    pub(crate) stop_after: Option<usize>,
    /// Once asked, in the middle of a step that follows so many, the answer is to stop.
    pub(crate) stop_within: Option<usize>,
}

impl Observer for Steps {
    fn step(&mut self, report: StepReport) -> ControlFlow<()> {
        self.told.push((report.step, report.n_steps));
        if self.stop_after == Some(self.told.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn go_on(&mut self) -> ControlFlow<()> {
        if self.stop_within == Some(self.told.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The error; nowhere in it the key, a URL or the prompt.
#[track_caller]
pub(crate) fn refused(outcome: Result<Output, EngineError>) -> EngineError {
    let error = outcome.map(|output| output.effective).unwrap_err();
    for told in [error.to_string(), format!("{error:?}")] {
        for secret in [KEY, "4711", "127.0.0.1", "http:", "harbor"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
    error
}
