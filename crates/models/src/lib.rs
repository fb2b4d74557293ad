//! The architectures, each once: no files, no pipelines, no apps. A mode, a precision or a guidance is an input or a
//! property of a layer, never a second architecture.

pub mod clip;
pub mod config;
pub mod depth_anything;
pub mod dinov2;
mod embed;
mod encoder;
pub mod flux;
pub mod layout;
pub mod probe;
pub mod redux;
mod resnet;
pub mod siglip;
pub mod t5;
#[cfg(test)]
mod testing;
pub mod tiles;
pub mod unet;
pub mod vae;
