//! Latents to pictures.

use super::FluxEngine;
use super::denoise::Latents;
use crate::pixels::to_picture;
use crate::trace::Trace;
use candle_core::Tensor;
use imaging::Picture;
use nn::Result;

impl FluxEngine {
    pub(super) fn decode(&self, latents: &Latents, trace: &mut dyn Trace) -> Result<Vec<Picture>> {
        let shift = self.vae_config.shift_factor.unwrap_or(0.0);
        let unscaled =
            |latent: &Tensor| -> Result<Tensor> { Ok(((latent / self.vae_config.scaling_factor)? + shift)?) };
        let latents: Vec<Tensor> = latents.0.iter().map(unscaled).collect::<Result<_>>()?;
        trace.see("vae_decode.input", &Tensor::cat(&latents, 0)?);
        let images: Vec<Tensor> = latents.iter().map(|latent| self.vae.decode(latent)).collect::<Result<_>>()?;
        trace.see("vae_decode.output", &Tensor::cat(&images, 0)?);
        images.iter().map(to_picture).collect()
    }
}
