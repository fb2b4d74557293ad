//! `pentimento models`: the models and the apps that each serves, what lies here and what to do about the rest.

use crate::catalogue::{CatalogueArgs, Offer};
use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::terminal;
use clap::Subcommand;
use domain::id::ModelId;
use hub::download;
use hub::installed::Installed;
use hub::record::{Damage, Record};
use hub::registry::{ModelEntry, Origin};
use indicatif::DecimalBytes;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    #[command(flatten)]
    data: DataArg,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Read and hash a pulled model's files; the next pull mends what is damaged.
    Verify {
        /// Its id, as the list tells it.
        model: String,
    },
    /// Take away what was pulled of a model.
    Remove {
        /// Its id, as the list tells it.
        model: String,
    },
}

/// Where a model is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Embedded,
    Installed,
    /// Some of it has arrived.
    Incomplete,
    /// It can be pulled.
    Available,
    /// It is to be put there by hand.
    Absent,
    /// Somebody else's API that may be called from here.
    Remote,
    /// One that asks for a key first.
    RemoteWithoutKey,
}

struct Row {
    id: ModelId,
    state: State,
    bytes: u64,
    apps: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let weights = args.catalogue.weights.dir(&args.data);
    match &args.command {
        Some(Command::Verify { model }) => return verify(&weights, &there(model, &weights)?),
        Some(Command::Remove { model }) => return remove(&weights, &there(model, &weights)?),
        None => {}
    }
    let offer = args.catalogue.offer(&args.data)?;
    let rows = rows(&offer, &weights);
    if args.json {
        terminal::say(&format!("{:#}", as_json(&offer, &rows, &weights)))?;
    } else {
        print(&offer, &rows, &weights)?;
    }
    Ok(())
}

/// Those of the registry, and what else lies in the folder.
fn rows(offer: &Offer, weights: &Path) -> Vec<Row> {
    let known = offer.registry.models().iter().map(|model| &model.id);
    let others = offer.shelf.list().map(|(id, _)| id).filter(|id| offer.registry.get(id).is_none());
    let row = |id: &ModelId| {
        let serves = |app: &&domain::catalogue::App| app.models.contains(id);
        let apps = offer.catalogue.apps().iter().filter(serves).map(|app| app.slug.clone()).collect();
        let bytes = match offer.shelf.find(id) {
            Some(Installed::Embedded(files)) => files.iter().map(|file| file.bytes.len() as u64).sum(),
            Some(Installed::Folder(dir)) => bytes_below(dir),
            Some(Installed::File(file)) => fs::metadata(file).map_or(0, |found| found.len()),
            None => 0,
        };
        Row { id: id.clone(), state: state(offer, weights, id), bytes, apps }
    };
    known.chain(others).map(row).collect()
}

fn state(offer: &Offer, weights: &Path, id: &ModelId) -> State {
    let entry = offer.registry.get(id);
    match (offer.shelf.find(id), entry.map(|entry| entry.origin)) {
        (Some(Installed::Embedded(_)), _) => State::Embedded,
        (Some(Installed::Folder(_) | Installed::File(_)), _) => State::Installed,
        (None, Some(Origin::Remote)) if offer.shelf.is_remote(id) => State::Remote,
        (None, Some(Origin::Remote)) => State::RemoteWithoutKey,
        _ if download::has_begun(weights, id) || weights.join(id.as_str()).join(hub::record::RECORD_FILE).exists() => {
            State::Incomplete
        }
        _ if entry.is_some_and(|entry| entry.source.is_some()) => State::Available,
        _ => State::Absent,
    }
}

fn print(offer: &Offer, rows: &[Row], weights: &Path) -> Result<(), Failure> {
    let mut models = vec![["model", "state", "size", "licence", "gated", "apps"].map(str::to_owned)];
    for row in rows {
        let entry = offer.registry.get(&row.id);
        let size = if row.bytes == 0 { String::new() } else { DecimalBytes(row.bytes).to_string() };
        let gated = entry.is_some_and(|entry| entry.gated && entry.source.is_some());
        models.push([
            row.id.to_string(),
            row.state.as_str().to_owned(),
            size,
            entry.map_or_else(String::new, licence),
            if gated { "yes" } else { "" }.to_owned(),
            row.apps.join(", "),
        ]);
    }
    let mut apps = vec![["app", "id", "served by", "state"].map(str::to_owned)];
    let engines = offer.engines();
    let mut advice: Vec<String> = engines.survey().iter().map(|(model, why)| format!("{model}: {why}")).collect();
    for app in offer.catalogue.apps() {
        let found = engines.usable(&app.models);
        let state = match &found {
            Ok(model) => rows.iter().find(|row| row.id == *model).map_or("", |row| row.state.as_str()),
            Err(_) => "not served",
        };
        let model = found.as_ref().map_or_else(|_| String::new(), ToString::to_string);
        apps.push([app.slug.clone(), app.id.to_string(), model, state.to_owned()]);
        advice.extend(found.err().map(|how| format!("{}: {how}", app.slug)));
    }
    let place = format!("weights are looked for in {}", weights.display());
    let blank = String::new;
    let lines = table(&models).into_iter().chain([blank()]).chain(table(&apps)).chain([blank(), place]).chain(advice);
    for line in lines {
        terminal::say(&line)?;
    }
    Ok(())
}

