//! The `pentimento` program: the only place that puts the parts together and reads the environment.

mod bench;
mod calendar;
mod catalogue;
mod data_dir;
mod doctor;
mod failure;
mod huggingface;
mod keys;
mod logs;
mod memory;
mod models;
mod paint;
mod processor;
mod pull;
mod pull_progress;
mod remote;
mod serve;
mod terminal;
mod weights;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// A model's layers make and free results of the same few sizes over and over.
#[global_allocator]
static ALLOCATOR: nn::memory::Keeper = nn::memory::Keeper;

/// Paints over pictures: give it a picture and a prompt, get the picture repainted.
#[derive(Parser)]
#[command(name = "pentimento", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Repaint one picture and write the result to a file.
    Paint(Box<paint::Args>),
    /// Serve the API: accept tasks over HTTP, queue them durably, paint them.
    Serve(Box<serve::Args>),
    /// Make, list and revoke API keys.
    Keys(keys::Args),
    /// Fetch a model's weights, and those of the models that it needs.
    Pull(pull::Args),
    /// List the models and the apps that each serves; verify and remove what was pulled.
    Models(models::Args),
    /// Say whether this machine is fit to serve.
    Doctor(doctor::Args),
    /// Measure where the time of one picture goes on this machine.
    Bench(bench::Args),
}

/// Names the most that kernels may use of the processor's instructions.
const INSTRUCTIONS: &str = "PENTIMENTO_INSTRUCTIONS";

fn main() -> ExitCode {
    if let Some(limit) = std::env::var_os(INSTRUCTIONS)
        && let Err(error) = nn::limit(&limit.to_string_lossy())
    {
        return Failure::usage(format!("{INSTRUCTIONS}: {error}")).report();
    }
    let outcome = match Cli::parse().command {
        Command::Paint(args) => paint::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
