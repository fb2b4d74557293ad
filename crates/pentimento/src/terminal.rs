//! What a person sees: progress on a terminal, nothing of it when standard error is piped.

use crate::failure::Failure;
use engine::{Observer, StepReport};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::Duration;

/// The result of a command, on standard output. A reader that has heard enough is no error.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match tell(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::because(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// A line on standard output that must arrive.
pub(crate) fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// One line on standard error, piped or not.
pub(crate) fn complain(text: &str) {
    // Where nobody can hear it, there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A question on standard error; the answer follows on the same line.
pub(crate) fn question(text: &str) {
    let _ = write!(io::stderr(), "{text}");
}

/// One line for a person, on standard error if that is a terminal.
pub(crate) fn remark(text: &str) {
    if std::io::stderr().is_terminal() {
        complain(text);
    }
}

/// A progress bar with steps and the time that is left; hidden when standard error is no terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Begins with work of unknown length.
    pub(crate) fn begin(what: String) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {msg}"));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn now(&self, what: &'static str) {
        self.0.set_message(what);
    }

    pub(crate) fn end(self) {
        self.0.finish_and_clear();
    }
}

impl Observer for Progress {
    fn step(&mut self, report: StepReport) -> ControlFlow<()> {
        if self.0.length() != Some(report.n_steps.into()) {
            self.0.set_length(report.n_steps.into());
            self.0.set_style(style("{spinner} {msg} [{bar:32}] step {pos} of {len}, {eta} left").progress_chars("=> "));
        }
        self.0.set_position(report.step.into());
        if report.step == report.n_steps {
            self.0.set_message("finishing");
        }
        ControlFlow::Continue(())
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template, this is a bug")
}
