//! `pentimento paint`: one picture, without the queue; the same plan and the same engine as the server's.

use crate::catalogue::CatalogueArgs;
use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::memory::MemoryArgs;
use crate::terminal::{self, Progress};
use crate::weights::{self, Places};
use domain::catalogue::{App, Catalogue, Scheduler};
use domain::limits::SIDE_PX_MAX;
use domain::quantity::Size;
use domain::request::OutputFormat;
use engine::{Fit, Output, Plan};
use imaging::{Metadata, Picture, SOFTWARE};
use ingest::{FetchPolicy, Fetcher, IpRange};
use pipelines::assembly::Lora;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The picture to paint over: a file, or an http, https or data: URL.
    image: String,
    /// What to paint.
    #[arg(allow_hyphen_values = true)]
    prompt: String,
    /// Where to write the result: .png, .jpg or .webp. With --batch: OUT-1.png to OUT-n.png.
    #[arg(short, long, value_name = "OUT.png", value_parser = output_path)]
    output: PathBuf,
    /// A ready-made control picture (edges, depth) for the apps that make one of the picture: a file or a URL.
    #[arg(long, value_name = "IMAGE")]
    control_image: Option<String>,
    /// The app, by its name or its id; `pentimento models` lists them. Named, its own defaults hold [default: flux-dev,
    /// with the model's defaults]
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    #[command(flatten)]
    data: DataArg,
    /// A LoRA that changes the weights, and how strongly [default scale: 1]; may be repeated.
    #[arg(long, value_name = "FILE[:SCALE]", value_parser = weights::lora)]
    lora: Vec<Lora>,
    /// How far to leave the picture: 0 returns it untouched, 1 disregards it [default: the model's]
    #[arg(long, value_name = "F", value_parser = |text: &str| number(text, 0.0, 1.0))]
    strength: Option<f64>,
    /// Steps of the whole schedule, of which `strength` lets a part run [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Adherence to the prompt [default: the model's]
    #[arg(long, value_name = "F", value_parser = |text: &str| number(text, 0.0, 100.0))]
    guidance_scale: Option<f64>,
    /// How noise is taken away, for SDXL: euler, euler-ancestral or dpmpp-2m-karras [default: the app's, or the model's]
    #[arg(long, value_name = "NAME", value_parser = scheduler)]
    scheduler: Option<Scheduler>,
    /// What to avoid.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    /// Guidance by a second, negative run of every step; above 1 it takes twice the time [default: the model's]
    #[arg(long, value_name = "F", value_parser = |text: &str| number(text, 0.0, 100.0))]
    true_cfg_scale: Option<f64>,
    /// What the second text encoder reads [default: the prompt]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt_2: Option<String>,
    /// The same seed gives the same picture.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Width of the result, pixels [default: the picture's, scaled down to fit 1536x1536]
    #[arg(long, value_name = "W", requires = "height", value_parser = clap::value_parser!(u32).range(1..=4096))]
    width: Option<u32>,
    /// Height of the result, pixels [default: the picture's, scaled down to fit 1536x1536]
    #[arg(long, value_name = "H", requires = "width", value_parser = clap::value_parser!(u32).range(1..=4096))]
    height: Option<u32>,
    /// How a picture of another shape meets the size: cut what hangs over, or stretch.
    #[arg(long, value_enum, default_value = "cover")]
    fit: FitArg,
    /// How many pictures to paint.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    batch: u32,
    /// Tokens of the prompt that the second text encoder reads, padding included [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    max_sequence_length: Option<u32>,
    /// Let URLs lead to these addresses too, although they are not public; may be repeated.
    #[arg(long, value_name = "CIDR", value_parser = |text: &str| IpRange::parse(text).map_err(|error| error.to_string()))]
    allow_source: Vec<IpRange>,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Print the parameters that were used, the seed and the timings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FitArg {
    Cover,
    Stretch,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = args.catalogue.apps()?;
    let app = app(args, &catalogue)?;
    output_paths(args).iter().try_for_each(|path| writable(path))?;
    let mut progress = Progress::begin("reading the picture".to_owned());
    let source = read_picture(args, "the picture", &args.image)?;
    let control = args.control_image.as_deref();
    let control = control.map(|image| read_picture(args, "the control picture", image)).transpose()?;
    progress.now("loading the weights");
    let begin = Instant::now();
    let residency = args.memory.residency();
    let places = Places {
        weights: &args.catalogue.weights,
        data: &args.data,
        loras: &args.lora,
        residency: Arc::clone(&residency),
        remote: args.catalogue.remote.open()?,
        allowed: &args.allow_source,
    };
    let mut engine = weights::engine_for(app, places)?;
    let load = begin.elapsed();
    progress.now("painting");
    let plan = plan(args, app, Pictures { source, control });
    let output = engine.run(&plan, &mut progress).map_err(Failure::because)?;
    let paths = write_pictures(args, &output)?;
    progress.end();
    report(args, app, &plan, &Painted { output, paths, load, precisions: residency.precisions() })
}

