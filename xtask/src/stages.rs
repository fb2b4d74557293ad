//! The stages of `test` and `check`: each is announced, timed and listed in the summary at the end.

use crate::{tidy, tools};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What `cargo xtask test` does: every stage, whatever became of those before it.
pub(crate) fn run_all(root: &Path) -> ExitCode {
    let mut report = Report::default();
    report.add("tools", || tools::prepare(root));
    for stage in [FORMAT, TIDY, LINT, DOCS, TESTS, ARM] {
        report.add(stage.name, || stage.run(root));
    }
    report.finish()
}

/// What `cargo xtask check` does: the cheap stages, cheapest first, until one fails.
pub(crate) fn run_until_failure(root: &Path) -> ExitCode {
    let mut report = Report::default();
    for stage in [FORMAT, TIDY, LINT] {
        if report.add(stage.name, || stage.run(root)) == Outcome::Failed {
            break;
        }
    }
    report.finish()
}

/// What `cargo xtask tidy` does.
pub(crate) fn run_tidy(root: &Path) -> ExitCode {
    match TIDY.run(root) {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Skipped(_) => ExitCode::FAILURE,
    }
}

/// What became of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// It could not run; says what is missing.
    Skipped(String),
}

struct Stage {
    name: &'static str,
    work: Work,
}

enum Work {
    Tidy,
    Cargo {
        arguments: &'static [&'static str],
        /// The component without which the stage is skipped.
        needs: Option<tools::Component>,
    },
    /// Warnings and tests of the kernels, which have a form of their own for the processor.
    Kernels(&'static tools::Emulated),
}

const FORMAT: Stage = Stage {
    name: "format",
    work: Work::Cargo { arguments: &["fmt", "--all", "--", "--check"], needs: Some(tools::RUSTFMT) },
};

const TIDY: Stage = Stage { name: "tidy", work: Work::Tidy };

const LINT: Stage = Stage {
    name: "lint",
    work: Work::Cargo {
        arguments: &["clippy", "--locked", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"],
        needs: Some(tools::CLIPPY),
    },
};

/// A link from a public item to a private one is fine where both are documented.
const RUSTDOC_FLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";

/// Private items too: those who read these documents work on the code.
const DOCS: Stage = Stage {
    name: "docs",
    work: Work::Cargo {
        arguments: &["doc", "--locked", "--release", "--workspace", "--no-deps", "--document-private-items"],
        needs: None,
    },
};

/// The profile is the one that `cargo run --release` uses, so that the tree compiles once.
const TESTS: Stage = Stage {
    name: "tests",
    work: Work::Cargo { arguments: &["test", "--locked", "--release", "--workspace", "--no-fail-fast"], needs: None },
};

/// Also on the machines of those who do not have such a processor.
const ARM: Stage = Stage { name: "arm", work: Work::Kernels(&tools::ARM) };

impl Stage {
    fn run(&self, root: &Path) -> Outcome {
        match &self.work {
            Work::Tidy => tidy::report(root),
            Work::Cargo { arguments, needs } => {
                if let Some(missing) = needs.as_ref().and_then(|component| component.missing(root)) {
                    return Outcome::Skipped(missing);
                }
                run_cargo(tools::cargo(root).args(*arguments))
            }
            Work::Kernels(processor) => {
                if let Some(missing) = processor.missing(root) {
                    return Outcome::Skipped(missing);
                }
                let kernels = ["--locked", "--release", "--package", "kernels"];
                let lint = tools::CLIPPY.missing(root).is_some()
                    || run_cargo(processor.cargo(root, "clippy").args(kernels).args(["--", "-D", "warnings"]))
                        == Outcome::Passed;
                // A test that starts itself anew would start it without the emulator.
                let tests = ["--lib", "--", "--skip", "with_fewer_instructions"];
                let tests = run_cargo(processor.cargo(root, "test").args(kernels).args(tests));
                if lint { tests } else { Outcome::Failed }
            }
        }
    }
}

fn run_cargo(command: &mut Command) -> Outcome {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    println!("$ cargo {}", arguments.join(" "));
    let status = command.env("RUSTDOCFLAGS", RUSTDOC_FLAGS).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(_) => Outcome::Failed,
        Err(error) => {
            eprintln!("error: cargo does not start: {error}");
            Outcome::Failed
        }
    }
}

/// One line for each stage that has run.
#[derive(Default)]
struct Report {
    lines: Vec<Line>,
}

struct Line {
    stage: &'static str,
    outcome: Outcome,
    time: Duration,
}

impl Report {
    fn add(&mut self, stage: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        println!("\n== {stage} ==");
        let start = Instant::now();
        let outcome = work();
        let time = start.elapsed();
        println!("== {stage}: {} in {} ==", describe(&outcome), seconds(time));
        self.lines.push(Line { stage, outcome: outcome.clone(), time });
        outcome
    }

    fn finish(&self) -> ExitCode {
        println!("\n{}", self.table());
        if self.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn failed(&self) -> bool {
        self.lines.iter().any(|line| line.outcome == Outcome::Failed)
    }

    fn table(&self) -> String {
        let rows = self.lines.iter().map(|line| {
            let time = seconds(line.time);
            format!("{:<8} {time:>9}  {}\n", line.stage, describe(&line.outcome))
        });
        let total = seconds(self.lines.iter().map(|line| line.time).sum());
        let verdict = if self.failed() { "FAILED" } else { "ok" };
        format!("{}{:<8} {total:>9}  {verdict}", rows.collect::<String>(), "total")
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => "ok".to_owned(),
        Outcome::Failed => "FAILED".to_owned(),
        Outcome::Skipped(reason) => format!("skipped: {reason}"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Whether a program starts and succeeds; says nothing on our streams.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let line = |outcome: &Outcome| Line { stage: "stage", outcome: outcome.clone(), time: Duration::from_secs(2) };
        Report { lines: outcomes.iter().map(line).collect() }
    }

    #[test]
    fn one_failed_stage_fails_the_whole() {
        assert!(report(&[Outcome::Passed, Outcome::Failed, Outcome::Passed]).failed());
        assert!(!report(&[Outcome::Passed, Outcome::Skipped("rustfmt".to_owned())]).failed());
    }

    #[test]
    fn the_table_names_what_was_skipped_and_adds_up_the_time() {
        let table = report(&[Outcome::Passed, Outcome::Skipped("no rustfmt".to_owned())]).table();
        assert!(table.contains("skipped: no rustfmt"), "{table}");
        assert!(table.ends_with("4.0 s  ok"), "{table}");
    }

    #[test]
    fn a_failing_program_does_not_succeed() {
        let root = crate::repository_root();
        assert!(succeeds(tools::cargo(&root).arg("--version")));
        assert!(!succeeds(tools::cargo(&root).arg("--no-such-option")));
        assert!(!succeeds(&mut Command::new("no-such-program-anywhere")));
    }
}
