//! Redux: what a vision tower sees in the reference, as tokens after the text's.

use crate::cache::Fingerprint;
use crate::precision::Role;
use crate::residency::{Component, Residency, Resident};
use crate::trace::{Prefixed, Trace};
use crate::vision::FeatureExtractor;
use candle_core::Tensor;
use imaging::Picture;
use models::config;
use models::redux::{self, ReduxImageEncoder};
use models::siglip::{self, SiglipVisionModel};
use nn::files::ModelFiles;
use nn::{Error, Result};
use std::sync::Arc;

/// The parts that Redux adds to FLUX.1.
pub(super) struct Redux {
    feature_extractor: FeatureExtractor,
    image_encoder: Resident<SiglipVisionModel>,
    image_embedder: Resident<ReduxImageEncoder>,
}

impl Redux {
    /// Loads the folder of a `FluxPriorReduxPipeline`, to add to a transformer whose text is `txt_width` wide.
    pub(super) fn load(files: &ModelFiles, txt_width: usize, residency: &Arc<Residency>) -> Result<Self> {
        let siglip_config: siglip::Config = config::read(files, "image_encoder", "config.json")?;
        let redux_config: redux::Config = config::read(files, "image_embedder", "config.json")?;
        let feature_extractor = FeatureExtractor::open(files, "feature_extractor")?;
        let shown = feature_extractor.size();
        let fits = [
            ("txt_in_features", redux_config.txt_in_features, txt_width),
            ("redux_dim", redux_config.redux_dim, siglip_config.hidden_size),
            ("the feature extractor's height", shown.height as usize, siglip_config.image_size),
            ("the feature extractor's width", shown.width as usize, siglip_config.image_size),
        ];
        if let Some((name, got, wanted)) = fits.into_iter().find(|(_, got, wanted)| got != wanted) {
            let reason = format!("{name}: got {got}; the model beside it takes {wanted}");
            return Err(Error::Malformed { path: files.display("image_embedder/config.json"), reason });
        }
        Ok(Self {
            feature_extractor,
            image_encoder: residency.component(files, "image_encoder", Role::Encoder, move |weights| {
                SiglipVisionModel::new(&siglip_config, weights)
            })?,
            image_embedder: residency.component(files, "image_embedder", Role::Encoder, move |weights| {
                ReduxImageEncoder::new(&redux_config, weights)
            })?,
        })
    }

    pub(super) fn components(&self) -> [&dyn Component; 2] {
        [&self.image_encoder, &self.image_embedder]
    }

    /// The whole reference as tokens, whatever its shape.
    ///
    /// # Shapes
    /// - output: `(1, tokens, txt_width)`
    pub(super) fn tokens(&self, reference: &Picture, trace: &mut dyn Trace) -> Result<Tensor> {
        let inputs = |print: Fingerprint| {
            let extractor = format!("{:?}", self.feature_extractor);
            print.number(self.image_encoder.identity()).text(&extractor).picture(reference)
        };
        let tokens = self.image_embedder.kept("redux tokens", inputs, |embedder| {
            let pixels = self.feature_extractor.extract(reference)?;
            trace.see("redux.pixel_values", &pixels);
            let hidden = self.image_encoder.get()?.forward(&pixels, &mut Prefixed { prefix: "redux.siglip", trace })?;
            trace.see("redux.siglip_last_hidden", &hidden);
            embedder.forward(&hidden)
        })?;
        trace.see("redux.image_embeds", &tokens);
        Ok(tokens)
    }
}
