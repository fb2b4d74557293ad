//! An engine per family of models, in stages: encode, prepare, denoise, decode.
//!
//! A mode of image-to-image is a `Conditioning` made in `prepare`, never another pipeline.

pub mod assembly;
mod cache;
mod canvas;
mod codec;
mod control;
pub mod depth;
pub mod engines;
pub mod flux;
mod folder;
mod pixels;
mod precision;
mod residency;
mod run;
pub mod sdxl;
pub mod settings;
pub mod stage;
pub mod synthetic;
pub mod tokenizer;
pub mod trace;
mod vision;

pub use cache::CacheUse;
pub use engines::{Engines, Parts, load_weights};
pub use precision::Precision;
pub use residency::Residency;
