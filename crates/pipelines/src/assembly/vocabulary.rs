//! Vocabularies for weights that come without one: CLIP's published one, and T5's in the forms that hold its pieces.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nn::checkpoint::{Checkpoint, Value as Field};
use serde_json::{Map, Value, json};

/// The merges of CLIP's published vocabulary (MIT licence, OpenAI), from which its tokens follow.
pub(super) const CLIP_MERGES: &str = include_str!("../../../../parity/goldens/tokenizers/clip_full/merges.txt");
/// Bytes, bytes that end a word, merges, and two marks.
pub(super) const N_CLIP_TOKENS: usize = 49408;
/// Marks that T5 has beyond its pieces.
const N_EXTRA_IDS: usize = 100;

/// `vocab.json`: every token and its number.
pub(super) fn clip_vocabulary() -> Value {
    let bytes: Vec<String> = byte_letters().into_iter().map(String::from).collect();
    let ends = bytes.iter().map(|letter| format!("{letter}</w>"));
    let merges = CLIP_MERGES.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merged = merges.map(|line| line.replace(' ', ""));
    let marks = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let tokens = bytes.iter().cloned().chain(ends).chain(merged).chain(marks);
    Value::Object(tokens.zip(0u32..).map(|(token, id)| (token, id.into())).collect::<Map<_, _>>())
}

/// The letter that stands for each byte, in the order of their tokens: printable ones for themselves, then the rest
/// for letters beyond them (GPT-2's `bytes_to_unicode`).
fn byte_letters() -> Vec<char> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (printable, rest): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(is_printable);
    let others = (0..rest.len() as u32).filter_map(|idx| char::from_u32(256 + idx));
    printable.into_iter().map(char::from).chain(others).collect()
}

/// The pieces of a unigram vocabulary (Kudo, arXiv:1804.10959), as SentencePiece trains them.
pub(super) struct Unigrams {
    pieces: Vec<Piece>,
    /// How texts are normalized, compiled by SentencePiece.
    charsmap: Vec<u8>,
}

struct Piece {
    text: String,
    score: f64,
    kind: Kind,
}

/// SentencePiece's types of pieces, of which three matter here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    /// Marks that no text is split into.
    Mark,
}

impl Kind {
    fn of(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 | 4 => Self::Mark,
            _ => Self::Normal,
        }
    }
}

impl Unigrams {
    /// From the header of a GGUF file; `None` if it has no vocabulary.
    pub(super) fn of_gguf(checkpoint: &Checkpoint) -> Result<Option<Self>, String> {
        let list = |name: &str| match checkpoint.field(&format!("tokenizer.ggml.{name}")) {
            Some(Field::List(values)) => values.as_slice(),
            _ => &[],
        };
        let (tokens, scores, kinds) = (list("tokens"), list("scores"), list("token_type"));
        if tokens.is_empty() {
            return Ok(None);
        }
        if scores.len() != tokens.len() || kinds.len() != tokens.len() {
            return Err("its vocabulary has not a score and a kind for each token".to_owned());
        }
        let piece = |((token, score), kind): ((&Field, &Field), &Field)| match (token, score, kind) {
            (Field::Text(text), Field::Float(score), Field::Integer(kind)) => {
                Ok(Piece { text: text.clone(), score: *score, kind: Kind::of(*kind) })
            }
            _ => Err("its vocabulary is not of texts, scores and kinds".to_owned()),
        };
        let pieces = tokens.iter().zip(scores).zip(kinds).map(piece).collect::<Result<_, _>>()?;
        // Some writers have it as signed bytes.
        let byte = |value: &Field| if let Field::Integer(byte) = value { *byte as u8 } else { 0 };
        Ok(Some(Self { pieces, charsmap: list("precompiled_charsmap").iter().map(byte).collect() }))
    }

