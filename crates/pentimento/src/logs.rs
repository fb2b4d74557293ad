//! The server's log: on standard error, for people or for machines.

use crate::failure::Failure;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

#[derive(clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: a level, or directives such as `info,worker=debug`
    #[arg(long, value_name = "FILTER", env = "PENTIMENTO_LOG", default_value = "info")]
    log: String,
    /// How to write it
    #[arg(long, value_enum, env = "PENTIMENTO_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogArgs {
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            Failure::usage(format!("--log: got {}; allowed: a level or directives: {error}", self.log))
        })?;
        // A line that cannot be written is lost, and told to nobody: telling would fail too, and end the server.
        let logs =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
        let begun = match self.log_format {
            LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
            LogFormat::Json => logs.json().try_init(),
        };
        begun.map_err(Failure::because)
    }
}
