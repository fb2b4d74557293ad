//! `pentimento bench`: where the time of one picture goes, stage by stage.

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::memory::MemoryArgs;
use crate::remote::Remote;
use crate::terminal::{self, Progress};
use crate::weights::{self, Places, PrecisionArg, WeightsArg};
use domain::catalogue::Mode;
use domain::quantity::Size;
use engine::{Engine, Fit, Plan, Timings};
use imaging::Picture;
use serde_json::json;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    weights: WeightsArg,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    memory: MemoryArgs,
    #[arg(long, value_name = "W", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    width: u32,
    #[arg(long, value_name = "H", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    height: u32,
    /// Steps, all of which run.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Tokens of the prompt, padding included [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    max_sequence_length: Option<u32>,
    /// The number format to compute in.
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionArg,
    /// Measured runs, after one that warms up; every figure is a median.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Median seconds of each stage.
struct Medians {
    text: f64,
    vae_encode: f64,
    step: f64,
    vae_decode: f64,
    total: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = hub::catalogue::built_in();
    let app = catalogue.by_slug("flux-dev").ok_or_else(|| Failure::because("the catalogue has no flux-dev"))?;
    let progress = Progress::begin("loading the weights".to_owned());
    let remote = Remote::none();
    let places = Places {
        weights: &args.weights,
        data: &args.data,
        loras: &[],
        residency: args.memory.residency(),
        remote,
        allowed: &[],
    };
    let mut engine = weights::engine_for(app, places)?;
    let plan = plan(args);
    let mut runs = Vec::new();
    for run in 0..=args.runs {
        progress.now(if run == 0 { "warming up" } else { "measuring" });
        let output = engine.run(&plan, &mut engine::Unobserved).map_err(Failure::because)?;
        if run > 0 {
            runs.push(output.timings);
        }
    }
    progress.end();
    report(args, engine.as_ref(), &medians(&runs));
    Ok(())
}

/// A picture of noise at full strength: every stage and every step runs.
fn plan(args: &Args) -> Plan {
    let size = Size::new(args.width, args.height);
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Plan {
        source: Picture::new(size, noise.take(3 * size.pixels() as usize).collect()),
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
        size: Some(size),
        fit: Fit::Stretch,
        seed: 0,
        batch: 1,
        max_sequence_length: args.max_sequence_length,
    }
}

fn medians(runs: &[Timings]) -> Medians {
    let of = |stage: fn(&Timings) -> Duration| median(runs.iter().map(stage).collect());
    Medians {
        text: of(|run| run.text),
        vae_encode: of(|run| run.vae_encode),
        step: median(runs.iter().flat_map(|run| run.steps.clone()).collect()),
        vae_decode: of(|run| run.vae_decode),
        total: of(|run| run.total),
    }
}

fn median(mut durations: Vec<Duration>) -> f64 {
    durations.sort_unstable();
    let middle = durations.len() / 2;
    let seconds = |idx: usize| durations.get(idx).map_or(0.0, Duration::as_secs_f64);
    let even = durations.len().is_multiple_of(2) && middle > 0;
    let value = if even { f64::midpoint(seconds(middle - 1), seconds(middle)) } else { seconds(middle) };
    (value * 1e4).round() / 1e4
}

fn report(args: &Args, engine: &dyn Engine, medians: &Medians) {
    let Medians { text, vae_encode, step, vae_decode, total } = medians;
    let precision = pipelines::Precision::from(args.precision).as_str();
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let peak = peak_rss_mib();
    if args.json {
        let object = json!({
            "text": text, "vae_encode": vae_encode, "step": step, "vae_decode": vae_decode, "total": total,
            "peak_rss_mib": peak, "model": engine.model().as_str(), "precision": precision, "width": args.width,
            "height": args.height, "steps": args.steps, "runs": args.runs, "threads": n_threads,
        });
        terminal::say(&object.to_string());
        return;
    }
    let Args { width, height, steps, runs, .. } = args;
    terminal::say(&format!(
        "{}, {width}x{height}, {steps} steps, {precision}, {n_threads} threads, median of {runs} runs",
        engine.model()
    ));
    for (stage, seconds) in
        [("text", text), ("vae_encode", vae_encode), ("step", step), ("vae_decode", vae_decode), ("total", total)]
    {
        terminal::say(&format!("  {stage:<12} {seconds:>9.4} s"));
    }
    if let Some(peak) = peak {
        terminal::say(&format!("  {:<12} {peak:>9} MiB", "peak memory"));
    }
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
    fn a_median_stands_in_the_middle() {
        let seconds = |values: &[u64]| median(values.iter().map(|value| Duration::from_secs(*value)).collect());
        assert!((seconds(&[3, 1, 100]) - 3.0).abs() < 1e-9);
        assert!((seconds(&[1, 2, 3, 100]) - 2.5).abs() < 1e-9);
        assert!(seconds(&[]).abs() < 1e-9);
    }
}
