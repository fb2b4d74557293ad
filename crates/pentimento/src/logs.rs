//! The server's log: on standard error, for people or for machines.

use crate::failure::Failure;
use std::io::IsTerminal;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
        let allowed = "allowed: a level (off, error, warn, info, debug, trace) or directives such as info,worker=debug";
        if let Some(word) = self.log.split(',').map(str::trim).find(|word| is_no_directive(word)) {
            return Err(Failure::usage(format!("--log: got {word:?}; {allowed}")));
        }
        let filter = EnvFilter::try_new(&self.log);
        let filter =
            filter.map_err(|error| Failure::usage(format!("--log: got {:?}; {allowed}: {error}", self.log)))?;
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

/// The filter takes a word that is no level for the name of a part of the program, and then logs nothing else.
fn is_no_directive(word: &str) -> bool {
    let is_level = LevelFilter::from_str(word).is_ok();
    !is_level && !word.contains(['=', '[', ']', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_level_or_a_mistake() {
        for word in ["info", "WARN", "off", "worker=debug", "worker[task]=trace", "a::b=info"] {
            assert!(!is_no_directive(word), "{word}");
        }
        for word in ["inof", "nonsense", "worker"] {
            assert!(is_no_directive(word), "{word}");
        }
    }
}
