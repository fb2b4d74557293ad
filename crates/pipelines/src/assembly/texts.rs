//! The files that loose weights come without: configurations, told from shapes, and vocabularies.

use super::{Family, INDEX, shapes_in, vocabulary};
use models::layout::{Part, Shapes};
use nn::assembly::Assembly;
use nn::checkpoint::Checkpoint;
use nn::files::ModelFiles;
use nn::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Latents per token, on both sides together.
const LATENTS_PER_TOKEN: usize = 4;

/// Adds every text that the folder below has not.
pub(super) fn complete(assembly: Assembly, family: Family) -> Result<Assembly> {
    let mut texts = Texts { files: ModelFiles::Assembled(Arc::new(assembly.clone())), made: BTreeMap::new() };
    for part in family.parts() {
        let shapes = shapes_in(&texts.files, *part)?;
        let config = part.config(&shapes).map_err(|reason| texts.wrong(*part, reason));
        texts.make(&config_path(*part), config)?;
        if let Some(scheduler) = part.scheduler(&shapes) {
            texts.make("scheduler/scheduler_config.json", Ok(scheduler))?;
        }
    }
    match family {
        Family::Flux => {
            texts.make(INDEX, texts.class_of_flux().map(|class| json!({ "_class_name": class })))?;
            texts.clip_vocabulary("tokenizer", Part::ClipL)?;
            texts.t5_vocabulary()?;
        }
        Family::Sdxl => {
            let index = json!({ "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true });
            texts.make(INDEX, Ok(index))?;
            texts.clip_vocabulary("tokenizer", Part::ClipL)?;
            texts.clip_vocabulary("tokenizer_2", Part::ClipG)?;
            // OpenCLIP pads with token 0.
            texts.make("tokenizer_2/tokenizer_config.json", Ok(json!({ "pad_token": "!" })))?;
        }
        Family::Redux => {
            texts.make(INDEX, Ok(json!({ "_class_name": "FluxPriorReduxPipeline" })))?;
            let config = texts.get(&config_path(Part::Siglip))?.unwrap_or_default();
            let config: Value = serde_json::from_str(&config).unwrap_or_default();
            texts.make("feature_extractor/preprocessor_config.json", Ok(preprocessor(&config["image_size"])))?;
        }
    }
    Ok(Assembly { texts: texts.made, ..assembly })
}

fn config_path(part: Part) -> String {
    format!("{}/config.json", part.component())
}

/// Texts in the making.
struct Texts {
    files: ModelFiles,
    made: BTreeMap<String, String>,
}

impl Texts {
    /// A text of the folder's goes before one of ours.
    fn make(&mut self, path: &str, value: Result<Value>) -> Result<()> {
        if self.get(path)?.is_none() {
            self.made.insert(path.to_owned(), value?.to_string());
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Option<String>> {
        match self.made.get(path) {
            Some(text) => Ok(Some(text.clone())),
            None => self.files.optional_text(path),
        }
    }

    fn checkpoint(&self, part: Part) -> Option<&Checkpoint> {
        let ModelFiles::Assembled(assembly) = &self.files else { return None };
        Some(&assembly.pieces.get(part.component())?.first()?.checkpoint)
    }

    fn wrong(&self, part: Part, reason: String) -> Error {
        let folder = || self.files.display(part.component());
        let path = self.checkpoint(part).map_or_else(folder, |file| file.path().to_owned());
        Error::Malformed { path, reason }
    }

    /// A transformer that takes twice the channels that it gives takes a control map beside the latent.
    fn class_of_flux(&self) -> Result<&'static str> {
        let (transformer, vae) = (shapes_in(&self.files, Part::FluxTransformer)?, shapes_in(&self.files, Part::Vae)?);
        let side = |shapes: &Shapes, name: &str, at: usize| {
            shapes.get(name).and_then(|shape| shape.get(at)).copied().unwrap_or_default()
        };
        let (inputs, outputs) = (side(&transformer, "x_embedder.weight", 1), side(&transformer, "proj_out.weight", 0));
        let latent = side(&vae, "decoder.conv_in.weight", 1);
        if outputs != LATENTS_PER_TOKEN * latent {
            let reason = format!("it paints {outputs} channels a token; the autoencoder has {latent} a latent");
            return Err(self.wrong(Part::FluxTransformer, reason));
        }
        match inputs {
            n if n == outputs => Ok("FluxPipeline"),
            n if n == 2 * outputs => Ok("FluxControlPipeline"),
            n => {
                let allowed = format!("{outputs}, or {} with a control map", 2 * outputs);
                let reason = format!("it takes {n} channels a token; allowed: {allowed}");
                Err(self.wrong(Part::FluxTransformer, reason))
            }
        }
    }

    /// CLIP's published vocabulary travels inside the program; an encoder of another one must bring its own.
    fn clip_vocabulary(&mut self, component: &str, part: Part) -> Result<()> {
        let (vocabulary_path, merges_path) = (format!("{component}/vocab.json"), format!("{component}/merges.txt"));
        let definition_path = format!("{component}/tokenizer.json");
        if self.get(&vocabulary_path)?.is_some() || self.get(&definition_path)?.is_some() {
            return Ok(());
        }
        let n_tokens = n_tokens(&shapes_in(&self.files, part)?, "token_embedding.weight");
        if n_tokens != Some(vocabulary::N_CLIP_TOKENS) {
            let reason = format!("no such file, and the vocabulary of {} is not the published one", part.described());
            return Err(Error::Malformed { path: self.files.display(&vocabulary_path), reason });
        }
        self.made.insert(vocabulary_path, vocabulary::clip_vocabulary().to_string());
        self.made.insert(merges_path, vocabulary::CLIP_MERGES.to_owned());
        Ok(())
    }

    /// T5's, from `tokenizer.json` or `spiece.model` in the folder or from the encoder's own GGUF file.
    fn t5_vocabulary(&mut self) -> Result<()> {
        let path = "tokenizer_2/tokenizer.json";
        if self.files.optional_text(path)?.is_some() {
            return Ok(());
        }
        let definition = match self.files.optional_text("tokenizer.json")? {
            Some(text) => Some(text),
            None => self.t5_pieces()?.map(|pieces| pieces.definition().to_string()),
        };
        let absent = || Error::Malformed {
            path: self.files.display("tokenizer.json"),
            reason: "no such file; put there the tokenizer.json or the spiece.model that T5 was published with (of \
                     google/t5-v1_1-xxl, or tokenizer_2 of any FLUX.1 repository)"
                .to_owned(),
        };
        self.made.insert(path.to_owned(), definition.ok_or_else(absent)?);
        Ok(())
    }

    fn t5_pieces(&self) -> Result<Option<vocabulary::Unigrams>> {
        for path in ["spiece.model", "tokenizer_2/spiece.model"] {
            if let Some(bytes) = self.files.bytes(path)? {
                let malformed = |reason| Error::Malformed { path: self.files.display(path), reason };
                return vocabulary::Unigrams::of_sentencepiece(&bytes).map(Some).map_err(malformed);
            }
        }
        let Some(checkpoint) = self.checkpoint(Part::T5) else { return Ok(None) };
        let malformed = |reason| Error::Malformed { path: checkpoint.path().to_owned(), reason };
        vocabulary::Unigrams::of_gguf(checkpoint).map_err(malformed)
    }
}

/// Rows of the token table, whatever comes before its name.
fn n_tokens(shapes: &Shapes, table: &str) -> Option<usize> {
    shapes.iter().find(|(name, _)| name.ends_with(table)).and_then(|(_, shape)| shape.first().copied())
}

/// SigLIP's, as every published model has it.
fn preprocessor(image_size: &Value) -> Value {
    json!({
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": true,
        "do_rescale": true,
        "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1.0 / 255.0,
        "size": { "height": image_size, "width": image_size },
    })
}
