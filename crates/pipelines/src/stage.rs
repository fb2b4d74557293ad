//! One part of a model at a time: what it costs can be measured where all of them do not fit.

use crate::codec::Codec;
use crate::run::clocked;
use crate::trace::Untraced;
use engine::{Engine, EngineError, Plan, Timings, Unobserved};
use imaging::Picture;
use std::slice;

/// A part of a model that can be run without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The text encoders.
    Text,
    /// What takes the noise away, FLUX.1's transformer or SDXL's UNet.
    Transformer,
    /// The autoencoder, there and back.
    Vae,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Text, Self::Transformer, Self::Vae];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Transformer => "transformer",
            Self::Vae => "vae",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// An engine whose parts can be run alone.
pub trait Staged: Engine {
    /// Runs one part as a run of the plan would; zeros and noise stand in for what other parts would have given it. Stages
    /// that did not run are zero.
    fn run_stage(&mut self, plan: &Plan, stage: Stage) -> Result<Timings, EngineError>;
}

/// A picture, both of its sides multiples of the codec's factor, to latents and back.
pub(crate) fn run_codec(codec: &Codec, picture: Option<Picture>, timings: &mut Timings) -> Result<(), EngineError> {
    let picture = picture.ok_or_else(|| EngineError::Refused("image: the autoencoder needs a picture".to_owned()))?;
    let latent = clocked((&mut timings.vae_encode, &mut timings.operations.vae_encode), || {
        codec.scaled(&codec.encode(0, &picture, &mut Untraced)?.mean)
    })?;
    clocked((&mut timings.vae_decode, &mut timings.operations.vae_decode), || {
        codec.decode(slice::from_ref(&latent), &mut Unobserved, &mut Untraced)
    })?;
    Ok(())
}