fn app<'a>(args: &Args, catalogue: &'a Catalogue) -> Result<&'a App, Failure> {
    let wanted = args.app.as_deref().unwrap_or("flux-dev");
    catalogue.by_slug(wanted).or_else(|| catalogue.by_id(wanted)).ok_or_else(|| {
        let slugs: Vec<&str> = catalogue.apps().iter().map(|app| app.slug.as_str()).collect();
        Failure::usage(format!("--app: got {wanted}; allowed: {}", slugs.join(", ")))
    })
}

/// What the command line names.
struct Pictures {
    source: Picture,
    control: Option<Picture>,
}

fn plan(args: &Args, app: &App, pictures: Pictures) -> Plan {
    // Who names no app wants what the model was made for; who names one wants what the server would do.
    let defaults = args.app.as_ref().map(|_| app.defaults);
    Plan {
        source: Some(pictures.source),
        mode: app.mode,
        control_image: pictures.control,
        prompt: app.preset.prompt(&args.prompt),
        prompt_2: args.prompt_2.clone(),
        negative_prompt: app.preset.negative_prompt(args.negative_prompt.as_deref()),
        negative_prompt_2: None,
        guidance_scale: args.guidance_scale.or(defaults.map(|defaults| defaults.guidance_scale.get())),
        true_cfg_scale: args.true_cfg_scale,
        strength: args.strength.or(defaults.map(|defaults| defaults.strength.get())),
        steps: args.steps.or(defaults.map(|defaults| defaults.steps.get())),
        scheduler: args.scheduler.or(app.preset.scheduler),
        size: args.width.zip(args.height).map(|(width, height)| Size::new(width, height)),
        fit: match args.fit {
            FitArg::Cover => Fit::Cover,
            FitArg::Stretch => Fit::Stretch,
        },
        seed: args.seed,
        batch: args.batch,
        max_sequence_length: args.max_sequence_length,
    }
}

/// A picture that the command line names by its file or its URL; scaled down as the server would, unless a size is named.
/// `role` is what messages call it.
fn read_picture(args: &Args, role: &str, image: &str) -> Result<Picture, Failure> {
    let is_url = ["http://", "https://", "data:"].iter().any(|scheme| image.to_ascii_lowercase().starts_with(scheme));
    let bytes = if is_url { fetch(args, image) } else { read_file(Path::new(image)) };
    let bytes = bytes.map_err(|problem| Failure::because(format!("{role}: {problem}")))?;
    let unreadable = |error| Failure::because(format!("{role} cannot be read: {error}"));
    let picture = imaging::decode(&bytes).map_err(unreadable)?;
    if args.width.is_some() {
        return Ok(picture);
    }
    let (found, picture) = (picture.size(), imaging::fit_within(&picture, SIDE_PX_MAX));
    if picture.size() != found {
        let size = picture.size();
        terminal::remark(&format!("{role} is {found}; it is painted at {size}; --width and --height ask for more"));
    }
    Ok(picture)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let n_bytes = fs::metadata(path).map_err(failed)?.len();
    let limit = domain::limits::SOURCE_BYTES_MAX as u64;
    if n_bytes > limit {
        return Err(format!("{}: got {n_bytes} bytes; allowed: {limit}", path.display()));
    }
    fs::read(path).map_err(failed)
}

fn fetch(args: &Args, url: &str) -> Result<Vec<u8>, String> {
    let policy = FetchPolicy { allowed_sources: args.allow_source.clone(), ..FetchPolicy::default() };
    let fetcher = Fetcher::new(policy).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let fetched = runtime.map_err(|error| error.to_string())?.block_on(fetcher.fetch(url));
    fetched.map(|fetched| fetched.bytes.to_vec()).map_err(|error| error.to_string())
}

/// Fails before the work, not after it, where the result could not be written.
fn writable(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::because(format!("{}: no such folder", folder.display())));
    }
    // What is neither a file nor a folder (a pipe, a device) may not like to be opened twice.
    let tried = match fs::metadata(path) {
        Err(_) if path.is_symlink() => Ok(()),
        Ok(found) if !found.is_file() && !found.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().write(true).open(path).map(drop),
        Err(_) => OpenOptions::new().write(true).create_new(true).open(path).and_then(|_| fs::remove_file(path)),
    };
    tried.map_err(|error| Failure::because(format!("{} cannot be written: {error}", path.display())))
}

