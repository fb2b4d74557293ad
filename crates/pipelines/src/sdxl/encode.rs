//! Texts to embeddings.

use super::{Job, Negative, SdxlEngine};
use crate::trace::Trace;
use candle_core::Tensor;
use nn::Result;

/// What each of the two text encoders reads.
#[derive(Clone, Copy)]
pub(super) struct Prompt<'a> {
    first: &'a str,
    second: &'a str,
}

impl<'a> Prompt<'a> {
    /// Without a text of its own, or with an empty one, the second encoder reads what the first does.
    pub(super) fn of(first: &'a str, second: Option<&'a str>) -> Self {
        Self { first, second: second.filter(|text| !text.is_empty()).unwrap_or(first) }
    }
}

/// What the UNet sees of the texts. Under guidance the first of the batch is what to avoid, the second what to paint;
/// without, there is only the latter.
pub(super) struct Texts {
    /// `(b, tokens, hidden + hidden_2)`
    pub(super) txt: Tensor,
    /// `(b, projection_dim)`
    pub(super) pooled: Tensor,
    /// `None`: guidance does not run.
    pub(super) guidance_scale: Option<f64>,
}

/// One prompt.
struct Embeds {
    /// `(1, tokens, hidden + hidden_2)`
    txt: Tensor,
    /// `(1, projection_dim)`
    pooled: Tensor,
}

impl SdxlEngine {
    pub(super) fn encode_texts(&self, job: &Job<'_>, trace: &mut dyn Trace) -> Result<Texts> {
        let positive = self.encode_text(Prompt::of(&job.plan.prompt, job.plan.prompt_2.as_deref()))?;
        see(trace, "", &positive);
        let negative = match job.negative {
            None => return Ok(Texts { txt: positive.txt, pooled: positive.pooled, guidance_scale: None }),
            Some(Negative::Text(prompt)) => self.encode_text(prompt)?,
            Some(Negative::Zeros) => Embeds { txt: positive.txt.zeros_like()?, pooled: positive.pooled.zeros_like()? },
        };
        see(trace, "negative_", &negative);
        Ok(Texts {
            txt: Tensor::cat(&[negative.txt, positive.txt], 0)?,
            pooled: Tensor::cat(&[negative.pooled, positive.pooled], 0)?,
            guidance_scale: Some(job.guidance_scale),
        })
    }

    fn encode_text(&self, prompt: Prompt<'_>) -> Result<Embeds> {
        let tokens = self.tokenizer.encode(prompt.first)?;
        let first = self.text_encoder.kept(
            "clip penultimate",
            |print| print.tokens(&tokens),
            |clip| Ok(clip.forward(&tokens)?.penultimate),
        )?;
        let tokens = self.tokenizer_2.encode(prompt.second)?;
        let (second, pooled) = self.text_encoder_2.kept(
            "clip penultimate and projected",
            |print| print.tokens(&tokens),
            |clip| {
                let output = clip.forward(&tokens)?;
                Ok((output.penultimate, output.pooled))
            },
        )?;
        Ok(Embeds { txt: Tensor::cat(&[&first, &second], 2)?, pooled })
    }
}

fn see(trace: &mut dyn Trace, which: &str, embeds: &Embeds) {
    trace.see(&format!("encode_prompt_0.{which}prompt_embeds"), &embeds.txt);
    trace.see(&format!("encode_prompt_0.{which}pooled_prompt_embeds"), &embeds.pooled);
}
