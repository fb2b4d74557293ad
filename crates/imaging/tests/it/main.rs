//! What Pillow makes of the same files, and what hostile bytes cannot do.

mod canny;
mod color;
mod encode;
mod hostile;
mod resize;

use std::path::{Path, PathBuf};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn read_fixture(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rows_of(path: &str) -> Vec<serde_json::Value> {
    serde_json::from_slice(&read_fixture(path)).unwrap()
}

/// Every file of `fixtures/color`, by name.
fn color_files() -> Vec<(String, Vec<u8>)> {
    let names = rows_of("color/expected.json").into_iter().map(|row| row["file"].as_str().unwrap().to_owned());
    names.map(|name| (name.clone(), read_fixture(&format!("color/{name}")))).collect()
}
