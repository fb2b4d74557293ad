//! The engines against the reference's recorded runs (`parity/` in the repository's root).

mod cache;
mod cancel;
mod conditioning;
mod depth;
mod formats;
mod golden;
mod parity;
mod precision;
mod residency;
mod sdxl;
mod tokenizers;
