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

/// `tokens.json` has no padding: what follows the recorded tokens must be padding alone.
#[track_caller]
fn check_unpadded(name: &str, encode: impl Fn(&str) -> Vec<u32>) {
    let text = std::fs::read_to_string(goldens().join("tokenizers/tokens.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let prompts: Vec<String> = serde_json::from_value(golden["prompts"].clone()).unwrap();
    let expected: Vec<Vec<u32>> = serde_json::from_value(golden[name]["ids"].clone()).unwrap();
    assert!(prompts.len() > 20 && prompts.len() == expected.len());
    for (prompt, expected) in prompts.iter().zip(expected) {
        let tokens = encode(prompt);
        let (text, padding) = tokens.split_at(expected.len());
        assert_eq!(text, expected, "{prompt:?}");
        assert!(padding.iter().all(|token| Some(token) == padding.first()), "{prompt:?}");
    }
}

#[test]
fn more_awkward_prompts() {
    let tiny = ModelFiles::Folder(goldens().join("models/flux-dev-tiny"));
    let clip_tiny = ClipTokenizer::open(&tiny, "tokenizer").unwrap();
    let clip_full = ClipTokenizer::open(&ModelFiles::Folder(goldens().join("tokenizers")), "clip_full").unwrap();
    let t5 = T5Tokenizer::open(&tiny, "tokenizer_2").unwrap();
    check_unpadded("clip_tiny", |prompt| clip_tiny.encode(prompt).unwrap());
    check_unpadded("clip_full", |prompt| clip_full.encode(prompt).unwrap());
    check_unpadded("t5_tiny", |prompt| t5.encode(prompt, 64).unwrap());
    check_unpadded("t5_tiny_512", |prompt| t5.encode(prompt, 512).unwrap());
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
