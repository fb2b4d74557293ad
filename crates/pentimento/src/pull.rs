//! `pentimento pull`: fetches a model's weights, and those of the models that it needs.

use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::huggingface;
use crate::pull_progress::PullProgress;
use crate::terminal;
use crate::weights::WeightsArg;
use domain::id::ModelId;
use hub::download::{Downloader, Place, Plan, PullError, licence};
use hub::registry::{ModelEntry, Origin, Registry};
use indicatif::DecimalBytes;
use std::io::{BufRead, IsTerminal};
use std::path::Path;

/// How a shell tells that Ctrl-C ended a program.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model; `pentimento models` lists them
    model: String,
    #[command(flatten)]
    weights: WeightsArg,
    #[command(flatten)]
    data: DataArg,
    /// A branch, a tag or a commit of the model's repository, in the place of the one that this version knows
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Accept the licences that are shown, without a question
    #[arg(long, visible_alias = "yes")]
    accept_licence: bool,
    /// Show what would be fetched, and fetch nothing
    #[arg(long)]
    dry_run: bool,
}

/// A model and what its pull would bring.
struct Wanted<'a> {
    entry: &'a ModelEntry,
    plan: Plan,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let registry = hub::registry::built_in();
    let weights = args.weights.dir(&args.data);
    let entries = entries(&args.model, &registry, &weights)?;
    let downloader = huggingface::downloader()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::because)?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = pull(args, &downloader, &entries, &weights) => outcome,
            _ = tokio::signal::ctrl_c() => {
                let message = "interrupted; the same command goes on with what has arrived";
                Err(Failure::with_code(message, INTERRUPTED))
            }
        }
    });
    // A thread may still write a piece of a file, which the next pull finds.
    runtime.shutdown_background();
    outcome
}

async fn pull(args: &Args, downloader: &Downloader, entries: &[&ModelEntry], weights: &Path) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for (idx, entry) in entries.iter().enumerate() {
        let source = entry.source.as_ref().expect("only what can be pulled is wanted, this is a bug");
        // The option speaks of the model that was named.
        let revision = args.revision.as_deref().filter(|_| idx == 0);
        let plan = downloader.plan(&entry.id, source, revision).await.map_err(failed)?;
        wanted.push(Wanted { entry, plan });
    }
    for wanted in &wanted {
        show(wanted, &downloader.survey(&wanted.plan, weights))?;
    }
    if args.dry_run {
        return Ok(());
    }
    ask(args, &wanted, weights).await?;
    for wanted in &wanted {
        fetch(downloader, wanted, weights).await?;
    }
    Ok(())
}

async fn fetch(downloader: &Downloader, wanted: &Wanted<'_>, weights: &Path) -> Result<(), Failure> {
    let Wanted { entry, plan } = wanted;
    let progress = PullProgress::begin(plan, &downloader.survey(plan, weights));
    let outcome = downloader.pull(plan, weights, &progress).await;
    progress.end();
    let was_missing = outcome.map_err(failed)?;
    let place = weights.join(entry.id.as_str());
    let how = if was_missing { "is installed at" } else { "was complete at" };
    terminal::say(&format!("{} {how} {}", entry.id, place.display()))?;
    if !entry.paints {
        terminal::say(&format!("this version cannot paint with {} yet", entry.id))?;
    }
    Ok(())
}

/// The model and those that it needs and that are not there, itself first.
fn entries<'a>(model: &str, registry: &'a Registry, weights: &Path) -> Result<Vec<&'a ModelEntry>, Failure> {
    let known = ModelId::parse(model).and_then(|id| registry.get(&id));
    let pullable = || registry.models().iter().filter(|entry| entry.source.is_some()).map(|entry| entry.id.as_str());
    let Some(entry) = known else {
        let allowed: Vec<&str> = pullable().collect();
        return Err(Failure::usage(format!("got {model}; allowed: {}", allowed.join(", "))));
    };
    if entry.source.is_none() {
        let why = match (entry.origin, &entry.note) {
            (Origin::Embedded, _) => "it is part of this program".to_owned(),
            (Origin::Remote, _) => "it is an API of its owner's".to_owned(),
            (Origin::Folder, Some(note)) => format!("it is {note}; put a copy into {}", weights.join(model).display()),
            (Origin::Folder, None) => "this version does not know its files".to_owned(),
        };
        return Err(Failure::usage(format!("{model} cannot be pulled: {why}")));
    }
    let is_there = |id: &ModelId| weights.join(id.as_str()).is_dir();
    let mut entries = vec![entry];
    let mut idx = 0;
    while let Some(entry) = entries.get(idx) {
        // A companion of any kind will do; the best one is fetched where there is none.
        let companion = entry.companions.first().filter(|_| !entry.companions.iter().any(is_there));
        for id in entry.base.iter().chain(companion) {
            let needed = registry.get(id).filter(|needed| needed.source.is_some());
            entries.extend(needed.filter(|needed| entries.iter().all(|entry| entry.id != needed.id)));
        }
        idx += 1;
    }
    Ok(entries)
}

