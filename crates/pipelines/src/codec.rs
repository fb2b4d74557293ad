//! Pictures to latents and back: an autoencoder, and the scale on which a denoiser knows its latents.

use crate::pixels::{to_picture, to_tensor};
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::run::Ended;
use crate::trace::Trace;
use candle_core::Tensor;
use engine::Observer;
use imaging::Picture;
use models::config;
use models::tiles::Tiles;
use models::vae::{self, Autoencoder, LatentDistribution};
use nn::Result;
use nn::files::ModelFiles;
use std::sync::Arc;

/// A folder's autoencoder.
pub(crate) struct Codec {
    vae: Resident<Autoencoder>,
    config: vae::Config,
    /// Of a larger picture, tiles are coded.
    pixels_at_once: usize,
}

impl Codec {
    pub(crate) fn load(files: &ModelFiles, residency: &Arc<Residency>) -> Result<Self> {
        let config: vae::Config = config::read(files, "vae", "config.json")?;
        let its_config = config.clone();
        let vae = residency
            .component(files, "vae", Role::Autoencoder, move |weights| Autoencoder::new(&its_config, weights))?;
        Ok(Self { vae, config, pixels_at_once: residency.pixels_at_once() })
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
        let (height, width) = (image.dim(2)? / self.factor(), image.dim(3)? / self.factor());
        // The distribution, and not what a seed draws from it.
        let (mean, logvar) = self.vae.kept(
            "latents",
            |print| print.picture(picture),
            |vae| {
                let LatentDistribution { mean, logvar } = vae.encode(&image, self.tiles(height, width).as_ref())?;
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
    pub(crate) fn decode(
        &self,
        latents: &[Tensor],
        observer: &mut dyn Observer,
        trace: &mut dyn Trace,
    ) -> std::result::Result<Vec<Picture>, Ended> {
        let unscaled = |latent: &Tensor| Ok(((latent / self.config.scaling_factor)? + self.shift())?);
        let latents: Vec<Tensor> = latents.iter().map(unscaled).collect::<Result<_>>()?;
        trace.see("vae_decode.input", &Tensor::cat(&latents, 0)?);
        let vae = self.vae.get()?;
        let mut images = Vec::with_capacity(latents.len());
        for latent in &latents {
            Ended::unless_wanted(observer)?;
            images.push(vae.decode(latent, self.tiles(latent.dim(2)?, latent.dim(3)?).as_ref())?);
        }
        trace.see("vae_decode.output", &Tensor::cat(&images, 0)?);
        Ok(images.iter().map(to_picture).collect::<Result<_>>()?)
    }

    /// Of a picture of so many latents.
    fn tiles(&self, height: usize, width: usize) -> Option<Tiles> {
        Tiles::of(height, width, self.pixels_at_once / (self.factor() * self.factor()))
    }

    fn shift(&self) -> f64 {
        self.config.shift_factor.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;
    use crate::trace::Untraced;
    use domain::quantity::Size;
    use engine::Unobserved;
    use std::fs;
    use std::path::Path;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    /// A photograph, both of its sides multiples of eight.
    fn photograph() -> Picture {
        let picture = imaging::decode::decode(&fs::read(root().join("examples/photo.jpg")).unwrap()).unwrap();
        let (size, width) = (Size::new(448, 296), picture.size().width as usize);
        let rows = picture.pixels().chunks(3 * width).take(size.height as usize);
        Picture::new(size, rows.flat_map(|row| row[..3 * size.width as usize].to_vec()).collect()).unwrap()
    }

    /// There and back.
    fn coded(picture: &Picture, precision: Precision, pixels_at_once: usize) -> Picture {
        let files = ModelFiles::Folder(root().join("models/pentimento-nano"));
        let residency = Residency::unlimited(precision).with_pixels_at_once(pixels_at_once);
        let codec = Codec::load(&files, &residency).unwrap();
        let latent = codec.encode(0, picture, &mut Untraced).unwrap().mean;
        let latents = [codec.scaled(&latent).unwrap()];
        codec.decode(&latents, &mut Unobserved, &mut Untraced).ok().unwrap().remove(0)
    }

    /// What tiles change, in levels of 8 bits.
    fn changed_by_tiles(picture: &Picture, n_tiles: usize) -> Vec<f64> {
        let n_pixels = picture.pixels().len() / 3;
        let coded = |pixels_at_once| coded(picture, Precision::F32, pixels_at_once);
        changed(&coded(n_pixels), &coded(n_pixels / n_tiles))
    }

    fn changed(a: &Picture, b: &Picture) -> Vec<f64> {
        a.pixels().iter().zip(b.pixels()).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
    }

    #[track_caller]
    fn assert_kept(changed: &[f64], decibels: f64) {
        let mean_square = changed.iter().map(|x| x * x).sum::<f64>() / changed.len() as f64;
        let psnr = 10.0 * (255.0f64.powi(2) / mean_square).log10();
        assert!(mean_square > 0.0 && psnr > decibels, "{psnr} dB");
    }

    #[test]
    fn a_photograph_coded_in_bf16_is_the_one_coded_exactly() {
        let photograph = photograph();
        let coded = |precision| coded(&photograph, precision, usize::MAX);
        assert_kept(&changed(&coded(Precision::F32), &coded(Precision::Bf16)), 45.0);
    }

    #[test]
    fn a_photograph_coded_in_tiles_is_the_one_coded_whole() {
        for n_tiles in [2, 4] {
            assert_kept(&changed_by_tiles(&photograph(), n_tiles), 45.0);
        }
    }

    #[test]
    fn a_clear_sky_coded_in_tiles_has_no_seam() {
        let size = Size::new(768, 512);
        let level = |idx: usize| {
            let (x, y) = ((idx % 768) as f64 / 768.0, (idx / 768) as f64 / 512.0);
            [90.0 + 90.0 * y, 130.0 + 60.0 * y + 20.0 * x, 230.0 - 60.0 * x * y].map(|level| level as u8)
        };
        let sky = Picture::new(size, (0..768 * 512).flat_map(level).collect()).unwrap();
        let changed = changed_by_tiles(&sky, 6);
        // From each pixel to the next one of its row.
        let steps = changed.chunks(3 * 768).flat_map(|row| row.windows(4)).map(|window| (window[3] - window[0]).abs());
        let largest = steps.fold(0.0, f64::max);
        assert!(largest <= 2.0, "a step of {largest} levels");
    }
}
