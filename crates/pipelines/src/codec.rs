//! Pictures to latents and back: an autoencoder, and the scale on which a denoiser knows its latents.

use crate::pixels::{to_picture, to_tensor};
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::trace::Trace;
use candle_core::Tensor;
use imaging::Picture;
use models::config;
use models::vae::{self, Autoencoder, LatentDistribution};
use nn::Result;
use nn::files::ModelFiles;
use std::sync::Arc;

/// A folder's autoencoder.
pub(crate) struct Codec {
    vae: Resident<Autoencoder>,
    config: vae::Config,
}

impl Codec {
    pub(crate) fn load(files: &ModelFiles, residency: &Arc<Residency>) -> Result<Self> {
        let config: vae::Config = config::read(files, "vae", "config.json")?;
        let its_config = config.clone();
        let vae = residency
            .component(files, "vae", Role::Autoencoder, move |weights| Autoencoder::new(&its_config, weights))?;
        Ok(Self { vae, config })
    }

    pub(crate) fn component(&self) -> &dyn Component {
        &self.vae
    }

    /// Pixels per latent, on each side.
    pub(crate) fn factor(&self) -> usize {
        self.config.factor()
    }

    /// Channels of a latent.
    pub(crate) fn n_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// The latents of the run's `idx`-th picture, both of its sides multiples of the factor.
    pub(crate) fn encode(&self, idx: usize, picture: &Picture, trace: &mut dyn Trace) -> Result<LatentDistribution> {
        let image = to_tensor(picture)?;
        trace.see(&format!("vae_encode_{idx}.input"), &image);
        // The distribution, and not what a seed draws from it.
        let (mean, logvar) = self.vae.kept(
            "latents",
            |print| print.picture(picture),
            |vae| {
                let LatentDistribution { mean, logvar } = vae.encode(&image)?;
                Ok((mean, logvar))
            },
        )?;
        let distribution = LatentDistribution { mean, logvar };
        trace.see(&format!("vae_encode_{idx}.mean"), &distribution.mean);
        trace.see(&format!("vae_encode_{idx}.logvar"), &distribution.logvar);
        Ok(distribution)
    }

    /// A latent on the denoiser's scale.
    pub(crate) fn scaled(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(((latent - self.shift())? * self.config.scaling_factor)?)
    }

    /// Pictures from latents on the denoiser's scale, one after the other: a batch costs time, not memory.
    ///
    /// # Shapes
    /// - latents: `(1, c, h, w)` each
    pub(crate) fn decode(&self, latents: &[Tensor], trace: &mut dyn Trace) -> Result<Vec<Picture>> {
        let unscaled = |latent: &Tensor| Ok(((latent / self.config.scaling_factor)? + self.shift())?);
        let latents: Vec<Tensor> = latents.iter().map(unscaled).collect::<Result<_>>()?;
        trace.see("vae_decode.input", &Tensor::cat(&latents, 0)?);
        let vae = self.vae.get()?;
        let images: Vec<Tensor> = latents.iter().map(|latent| vae.decode(latent)).collect::<Result<_>>()?;
        trace.see("vae_decode.output", &Tensor::cat(&images, 0)?);
        images.iter().map(to_picture).collect()
    }

    fn shift(&self) -> f64 {
        self.config.shift_factor.unwrap_or(0.0)
    }
}
