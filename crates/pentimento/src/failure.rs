//! How a command fails: one clear line, and an exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// Ends a command. Exit code 2 for a mistake in how it was called, 1 for everything else.
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

    /// Says what went wrong on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        crate::terminal::complain(&format!("pentimento: {}", self.message));
        ExitCode::from(self.code)
    }
}