fn show(wanted: &Wanted<'_>, places: &[Place]) -> Result<(), Failure> {
    let Wanted { entry, plan } = wanted;
    let source = entry.source.as_ref().expect("only what can be pulled is shown, this is a bug");
    terminal::say(&format!("{}: {} at commit {} ({})", entry.id, plan.repository, plan.commit, plan.revision))?;
    let use_of_it = if source.non_commercial { ", not for commercial use" } else { "" };
    let gate = if entry.gated { "; gated: its owner wants to be asked there first" } else { "" };
    terminal::say(&format!("  licence: {}{use_of_it}: {}{gate}", entry.licence, source.licence_url))?;
    let width = plan.files.iter().map(|file| file.path.len()).max().unwrap_or(0);
    let mut n_missing = 0;
    for (file, place) in plan.files.iter().zip(places) {
        let note = match place {
            Place::Here => "here".to_owned(),
            Place::Cached => "in the shared cache".to_owned(),
            Place::Remote { have: 0 } => String::new(),
            Place::Remote { have } => format!("{} of it are here", DecimalBytes(*have)),
        };
        if let Place::Remote { have } = place {
            n_missing += file.bytes - have;
        }
        let line = format!("  {:<width$}  {:>10}  {note}", file.path, DecimalBytes(file.bytes).to_string());
        terminal::say(line.trim_end())?;
    }
    let (n_files, all) = (plan.files.len(), DecimalBytes(plan.bytes()));
    terminal::say(&format!("  {n_files} files, {all}; {} to fetch", DecimalBytes(n_missing)))
}

/// Once for all licences that somebody has to agree to and has not.
async fn ask(args: &Args, wanted: &[Wanted<'_>], weights: &Path) -> Result<(), Failure> {
    let needs_consent =
        |entry: &ModelEntry| entry.gated || entry.source.as_ref().is_some_and(|source| source.non_commercial);
    let mut licences: Vec<&str> = Vec::new();
    for Wanted { entry, .. } in wanted.iter().filter(|wanted| needs_consent(wanted.entry)) {
        if !licence::is_accepted(weights, &entry.licence).map_err(failed)?
            && !licences.contains(&entry.licence.as_str())
        {
            licences.push(&entry.licence);
        }
    }
    if licences.is_empty() {
        return Ok(());
    }
    let names = licences.join("; ");
    let asked = names.clone();
    // Apart, since a thread that waits at the terminal hears no Ctrl-C.
    let answer = || tokio::task::spawn_blocking(move || is_agreed(&asked));
    if !args.accept_licence && !answer().await.map_err(Failure::because)?? {
        return Err(Failure::because(format!("nothing was fetched, since these were not accepted: {names}")));
    }
    licences.iter().try_for_each(|name| licence::accept(weights, name).map_err(failed))
}

fn is_agreed(names: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let how = "--accept-licence accepts them where there is no terminal to ask at";
        return Err(Failure::usage(format!("these licences have to be accepted: {names}; {how}")));
    }
    terminal::question(&format!("Do you accept: {names}? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::because)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn failed(error: PullError) -> Failure {
    Failure::caused_by(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(model: &str, there: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in there {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let registry = hub::registry::built_in();
        let entries = entries(model, &registry, dir.path()).map_err(|failure| failure.to_string())?;
        Ok(entries.iter().map(|entry| entry.id.to_string()).collect())
    }

    #[test]
    fn what_a_model_needs_comes_with_it() {
        let check = |model: &str, there: &[&str], expect: &[&str]| {
            assert_eq!(pulled(model, there).unwrap(), expect, "{model} {there:?}");
        };
        check("flux-dev", &[], &["flux-dev"]);
        check("flux-redux", &[], &["flux-redux", "flux-dev"]);
        check("flux-depth", &[], &["flux-depth", "depth-anything-v2-large"]);
        check("flux-depth", &["depth-anything-v2-small"], &["flux-depth"]);
    }

    #[test]
    fn what_cannot_be_pulled_says_why() {
        for (model, why) in [
            ("pentimento-nano", "it is part of this program"),
            ("ideogram-remix", "an API of its owner's"),
            ("cartoon", "any SDXL checkpoint"),
            ("flux-pulid", "does not know its files"),
            ("nothing", "got nothing; allowed: flux-dev, flux-schnell"),
        ] {
            let error = pulled(model, &[]).unwrap_err();
            assert!(error.contains(why), "{model}: {error}");
        }
    }
}
