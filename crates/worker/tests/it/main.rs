//! Workers on a real store in a scratch folder, with engines that paint at once.

mod cancel;
mod drain;
mod failure;
mod lanes;
mod paint;
mod share;
mod support;
