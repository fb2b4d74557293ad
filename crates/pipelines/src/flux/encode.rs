//! Texts to embeddings.

use super::{FluxEngine, Guide, Job};
use crate::trace::Trace;
use candle_core::Tensor;
use nn::Result;
use nn::values;

/// What each of the two text encoders reads.
#[derive(Clone, Copy)]
pub(super) struct Prompt<'a> {
    pub(super) clip: &'a str,
    pub(super) t5: &'a str,
}

/// One prompt, as the transformer sees it.
pub(super) struct Embeds {
    /// `(1, tokens, d_model)`: T5's, and after them Redux's.
    pub(super) txt: Tensor,
    /// `(1, hidden)`: CLIP's.
    pub(super) pooled: Tensor,
}

pub(super) struct Texts {
    pub(super) positive: Embeds,
    /// With true guidance only.
    pub(super) negative: Option<Embeds>,
    pub(super) guidance_scale: f64,
    pub(super) true_cfg_scale: f64,
}

impl FluxEngine {
    pub(super) fn encode_texts(&self, job: &Job<'_>, trace: &mut dyn Trace) -> Result<Texts> {
        let prompt = Prompt { clip: &job.plan.prompt, t5: job.plan.prompt_2.as_deref().unwrap_or(&job.plan.prompt) };
        let n_tokens = job.max_sequence_length as usize;
        let says_nothing = prompt.clip.is_empty() && prompt.t5.is_empty();
        let mut positive = match job.guide {
            Guide::Tokens { .. } if says_nothing => self.no_text(n_tokens)?,
            _ => self.encode_text(prompt, n_tokens)?,
        };
        let negative = job.negative.map(|negative| self.encode_text(negative, n_tokens)).transpose()?;
        // What is avoided is a text alone, as in the reference implementation.
        if let Guide::Tokens { redux, reference, weight } = job.guide {
            let tokens = (redux.tokens(reference, trace)? * weight)?;
            positive.txt = Tensor::cat(&[&positive.txt, &tokens], 1)?;
        }
        see(trace, 0, &positive)?;
        if let Some(negative) = &negative {
            see(trace, 1, negative)?;
        }
        Ok(Texts { positive, negative, guidance_scale: job.guidance_scale, true_cfg_scale: job.true_cfg_scale })
    }

    /// What Redux is given in the place of a text, as the reference implementation does without text encoders.
    pub(super) fn no_text(&self, n_tokens: usize) -> Result<Embeds> {
        let config = &self.flux_config;
        let zeros = |shape: &[usize]| values::tensor(vec![0.0; shape.iter().product()], shape);
        let txt = zeros(&[1, n_tokens, config.joint_attention_dim])?;
        Ok(Embeds { txt, pooled: zeros(&[1, config.pooled_projection_dim])? })
    }

    fn encode_text(&self, prompt: Prompt<'_>, n_tokens: usize) -> Result<Embeds> {
        let tokens = self.clip_tokenizer.encode(prompt.clip)?;
        let pooled =
            self.clip.kept("clip pooled", |print| print.tokens(&tokens), |clip| Ok(clip.forward(&tokens)?.pooled))?;
        let tokens = self.t5_tokenizer.encode(prompt.t5, n_tokens)?;
        let txt = self.t5.kept("t5 sequence", |print| print.tokens(&tokens), |t5| t5.forward(&tokens))?;
        Ok(Embeds { txt, pooled })
    }
}

fn see(trace: &mut dyn Trace, idx: usize, embeds: &Embeds) -> Result<()> {
    trace.see(&format!("encode_prompt_{idx}.prompt_embeds"), &embeds.txt);
    trace.see(&format!("encode_prompt_{idx}.pooled_prompt_embeds"), &embeds.pooled);
    let n_tokens = embeds.txt.dim(1)?;
    trace.see(&format!("encode_prompt_{idx}.text_ids"), &values::tensor(vec![0.0; 3 * n_tokens], (n_tokens, 3))?);
    Ok(())
}