/// One for each picture of the batch.
fn output_paths(args: &Args) -> Vec<PathBuf> {
    match args.batch {
        1 => vec![args.output.clone()],
        n => (1..=n).map(|number| numbered(&args.output, number)).collect(),
    }
}

fn write_pictures(args: &Args, output: &Output) -> Result<Vec<PathBuf>, Failure> {
    let metadata = Metadata { software: SOFTWARE.to_owned(), model: output.model.to_string(), seed: Some(args.seed) };
    let format = format_of(&args.output).ok_or_else(|| Failure::usage("--output: no known extension"))?;
    let paths = output_paths(args);
    for (path, picture) in paths.iter().zip(&output.images) {
        let bytes = imaging::encode(picture, format, &metadata).map_err(Failure::because)?;
        fs::write(path, bytes).map_err(|error| Failure::because(format!("{}: {error}", path.display())))?;
    }
    Ok(paths)
}

/// `out.png`, 2: `out-2.png`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{extension}"))
}

struct Painted {
    output: Output,
    paths: Vec<PathBuf>,
    load: Duration,
    /// Of each component.
    precisions: BTreeMap<String, &'static str>,
}

fn report(args: &Args, app: &App, plan: &Plan, painted: &Painted) -> Result<(), Failure> {
    let Painted { output, paths, load, .. } = painted;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if args.json {
        return terminal::say(&format!("{:#}", details(args, app, plan, painted)));
    }
    let seconds = output.timings.total.as_secs_f64() + load.as_secs_f64();
    let size = output.effective.size;
    terminal::remark(&format!("{}: {size}, by {}, seed {}, {seconds:.1} s", names.join(", "), output.model, plan.seed));
    if !output.ignored.is_empty() {
        terminal::remark(&format!("without effect on this model: {}", output.ignored.join(", ")));
    }
    Ok(())
}

fn details(args: &Args, app: &App, plan: &Plan, painted: &Painted) -> Value {
    let Painted { output, paths, load, precisions } = painted;
    let effective = &output.effective;
    let seconds = |duration: &Duration| (duration.as_secs_f64() * 1e4).round() / 1e4;
    json!({
        "output": paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "app": app.slug,
        "model": output.model.as_str(),
        "parameters": {
            "prompt": plan.prompt,
            "prompt_2": plan.prompt_2,
            "negative_prompt": plan.negative_prompt,
            "strength": effective.strength,
            "num_inference_steps": effective.steps,
            "steps_run": effective.steps_run,
            "guidance_scale": effective.guidance_scale,
            "true_cfg_scale": effective.true_cfg_scale,
            "max_sequence_length": effective.max_sequence_length,
            "width": effective.size.width,
            "height": effective.size.height,
            "fit": match plan.fit { Fit::Cover => "cover", Fit::Stretch => "stretch" },
            "batch": plan.batch,
            "precision": args.memory.precision().as_str(),
            "precisions": precisions,
        },
        "seed": plan.seed,
        "ignored": output.ignored,
        "timings": {
            "load": seconds(load),
            "text": seconds(&output.timings.text),
            "vae_encode": seconds(&output.timings.vae_encode),
            "steps": output.timings.steps.iter().map(seconds).collect::<Vec<_>>(),
            "vae_decode": seconds(&output.timings.vae_decode),
            "total": seconds(&output.timings.total),
        },
    })
}

fn output_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if format_of(&path).is_some() {
        Ok(path)
    } else {
        Err("allowed: a file name ending in .png, .jpg, .jpeg or .webp".to_owned())
    }
}

fn format_of(path: &Path) -> Option<OutputFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "png" => Some(OutputFormat::Png),
        "jpg" | "jpeg" => Some(OutputFormat::Jpeg),
        "webp" => Some(OutputFormat::Webp),
        _ => None,
    }
}

fn scheduler(text: &str) -> Result<Scheduler, String> {
    let allowed = || format!("allowed: {}", Scheduler::ALL.map(Scheduler::as_str).join(", "));
    Scheduler::parse(text).ok_or_else(allowed)
}

fn number(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("allowed: a number from {min} to {max}"))?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(format!("allowed: a number from {min} to {max}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_numbered_before_the_extension() {
        assert_eq!(numbered(Path::new("a/out.png"), 3), Path::new("a/out-3.png"));
    }

    #[test]
    fn an_output_of_an_unknown_kind_is_refused() {
        assert!(output_path("a.JPEG").is_ok());
        for name in ["out", "out.gif", ".png"] {
            assert!(output_path(name).is_err(), "{name}");
        }
    }
}
