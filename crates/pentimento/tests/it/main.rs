//! The program as a user runs it: its own process, the embedded model, real signals.

mod apps;
mod commands;
mod crash;
mod ending;
mod ideogram;
mod loose;
mod paint;
mod process;
mod pull;