    /// From SentencePiece's own file, `spiece.model` (`sentencepiece_model.proto`).
    pub(super) fn of_sentencepiece(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self { pieces: Vec::new(), charsmap: Vec::new() };
        for field in Message(bytes) {
            match field? {
                (1, Wire::Bytes(piece)) => model.pieces.push(Piece::of_sentencepiece(piece)?),
                (3, Wire::Bytes(normalizer)) => {
                    for field in Message(normalizer) {
                        if let (2, Wire::Bytes(charsmap)) = field? {
                            model.charsmap = charsmap.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("no pieces; is it a SentencePiece model?".to_owned());
        }
        let extra = |idx| Piece { text: format!("<extra_id_{idx}>"), score: 0.0, kind: Kind::Mark };
        model.pieces.extend((0..N_EXTRA_IDS).rev().map(extra));
        Ok(model)
    }

    /// `tokenizer.json`, as the `tokenizers` crate reads it.
    pub(super) fn definition(&self) -> Value {
        let vocabulary: Vec<Value> = self.pieces.iter().map(|piece| json!([piece.text, piece.score])).collect();
        let marks = self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind != Kind::Normal);
        let added: Vec<Value> = marks
            .map(|(id, piece)| {
                json!({
                    "id": id, "content": piece.text, "special": true,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let charsmap = STANDARD.encode(&self.charsmap);
        let normalizer = json!({ "type": "Precompiled", "precompiled_charsmap": charsmap });
        json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": if self.charsmap.is_empty() { Value::Null } else { normalizer },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "WhitespaceSplit" },
                { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            ]},
            "post_processor": null,
            "decoder": null,
            "model": {
                "type": "Unigram", "byte_fallback": false, "vocab": vocabulary,
                "unk_id": self.pieces.iter().position(|piece| piece.kind == Kind::Unknown),
            },
        })
    }
}

impl Piece {
    fn of_sentencepiece(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: Kind::Normal };
        for field in Message(bytes) {
            match field? {
                (1, Wire::Bytes(text)) => piece.text = String::from_utf8_lossy(text).into_owned(),
                (2, Wire::Word(bits)) => piece.score = f32::from_bits(bits).into(),
                (3, Wire::Number(kind)) => piece.kind = Kind::of(kind as i64),
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// The fields of a protobuf message, as they come.
struct Message<'a>(&'a [u8]);

enum Wire<'a> {
    Number(u64),
    Word(u32),
    /// Eight bytes, which nothing here has.
    Double,
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for idx in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << (7 * idx);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.number()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => self.take(8).map(|_| Wire::Double)?,
            2 => {
                let length = self.number()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Word(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| "it ends within a field; is it a SentencePiece model?".to_owned());
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Tokenizer;

    const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../parity/goldens");

    fn read(path: &str) -> Vec<u8> {
        std::fs::read(format!("{GOLDENS}/{path}")).unwrap()
    }

    #[test]
    fn clips_tokens_follow_from_its_merges() {
        let published: Value = serde_json::from_slice(&read("tokenizers/clip_full/vocab.json")).unwrap();
        let ours = clip_vocabulary();
        assert_eq!(ours.as_object().unwrap().len(), N_CLIP_TOKENS);
        assert!(ours == published);
    }

    #[test]
    fn the_pieces_of_sentencepiece_make_the_published_tokenizer() {
        let folder = "models/flux-dev-tiny/tokenizer_2";
        let pieces = Unigrams::of_sentencepiece(&read(&format!("{folder}/spiece.model"))).unwrap();
        let ours = Tokenizer::from_bytes(pieces.definition().to_string()).unwrap();
        let published = Tokenizer::from_bytes(read(&format!("{folder}/tokenizer.json"))).unwrap();
        let long = "a  watercolour\tof ½ café — <extra_id_0> naïve 日本 ﬁn\n  ";
        for text in ["", "a photo of a cat", long, "</s>x<pad>", "<unk> <extra_id_99>"] {
            let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            assert_eq!(ids(&ours), ids(&published), "{text}");
        }
    }

    #[test]
    fn a_broken_sentencepiece_model_is_an_error_not_a_panic() {
        let whole = read("models/flux-dev-tiny/tokenizer_2/spiece.model");
        for n in (0..2000).chain([whole.len() - 1]) {
            let _ = Unigrams::of_sentencepiece(&whole[..n]);
        }
        assert!(
            Unigrams::of_sentencepiece(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err()
        );
        assert!(Unigrams::of_sentencepiece(&[0xff; 11]).is_err());
        assert!(Unigrams::of_sentencepiece(b"").is_err());
    }
}
