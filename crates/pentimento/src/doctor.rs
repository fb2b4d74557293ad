//! `pentimento doctor`: whether this machine is fit to serve, one line per question. Ends with 1 if something is wrong.

use crate::catalogue::CatalogueArgs;
use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::{memory, processor, terminal};
use hub::registry::Provider;
use ingest::IpRange;
use std::fs;
use std::path::{Path, PathBuf};
use store::sqlite::Contents;

/// What the transformer of FLUX.1-dev takes in int8, with room for the pictures on their way.
const MEMORY_MIB_PARTS: u64 = 15 << 10;
/// What all of its parts take at once: the larger text encoder in bf16 beside the transformer.
const MEMORY_MIB_ROOMY: u64 = 26 << 10;
/// Below this even the embedded model may fail, MiB.
const MEMORY_MIB_MIN: u64 = 1024;
/// Below this a day's results may not fit, MiB.
const DISK_MIB_MIN: u64 = 2048;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// The ranges that the server is to be started with; may be repeated
    #[arg(long, value_name = "CIDR", env = "PENTIMENTO_ALLOW_SOURCE", value_delimiter = ',', value_parser = crate::serve::range)]
    allow_source: Vec<IpRange>,
}

/// One line of the report.
enum Finding {
    Fine(String),
    Warning(String),
    /// A server would not start, or not with all that it is given.
    Wrong(String),
}

use Finding::{Fine, Warning, Wrong};

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.data.dir();
    let findings = [
        cpu(),
        speed(&dir),
        memory(),
        data_folder(&dir),
        database(&dir),
        disk(&dir),
        weights(args),
        providers(args),
        sources(&args.allow_source),
    ];
    let n_wrong = findings.iter().filter(|finding| matches!(finding, Wrong(_))).count();
    for finding in findings {
        let (mark, text) = match finding {
            Fine(text) => ("ok", text),
            Warning(text) => ("warn", text),
            Wrong(text) => ("wrong", text),
        };
        terminal::say(&format!("{mark:<6}{text}"))?;
    }
    match n_wrong {
        0 => Ok(()),
        1 => Err(Failure::because("1 finding is wrong and wants mending")),
        n => Err(Failure::because(format!("{n} findings are wrong and want mending"))),
    }
}

fn cpu() -> Finding {
    let (name, n_threads, features) = (processor::name(), processor::n_threads(), processor::features());
    let list = if features.is_empty() { "no wide vectors".to_owned() } else { features.join(" ") };
    let text = format!("cpu: {name}, {n_threads} threads, {list}");
    if features.is_empty() { Warning(format!("{text}; painting will be slow")) } else { Fine(text) }
}

/// At most, as measured here.
fn speed(dir: &Path) -> Finding {
    Fine(format!("speed: at most {}", processor::described(&processor::peaks(dir))))
}

fn memory() -> Finding {
    let Some((total, available)) = memory_mib() else {
        return Warning("memory: this system does not say how much there is".to_owned());
    };
    let text = format!("memory: {total} MiB, {available} MiB of it free");
    if available < MEMORY_MIB_MIN {
        Warning(format!("{text}; the embedded model wants {MEMORY_MIB_MIN} MiB"))
    } else if total < MEMORY_MIB_PARTS {
        Fine(format!("{text}; enough for the embedded model, not for FLUX.1 [dev]"))
    } else if total < MEMORY_MIB_ROOMY {
        Fine(format!("{text}; enough for FLUX.1 [dev] in int8, read part by part"))
    } else {
        Fine(text)
    }
}

fn memory_mib() -> Option<(u64, u64)> {
    Some((memory::total_bytes()? >> 20, memory::available_bytes()? >> 20))
}

/// Writes and removes a file, where the folder is or would be made.
fn data_folder(dir: &Path) -> Finding {
    let place = existing_part(dir);
    let state = if dir.is_dir() { "is there" } else { "will be made" };
    let probe = place.join(format!(".pentimento-doctor-{}", std::process::id()));
    match fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe)) {
        Ok(()) => Fine(format!("data: {} {state} and can be written", dir.display())),
        Err(error) => Wrong(format!("data: {} cannot be written: {error}; --data names another", place.display())),
    }
}

/// Reads all of it: a damaged page may else be met by the one task that lies on it.
fn database(dir: &Path) -> Finding {
    match store::sqlite::inspect(dir) {
        Ok(None) => Fine("database: none yet".to_owned()),
        Ok(Some(Contents { n_tasks, n_keys })) => Fine(format!("database: sound, {n_tasks} tasks and {n_keys} keys")),
        Err(error) => Wrong(format!("database: {error}; docs/operations.md says how a backup is brought back")),
    }
}

fn disk(dir: &Path) -> Finding {
    let place = existing_part(dir);
    match hub::disk::free_bytes(&place).map(|bytes| bytes >> 20) {
        None => Warning("disk: this system does not say how much is free".to_owned()),
        Some(free) if free < DISK_MIB_MIN => {
            Warning(format!("disk: {free} MiB free at {}; results of a day may not fit", place.display()))
        }
        Some(free) => Fine(format!("disk: {free} MiB free at {}", place.display())),
    }
}

fn weights(args: &Args) -> Finding {
    let offer = match args.catalogue.offer(&args.data) {
        Ok(offer) => offer,
        Err(failure) => return Wrong(format!("weights: {failure}")),
    };
    let models: Vec<String> = offer.shelf.list().map(|(id, _)| id.to_string()).collect();
    let apps = offer.catalogue.apps();
    let engines = offer.engines();
    let unfit = engines.survey();
    if !unfit.is_empty() {
        let each = unfit.iter().map(|(model, why)| format!("{model} cannot be used: {why}"));
        return Wrong(format!("weights: {}", each.collect::<Vec<_>>().join("; ")));
    }
    let n_served = apps.iter().filter(|app| engines.usable(&app.models).is_ok()).count();
    let text = format!("weights: {}; {n_served} of {} apps can be served", models.join(", "), apps.len());
    if n_served == 0 { Warning(text) } else { Fine(format!("{text}; `pentimento models` tells more")) }
}

/// Whose keys are here; never the keys.
fn providers(args: &Args) -> Finding {
    // What is wrong with the options, the line about weights says.
    let Ok(offer) = args.catalogue.offer(&args.data) else {
        return Warning("providers: their keys could not be looked for".to_owned());
    };
    let names = |providers: &[Provider]| providers.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
    let (open, in_the_clear) = (offer.remote.providers(), offer.remote.unencrypted());
    if !in_the_clear.is_empty() {
        return Warning(format!("providers: the key of {} is set, and sent over plain http", names(&in_the_clear)));
    }
    let closed: Vec<Provider> = Provider::ALL.into_iter().filter(|provider| !open.contains(provider)).collect();
    match (open.as_slice(), closed.as_slice()) {
        (open, []) => Fine(format!("providers: the key of {} is set", names(open))),
        (_, closed) => Fine(format!("providers: no key of {}, whose apps are not served", names(closed))),
    }
}

fn sources(allowed: &[IpRange]) -> Finding {
    if allowed.is_empty() {
        return Fine("pictures: fetched from public addresses only".to_owned());
    }
    let ranges: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    Warning(format!("pictures: every key may have them fetched from {} too", ranges.join(", ")))
}

/// The folder, or the nearest one above it that is there.
fn existing_part(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|part| part.is_dir()).map_or(absolute.clone(), Path::to_owned)
}
