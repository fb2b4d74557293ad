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

    pub fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let vocabulary_path = format!("{component}/vocab.json");
        let malformed = |path: &str, reason: String| Error::Malformed { path: files.display(path), reason };
        let vocabulary: Value = serde_json::from_str(&files.text(&vocabulary_path)?)
            .map_err(|error| malformed(&vocabulary_path, error.to_string()))?;
        let merges = files.text(&format!("{component}/merges.txt"))?;
        let id = |token: &str| {
            let id = vocabulary.get(token).and_then(Value::as_u64);
            id.map(|id| id as u32).ok_or_else(|| malformed(&vocabulary_path, format!("no token {token}")))
        };
        let (start, end) = (id(Self::START)?, id(Self::END)?);
        let pad = id(&pad_token(files, component)?.unwrap_or_else(|| Self::END.to_owned()))?;
        let definition = definition(&vocabulary, &merges, start, end);
        let tokenizer = Tokenizer::from_bytes(definition.to_string().as_bytes())
            .map_err(|error| malformed(&vocabulary_path, error.to_string()))?;
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
        let path = format!("{component}/tokenizer.json");
        let malformed = |reason: String| Error::Malformed { path: files.display(&path), reason };
        let text = files.optional_text(&path)?.ok_or_else(|| {
            malformed(
                "no such file; a folder with spiece.model alone needs it written by transformers' T5TokenizerFast"
                    .into(),
            )
        })?;
        let mut tokenizer = Tokenizer::from_bytes(text.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        let id = |token: &str| tokenizer.token_to_id(token).ok_or_else(|| malformed(format!("no token {token}")));
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
fn definition(vocabulary: &Value, merges: &str, start: u32, end: u32) -> Value {
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    json!({
        "version": "1.0",
        "added_tokens": [special(start, ClipTokenizer::START), special(end, ClipTokenizer::END)],
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
    })
}
