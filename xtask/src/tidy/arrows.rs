//! The arrows of ARCHITECTURE.md: which crate may depend on which, and who alone may name what from outside.
//!
//! Dev-dependencies are exempt: a test may put a crate together with whatever shows it at work.

use super::Finding;
use super::manifest::{Dependency, Kind, crate_of, dependencies};
use super::tree::File;

/// Where people read the arrows.
const MAP: &str = "ARCHITECTURE.md";

/// Every crate and the crates of ours that it may use, from the ground up. An arrow never points upwards.
const ARROWS: [(&str, &[&str]); 18] = [
    ("domain", &[]),
    ("kernels", &[]),
    ("nn", &["kernels"]),
    ("samplers", &["domain"]),
    ("imaging", &["domain"]),
    ("transport", &["domain"]),
    ("models", &["nn"]),
    ("engine", &["domain", "imaging"]),
    ("store", &["domain"]),
    ("ingest", &["domain", "imaging", "transport"]),
    ("hub", &["domain", "transport"]),
    ("pipelines", &["domain", "imaging", "engine", "hub", "models", "samplers", "nn"]),
    ("providers", &["domain", "imaging", "engine", "ingest", "transport"]),
    ("app", &["domain", "imaging", "store", "ingest", "hub"]),
    ("worker", &["domain", "imaging", "engine", "store", "hub"]),
    ("api", &["domain", "app"]),
    (
        "pentimento",
        &[
            "domain",
            "imaging",
            "engine",
            "store",
            "ingest",
            "hub",
            "nn",
            "pipelines",
            "providers",
            "app",
            "worker",
            "api",
        ],
    ),
    // What tests share; only dev-dependencies may name it.
    ("testkit", &["domain", "imaging", "engine", "store"]),
];

/// What only some crates may name: HTTP serving, SQL and files, tensors, the terminal.
const OWNED: [(&str, &[&str]); 15] = [
    ("axum", &["api"]),
    ("tower-http", &["api"]),
    ("utoipa", &["api"]),
    ("rusqlite", &["store"]),
    ("object_store", &["store"]),
    ("candle-core", &["nn", "models", "pipelines"]),
    ("safetensors", &["nn"]),
    ("memmap2", &["kernels"]),
    ("tokenizers", &["pipelines"]),
    ("image", &["imaging"]),
    ("fast_image_resize", &["imaging"]),
    ("moxcms", &["imaging"]),
    ("clap", &["pentimento"]),
    ("indicatif", &["pentimento"]),
    ("tracing-subscriber", &["pentimento"]),
];

/// Crates whose outside dependencies are all named here.
const PLAIN: [(&str, &[&str]); 4] = [
    ("domain", &["thiserror"]),
    ("engine", &["thiserror"]),
    ("samplers", &["thiserror", "half"]),
    ("kernels", &["gemm", "memmap2", "rayon", "half"]),
];

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files {
        let Some(name) = crate_of(&file.path) else { continue };
        for dependency in dependencies(&file.text).iter().filter(|dependency| dependency.kind != Kind::Dev) {
            if let Some(message) = refusal(name, dependency) {
                findings.push(Finding::new(&file.path, dependency.line, message));
            }
        }
        if row(&ARROWS, name).is_none() {
            findings.push(Finding::new(&file.path, 0, "the crate has no row among the arrows of tidy"));
        }
    }
    if let Some(map) = files.iter().find(|file| file.path == MAP) {
        findings.extend(map_refusals(&map.text).into_iter().map(|message| Finding::new(MAP, 0, message)));
    }
}

/// Where the table of the map tells other arrows than ours.
fn map_refusals(map: &str) -> Vec<String> {
    let mut refusals = Vec::new();
    for (name, allowed) in ARROWS {
        let begin = format!("| `crates/{name}` |");
        let Some(line) = map.lines().find(|line| line.starts_with(&begin)) else {
            refusals.push(format!("the map has no row `crates/{name}`"));
            continue;
        };
        let told = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let mut told: Vec<&str> = told.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut allowed = allowed.to_vec();
        told.sort_unstable();
        allowed.sort_unstable();
        if told != allowed {
            refusals.push(format!("the map lets `{name}` use {}; tidy: {}", told.join(", "), allowed.join(", ")));
        }
    }
    refusals
}

/// Why this crate may not depend on that one.
fn refusal(name: &str, dependency: &Dependency<'_>) -> Option<String> {
    let needs = dependency.name;
    if row(&ARROWS, needs).is_some() {
        let allowed = row(&ARROWS, name)?;
        let message = || format!("no arrow leads from `{name}` to `{needs}`; allowed: {}", allowed.join(", "));
        return (!allowed.contains(&needs)).then(message);
    }
    if let Some(owners) = row(&OWNED, needs) {
        let message = || format!("only {} may name `{needs}`", owners.join(", "));
        return (!owners.contains(&name)).then(message);
    }
    let plain = row(&PLAIN, name)?;
    (!plain.contains(&needs)).then(|| format!("`{name}` stays plain; from outside it may use {}", plain.join(", ")))
}

fn row<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::super::bad::refused;
    use super::*;

    fn found(name: &str, tables: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&[File::new(&format!("crates/{name}/Cargo.toml"), tables)], &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_table_itself_points_down() {
        for (idx, (name, allowed)) in ARROWS.iter().enumerate() {
            for needs in *allowed {
                let place = ARROWS.iter().position(|(other, _)| other == needs);
                assert!(place.is_some_and(|place| place < idx), "{name} -> {needs}");
            }
        }
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_refused() {
        refused(&found("domain", "[dependencies]\napi.workspace = true\n"), "crates/domain/Cargo.toml:2:", "no arrow");
        refused(&found("api", "[dependencies]\nstore.workspace = true\n"), "crates/api/Cargo.toml:2:", "no arrow");
        refused(&found("app", "[dependencies]\ntestkit.workspace = true\n"), "crates/app/Cargo.toml:2:", "no arrow");
        assert!(found("api", "[dependencies]\napp.workspace = true\n").is_empty());
        assert!(found("api", "[dev-dependencies]\nstore.workspace = true\n").is_empty());
    }

    #[test]
    fn a_map_that_tells_other_arrows_is_refused() {
        let row = |(name, allowed): &(&str, &[&str])| format!("| `crates/{name}` | words | {} |\n", allowed.join(", "));
        let map: String = ARROWS.iter().map(row).collect();
        assert_eq!(map_refusals(&map), [""; 0]);
        refused(&map_refusals(&map.replace("| kernels |", "| domain |")), "the map lets `nn` use domain", "kernels");
        refused(&map_refusals(&map.replace("`crates/api`", "api")), "the map has no row", "`crates/api`");
    }

    #[test]
    fn what_one_crate_owns_is_refused_elsewhere() {
        for (needs, owners) in OWNED {
            let tables = format!("[dependencies]\n{needs}.workspace = true\n");
            refused(&found("app", &tables), "crates/app/Cargo.toml:2:", needs);
            assert!(found(owners[0], &tables).is_empty(), "{needs}");
        }
    }

    #[test]
    fn plain_crates_stay_plain() {
        refused(&found("domain", "[dependencies]\nserde.workspace = true\n"), "crates/domain/Cargo.toml:2:", "plain");
        refused(&found("engine", "[dependencies]\ntokio.workspace = true\n"), "crates/engine/Cargo.toml:2:", "plain");
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        refused(&found("stranger", "[package]\n"), "crates/stranger/Cargo.toml:", "no row");
    }
}
