//! Lists the files of the embedded models, so that they travel inside the program: each file once, however many models
//! have it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const EXTENSIONS: [&str; 4] = ["json", "txt", "safetensors", "model"];
/// Folders of models, and for each the model whose components stand in for those that the folder lacks.
const MODELS: [(&str, Option<&str>); 2] =
    [("pentimento-nano", None), ("pentimento-nano-canny", Some("pentimento-nano"))];

fn main() -> io::Result<()> {
    let crate_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder"));
    let models_dir = crate_dir.join("../../models");
    let mut statics: Vec<PathBuf> = Vec::new();
    let mut models = String::new();
    for (model, base) in MODELS {
        let mut files = files_of(&models_dir.join(model))?;
        if let Some(base) = base.filter(|_| !files.is_empty()) {
            add_missing(&mut files, files_of(&models_dir.join(base))?);
        }
        writeln!(models, "    ({model:?}, &[").expect(IN_MEMORY);
        for (path, full) in files {
            let number = statics.iter().position(|known| *known == full).unwrap_or_else(|| {
                statics.push(full);
                statics.len() - 1
            });
            writeln!(models, "        EmbeddedFile {{ path: {path:?}, bytes: FILE_{number} }},").expect(IN_MEMORY);
        }
        writeln!(models, "    ]),").expect(IN_MEMORY);
    }
    let mut list = String::from("{\n");
    for (number, full) in statics.iter().enumerate() {
        writeln!(list, "static FILE_{number}: &[u8] = include_bytes!({:?});", full.to_string_lossy()).expect(IN_MEMORY);
    }
    writeln!(list, "&[\n{models}]\n}}").expect(IN_MEMORY);
    let out_dir = PathBuf::from(env::var("OUT_DIR").expect("cargo names the output folder"));
    fs::write(out_dir.join("embedded.rs"), list)
}

const IN_MEMORY: &str = "writing to memory does not fail";

/// The files of one folder, sorted; none if there is no such folder.
fn files_of(model_dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    println!("cargo::rerun-if-changed={}", model_dir.display());
    let mut files = Vec::new();
    if model_dir.is_dir() {
        collect(model_dir, "", &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// Adds the components, folders of a model folder, of which `files` has nothing.
fn add_missing(files: &mut Vec<(String, PathBuf)>, base: Vec<(String, PathBuf)>) {
    let component = |path: &str| path.split_once('/').map(|(folder, _)| folder.to_owned());
    let own: Vec<String> = files.iter().filter_map(|(path, _)| component(path)).collect();
    files.extend(base.into_iter().filter(|(path, _)| component(path).is_some_and(|folder| !own.contains(&folder))));
    files.sort();
}

/// Paths within the model are spelled with `/` everywhere.
fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files)?;
        } else if path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known)) {
            files.push((format!("{prefix}{name}"), path.canonicalize()?));
        }
    }
    Ok(())
}
