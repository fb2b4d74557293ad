//! How a command fails: one clear line, and an exit code.

use std::error::Error;
use std::fmt::{self, Display};
use std::process::ExitCode;

/// Ends a command. Exit code 2 for a mistake in how it was called, 130 for Ctrl-C, 1 for everything else.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 2 }
    }

    pub(crate) fn because(message: impl Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    pub(crate) fn with_code(message: impl Display, code: u8) -> Self {
        Self { message: message.to_string(), code }
    }

    /// With all its causes, each after the other, still on one line.
    pub(crate) fn caused_by(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self { message, code: 1 }
    }

    /// Says what went wrong on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        crate::terminal::complain(&format!("pentimento: {}", self.message));
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
