//! `pentimento bench`: where the time of one picture goes, stage by stage.

mod report;

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::memory::MemoryArgs;
use crate::remote::Remote;
use crate::terminal::{self, Progress};
use crate::weights::{self, Places, WeightsArg};
use domain::catalogue::Mode;
use domain::id::ModelId;
use domain::quantity::Size;
use engine::{Engine, EngineError, Fit, Plan, Timings, Unobserved};
use imaging::Picture;
use nn::peak::Peaks;
use pipelines::Residency;
use pipelines::stage::{Stage, Staged};
use pipelines::synthetic::{self, Preset};
use report::{Report, Setting};
use std::sync::Arc;

/// Measurements of the machine's peaks, of which the best counts.
const PEAK_TRIES: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArg,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Instead of weights, random numbers in the shape of a model: flux-dev, flux-schnell, sdxl, medium or wide
    /// (docs/performance.md)
    #[arg(long, value_name = "SHAPE", value_parser = preset)]
    synthetic: Option<Preset>,
    /// Only one part of a synthetic model, where all of them do not fit: text, transformer or vae
    #[arg(long, value_name = "PART", requires = "synthetic", value_parser = stage)]
    only: Option<Stage>,
    /// Of the picture, pixels: a side, or width and height (768x512).
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = size)]
    size: Size,
    /// Steps, all of which run.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Tokens of the prompt, padding included [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    max_sequence_length: Option<u32>,
    /// Measured runs, after one that warms up; every figure is a median.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let progress = Progress::begin("loading the weights".to_owned());
    let residency = args.memory.residency();
    let residency = if args.only.is_some() { residency.reading_late() } else { residency };
    let mut subject = Subject::load(args, &residency)?;
    let plan = plan(args);
    let mut runs = Vec::new();
    for run in 0..=args.runs {
        progress.now(if run == 0 { "warming up" } else { "measuring" });
        let timings = subject.run(&plan).map_err(Failure::because)?;
        if run > 0 {
            runs.push(timings);
        }
    }
    progress.end();
    let setting = Setting {
        model: subject.model().as_str(),
        precision: args.memory.precision().as_str(),
        precisions: residency.precisions(),
        size: args.size,
        steps: args.steps,
    };
    // Before the peaks are measured, which takes memory of its own.
    let memory = peak_rss_mib();
    let report = Report { setting, runs: &runs, memory, peaks: Peaks::best_of(PEAK_TRIES) };
    terminal::say(&if args.json { report.json().to_string() } else { report.table() })?;
    Ok(())
}

/// What is measured.
enum Subject {
    Whole(Box<dyn Engine>),
    Part(Box<dyn Staged>, Stage),
}

impl Subject {
    fn load(args: &Args, residency: &Arc<Residency>) -> Result<Self, Failure> {
        let synthetic = |preset| synthetic::load(preset, residency).map_err(Failure::because);
        match (args.synthetic, args.only) {
            (Some(preset), Some(stage)) => Ok(Self::Part(synthetic(preset)?, stage)),
            (Some(preset), None) => Ok(Self::Whole(synthetic(preset)?)),
            (None, _) => {
                let catalogue = hub::catalogue::built_in();
                let app = catalogue.by_slug("flux-dev");
                let app = app.ok_or_else(|| Failure::because("the catalogue has no flux-dev"))?;
                let (weights, data, remote) = (&args.weights, &args.data, Remote::none());
                let residency = Arc::clone(residency);
                let places = Places { weights, data, loras: &[], residency, remote, allowed: &[] };
                weights::engine_for(app, places).map(Self::Whole)
            }
        }
    }

    fn model(&self) -> &ModelId {
        match self {
            Self::Whole(engine) => engine.model(),
            Self::Part(engine, _) => engine.model(),
        }
    }

    fn run(&mut self, plan: &Plan) -> Result<Timings, EngineError> {
        match self {
            Self::Whole(engine) => engine.run(plan, &mut Unobserved).map(|output| output.timings),
            Self::Part(engine, stage) => engine.run_stage(plan, *stage),
        }
    }
}

/// A picture of noise at full strength: every stage and every step runs.
fn plan(args: &Args) -> Plan {
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Plan {
        source: Picture::new(args.size, noise.take(3 * args.size.pixels() as usize).collect()),
        mode: Mode::Plain,
        control_image: None,
        prompt: "a lighthouse at dusk, oil painting".to_owned(),
        prompt_2: None,
        negative_prompt: None,
        negative_prompt_2: None,
        guidance_scale: None,
        true_cfg_scale: Some(1.0),
        strength: Some(1.0),
        steps: Some(args.steps),
        scheduler: None,
        size: Some(args.size),
        fit: Fit::Stretch,
        seed: 0,
        batch: 1,
        max_sequence_length: args.max_sequence_length,
    }
}

fn preset(text: &str) -> Result<Preset, String> {
    let allowed = || format!("allowed: {}", Preset::ALL.map(Preset::as_str).join(", "));
    Preset::parse(text).ok_or_else(allowed)
}

fn stage(text: &str) -> Result<Stage, String> {
    Stage::parse(text).ok_or_else(|| format!("allowed: {}", Stage::ALL.map(Stage::as_str).join(", ")))
}

/// `512`, or `768x512`.
fn size(text: &str) -> Result<Size, String> {
    const SIDE_MAX: u32 = 4096;
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=SIDE_MAX).contains(side));
    let size = side(width).zip(side(height)).map(|(width, height)| Size::new(width, height));
    size.ok_or_else(|| format!("allowed: a side from 1 to {SIDE_MAX}, or two such as 768x512"))
}

/// The most memory that the process has held, where the system tells.
fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_side_or_two() {
        assert_eq!(size("512"), Ok(Size::new(512, 512)));
        assert_eq!(size("768x512"), Ok(Size::new(768, 512)));
        for text in ["", "0", "4097", "512x", "x", "1x2x3", "-1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
