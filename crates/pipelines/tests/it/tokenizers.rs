//! Awkward prompts, token by token.

use crate::golden::goldens;
use nn::files::ModelFiles;
use pipelines::tokenizer::{ClipTokenizer, T5Tokenizer};
use serde_json::Value;

fn recorded(name: &str) -> (Vec<String>, Vec<Vec<u32>>, usize) {
    let text = std::fs::read_to_string(goldens().join("tokenizers/tokenizer_golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let prompts = serde_json::from_value(golden["prompts"].clone()).unwrap();
    let ids = serde_json::from_value(golden[name]["ids"].clone()).unwrap();
    (prompts, ids, golden[name]["max_length"].as_u64().unwrap() as usize)
}

fn clip(folder: &str, name: &str) {
    let (prompts, expected, _) = recorded(name);
    let tokenizer = ClipTokenizer::open(&ModelFiles::Folder(goldens().join(folder)), name_of(folder)).unwrap();
    assert!(prompts.len() > 10);
    for (prompt, expected) in prompts.iter().zip(expected) {
        assert_eq!(tokenizer.encode(prompt).unwrap(), expected, "{prompt:?}");
    }
}

fn name_of(folder: &str) -> &'static str {
    if folder == "tokenizers" { "clip_full" } else { "tokenizer" }
}

#[test]
fn clip_with_its_full_vocabulary() {
    clip("tokenizers", "clip_full");
}

#[test]
fn clip_with_a_small_vocabulary() {
    clip("models/flux-dev-tiny", "clip_tiny");
}

#[test]
fn t5() {
    let (prompts, expected, max_length) = recorded("t5_tiny");
    let files = ModelFiles::Folder(goldens().join("models/flux-dev-tiny"));
    let tokenizer = T5Tokenizer::open(&files, "tokenizer_2").unwrap();
    for (prompt, expected) in prompts.iter().zip(expected) {
        assert_eq!(tokenizer.encode(prompt, max_length).unwrap(), expected, "{prompt:?}");
    }
}

#[test]
fn clip_from_the_file_that_newer_exporters_write() {
    let folder = goldens().join("models/flux-dev-tiny");
    let older = ClipTokenizer::open(&ModelFiles::Folder(folder), "tokenizer").unwrap();
    let newer = ClipTokenizer::open(&ModelFiles::Folder(goldens().join("tokenizers")), "clip_tiny_v5").unwrap();
    let (prompts, _, _) = recorded("clip_tiny");
    for prompt in prompts {
        assert_eq!(newer.encode(&prompt).unwrap(), older.encode(&prompt).unwrap(), "{prompt:?}");
    }
}
