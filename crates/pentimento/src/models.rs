//! `pentimento models`: the apps, the weights that serve each, and what to do where there are none.

use crate::catalogue::CatalogueArgs;
use crate::failure::Failure;
use crate::terminal;
use app::availability::Availability;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    catalogue: CatalogueArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let offer = args.catalogue.offer()?;
    let mut rows = vec![["app", "id", "weights", "state", "licence"].map(str::to_owned)];
    let mut advice = Vec::new();
    for app in offer.catalogue.apps() {
        let found = offer.model_for(app);
        let model = found.as_ref().ok().or(app.models.first());
        let licence = model.and_then(|id| offer.registry.get(id)).map_or("", |model| model.licence.as_str());
        let is_remote = model.and_then(|id| offer.registry.get(id)).is_some_and(|entry| entry.provider.is_some());
        let state = match (&found, model.and_then(|id| offer.shelf.find(id))) {
            (Ok(_), _) if is_remote => "key set",
            (Err(_), _) if is_remote => "no key",
            (Ok(_), Some(hub::installed::Installed::Embedded(_))) => "embedded",
            (Ok(_), _) => "installed",
            (Err(_), Some(_)) => "not usable yet",
            (Err(_), None) => "absent",
        };
        let model = model.map_or_else(String::new, ToString::to_string);
        rows.push([app.slug.clone(), app.id.to_string(), model, state.to_owned(), licence.to_owned()]);
        if let Err(how) = found {
            advice.push(format!("{}: {how}", app.slug));
        }
    }
    for row in table(&rows) {
        terminal::say(&row);
    }
    if !advice.is_empty() {
        terminal::say("");
        for line in &advice {
            terminal::say(line);
        }
    }
    Ok(())
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
