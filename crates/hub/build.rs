//! Lists the files of the embedded model, so that they travel inside the program.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const EXTENSIONS: [&str; 4] = ["json", "txt", "safetensors", "model"];

fn main() -> io::Result<()> {
    let crate_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder"));
    let model_dir = crate_dir.join("../../models/pentimento-nano");
    println!("cargo::rerun-if-changed={}", model_dir.display());
    let mut files = Vec::new();
    if model_dir.is_dir() {
        collect(&model_dir, "", &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for (path, full) in files {
        writeln!(list, "    EmbeddedFile {{ path: {path:?}, bytes: include_bytes!({full:?}) }},")
            .expect("writing to memory does not fail");
    }
    list.push(']');
    let out_dir = PathBuf::from(env::var("OUT_DIR").expect("cargo names the output folder"));
    fs::write(out_dir.join("embedded.rs"), list)
}

/// Paths within the model are spelled with `/` everywhere.
fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else if path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known)) {
            files.push((format!("{prefix}{name}"), path.canonicalize()?.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}
