//! Texts to tokens, from the files that a model folder has.
//!
//! Truncation, end marks and padding are done here, the same way for every folder, whatever its files say of them.

use nn::files::ModelFiles;
use nn::{Error, Result};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// CLIP's: lower-cased byte-level BPE; every text is framed and padded to the model's length.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
}

/// T5's: unigrams; a text ends with an end mark and is padded to the length asked for.
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    end: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// Tokens of a text, marks and padding included.
    pub const N_TOKENS: usize = 77;
    const START: &str = "<|startoftext|>";
    const END: &str = "<|endoftext|>";

    /// Reads `vocab.json` with `merges.txt`, or the `tokenizer.json` that newer exporters write instead.
    pub fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let vocabulary_path = format!("{component}/vocab.json");
        let pad = pad_token(files, component)?.unwrap_or_else(|| Self::END.to_owned());
        let tokenizer = match files.optional_text(&vocabulary_path)? {
            None => from_definition(files, component)?,
            Some(vocabulary) => {
                let malformed = |reason: String| Error::Malformed { path: files.display(&vocabulary_path), reason };
                let vocabulary = serde_json::from_str(&vocabulary).map_err(|error| malformed(error.to_string()))?;
                let merges = files.text(&format!("{component}/merges.txt"))?;
                let definition = definition(&vocabulary, &merges, &pad).map_err(malformed)?;
                parse(&definition.to_string()).map_err(malformed)?
            }
        };
        let id = |token: &str| token_id(&tokenizer, token, files, component);
        let (start, end) = (id(Self::START)?, id(Self::END)?);
        let pad = id(&pad)?;
        Ok(Self { tokenizer, start, end, pad })
    }

    /// [`Self::N_TOKENS`] tokens: start, the text, end, padding. What is too long loses its end.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = vec![self.start];
        tokens.extend(ids(&self.tokenizer, text)?.into_iter().take(Self::N_TOKENS - 2));
        tokens.push(self.end);
        tokens.resize(Self::N_TOKENS, self.pad);
        Ok(tokens)
    }
}

impl T5Tokenizer {
    pub fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let tokenizer = from_definition(files, component)?;
        let id = |token: &str| token_id(&tokenizer, token, files, component);
        let (end, pad) = (id("</s>")?, id("<pad>")?);
        Ok(Self { tokenizer, end, pad })
    }

    /// `n_tokens` tokens: the text, end, padding. What is too long loses its end.
    pub fn encode(&self, text: &str, n_tokens: usize) -> Result<Vec<u32>> {
        let mut tokens: Vec<u32> = ids(&self.tokenizer, text)?.into_iter().take(n_tokens.saturating_sub(1)).collect();
        tokens.push(self.end);
        tokens.resize(n_tokens, self.pad);
        Ok(tokens)
    }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    // The error could repeat the text, and a prompt may not be repeated.
    let encoding = tokenizer.encode(text, false).map_err(|_| Error::Shape("a text cannot be tokenized".to_owned()))?;
    Ok(encoding.get_ids().to_vec())
}

/// `tokenizer.json`, the `tokenizers` crate's own file.
fn from_definition(files: &ModelFiles, component: &str) -> Result<Tokenizer> {
    let path = format!("{component}/tokenizer.json");
    let malformed = |reason: String| Error::Malformed { path: files.display(&path), reason };
    let text = files
        .optional_text(&path)?
        .ok_or_else(|| malformed("no such file; saving the tokenizer once with transformers 5 writes it".to_owned()))?;
    parse(&text).map_err(malformed)
}

/// A tokenizer that neither pads nor truncates, whatever its definition says.
fn parse(definition: &str) -> std::result::Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::from_bytes(definition.as_bytes()).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

fn token_id(tokenizer: &Tokenizer, token: &str, files: &ModelFiles, component: &str) -> Result<u32> {
    let absent = || Error::Malformed { path: files.display(component), reason: format!("no token {token}") };
    tokenizer.token_to_id(token).ok_or_else(absent)
}

/// The token that `tokenizer_config.json` pads with, spelled as a string or as an object.
fn pad_token(files: &ModelFiles, component: &str) -> Result<Option<String>> {
    let path = format!("{component}/tokenizer_config.json");
    let Some(text) = files.optional_text(&path)? else { return Ok(None) };
    let config: Value = serde_json::from_str(&text)
        .map_err(|error| Error::Malformed { path: files.display(&path), reason: error.to_string() })?;
    let token = &config["pad_token"];
    Ok(token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned))
}

/// CLIP's tokenizer in the `tokenizers` crate's own terms.
///
/// What texts are padded with is a mark within a text, too: SDXL's second tokenizer pads with `!`, and the reference
/// takes every exclamation mark of a prompt for padding.
fn definition(vocabulary: &Value, merges: &str, pad: &str) -> std::result::Result<Value, String> {
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64).ok_or_else(|| format!("no token {token}"));
    let (start, end) = (id(ClipTokenizer::START)?, id(ClipTokenizer::END)?);
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    let special = |id: u64, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let mut marks = vec![special(start, ClipTokenizer::START), special(end, ClipTokenizer::END)];
    if ![ClipTokenizer::START, ClipTokenizer::END].contains(&pad) {
        marks.push(special(id(pad)?, pad));
    }
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Ok(json!({
        "version": "1.0",
        "added_tokens": marks,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ]},
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": words }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ]},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": ClipTokenizer::END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}