fn licence(entry: &ModelEntry) -> String {
    let is_restricted = entry.source.as_ref().is_some_and(|source| source.non_commercial);
    let restriction = if is_restricted { " (non-commercial)" } else { "" };
    format!("{}{restriction}", entry.licence)
}

fn as_json(offer: &Offer, rows: &[Row], weights: &Path) -> Value {
    let model = |row: &Row| {
        let entry = offer.registry.get(&row.id);
        let source = entry.and_then(|entry| entry.source.as_ref());
        let record = Record::read(&weights.join(row.id.as_str())).ok().flatten();
        json!({
            "id": row.id.as_str(),
            "name": entry.map(|entry| &entry.name),
            "state": row.state.as_str(),
            "bytes": row.bytes,
            "paints": entry.is_none_or(|entry| entry.paints),
            "licence": entry.map(|entry| &entry.licence),
            "licence_url": source.map(|source| &source.licence_url),
            "non_commercial": source.map(|source| source.non_commercial),
            "gated": entry.map(|entry| entry.gated),
            "repository": entry.and_then(|entry| entry.repository.as_ref()),
            "revision": source.map(|source| &source.revision),
            "commit": record.map(|record| record.commit),
            "apps": row.apps,
        })
    };
    let engines = offer.engines();
    let app = |app: &domain::catalogue::App| {
        let found = engines.usable(&app.models);
        json!({
            "slug": app.slug,
            "id": app.id.as_str(),
            "model": found.as_ref().ok().map(ModelId::as_str),
            "how_to_install": found.as_ref().err(),
        })
    };
    json!({
        "weights": weights.display().to_string(),
        "models": rows.iter().map(model).collect::<Vec<_>>(),
        "apps": offer.catalogue.apps().iter().map(app).collect::<Vec<_>>(),
    })
}

fn verify(weights: &Path, model: &ModelId) -> Result<(), Failure> {
    let dir = weights.join(model.as_str());
    let record = Record::read(&dir).map_err(|error| Failure::caused_by(&error))?;
    let Some(mut record) = record else {
        return Err(Failure::because(format!("{} was not pulled; there is nothing to compare it with", dir.display())));
    };
    let mut told = Ok(());
    let n_damaged = record.verify(&dir, |file, damage| {
        let state = match damage {
            None => "ok",
            Some(Damage::Missing) => "missing",
            Some(Damage::Size) => "size",
            Some(Damage::Hash) => "content",
            Some(Damage::Unreadable) => "unreadable",
        };
        if told.is_ok() {
            told = terminal::say(&format!("{state:<11}{}", file.path));
        }
    });
    told?;
    match n_damaged.map_err(|error| Failure::caused_by(&error))? {
        0 => Ok(()),
        n => Err(Failure::because(format!("{n} files of {model} are damaged; `pentimento pull {model}` mends them"))),
    }
}

fn remove(weights: &Path, model: &ModelId) -> Result<(), Failure> {
    let n_bytes = download::remove(weights, model).map_err(|error| Failure::caused_by(&error))?;
    terminal::complain(&format!("{model} is removed, {}", DecimalBytes(n_bytes)));
    Ok(())
}

/// A model of which something lies in the folder of weights.
fn there(model: &str, weights: &Path) -> Result<ModelId, Failure> {
    let id = ModelId::parse(model).ok_or_else(|| Failure::usage(format!("got {model}; allowed: a model's id")))?;
    if weights.join(id.as_str()).exists() || download::has_begun(weights, &id) {
        return Ok(id);
    }
    Err(Failure::because(format!("there is no {id} in {}; `pentimento models` lists what there is", weights.display())))
}

/// Links are followed: a model may be kept elsewhere.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match fs::metadata(entry.path()) {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Installed => "installed",
            Self::Incomplete => "incomplete",
            Self::Available => "available",
            Self::Absent => "absent",
            Self::Remote => "key set",
            Self::RemoteWithoutKey => "no key",
        }
    }
}
