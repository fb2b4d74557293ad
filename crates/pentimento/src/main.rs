//! The `pentimento` program: the only place that puts the parts together and reads the environment.

mod bench;
mod failure;
mod paint;
mod terminal;
mod weights;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Measure where the time of one picture goes on this machine.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Paint(args) => paint::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
