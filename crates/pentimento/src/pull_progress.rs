//! A pull as a person sees it: bars on a terminal, lines where standard error is piped.

use crate::terminal;
use hub::download::{Event, Origin, Place, Plan, Progress};
use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A piped pull tells of every such part of the whole.
const TWENTIETHS: u64 = 20;

/// One line for each file that is on its way, and one for all of them together.
pub(crate) struct PullProgress {
    files: Vec<(String, u64)>,
    bars: MultiProgress,
    is_terminal: bool,
    state: Mutex<State>,
}

struct State {
    total: ProgressBar,
    active: BTreeMap<usize, ProgressBar>,
    /// Bytes of each file that are here.
    have: Vec<u64>,
    n_done: usize,
    twentieths: u64,
}

impl PullProgress {
    pub(crate) fn begin(plan: &Plan, places: &[Place]) -> Self {
        let have = |(place, bytes): (&Place, u64)| match place {
            Place::Remote { have } => *have,
            Place::Here | Place::Cached => bytes,
        };
        let have: Vec<u64> = places.iter().zip(plan.files.iter().map(|file| file.bytes)).map(have).collect();
        let (bars, is_terminal) = (MultiProgress::new(), std::io::stderr().is_terminal());
        let total = ProgressBar::new(plan.bytes());
        total.set_style(style("{msg:40!} [{bar:24}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left"));
        total.set_message(plan.model.to_string());
        // What is here already says nothing of how fast the rest will come.
        total.set_position(have.iter().sum());
        total.reset_eta();
        let total = bars.add(total);
        total.enable_steady_tick(Duration::from_millis(200));
        let state = Mutex::new(State { total, active: BTreeMap::new(), have, n_done: 0, twentieths: 0 });
        let files = plan.files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
        Self { files, bars, is_terminal, state }
    }

    pub(crate) fn end(&self) {
        let state = self.state();
        state.active.values().for_each(ProgressBar::finish_and_clear);
        state.total.finish_and_clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        if self.is_terminal {
            // Fails where the terminal went away, and then nobody reads it.
            let _ = self.bars.println(text);
        } else {
            terminal::complain(text);
        }
    }

    fn set(&self, state: &mut State, file: usize, have: u64) {
        state.have[file] = have;
        let sum: u64 = state.have.iter().sum();
        state.total.set_position(sum);
        if let Some(bar) = state.active.get(&file) {
            bar.set_position(have);
        }
        let total = self.files.iter().map(|(_, bytes)| bytes).sum::<u64>().max(1);
        let twentieths = sum * TWENTIETHS / total;
        if !self.is_terminal && twentieths > state.twentieths {
            self.line(&format!("{} of {}", DecimalBytes(sum), DecimalBytes(total)));
        }
        state.twentieths = state.twentieths.max(twentieths);
    }

    fn begin_file(&self, state: &mut State, file: usize, have: u64) {
        let (path, bytes) = &self.files[file];
        let bar = state.active.entry(file).or_insert_with(|| {
            let bar = ProgressBar::new(*bytes);
            bar.set_style(style("{msg:40!} [{bar:24}] {bytes}/{total_bytes}"));
            bar.set_message(path.clone());
            self.bars.insert_before(&state.total, bar)
        });
        bar.set_position(have);
        self.set(state, file, have);
    }

    fn end_file(&self, state: &mut State, file: usize, origin: Origin) {
        let (path, bytes) = &self.files[file];
        if let Some(bar) = state.active.remove(&file) {
            bar.finish_and_clear();
        }
        state.n_done += 1;
        let how = match origin {
            Origin::Kept => "was here",
            Origin::Cache => "from the shared cache",
            Origin::Network => "fetched",
        };
        self.line(&format!("{path}: {}, {how} ({} of {})", DecimalBytes(*bytes), state.n_done, self.files.len()));
        self.set(state, file, *bytes);
    }
}

impl Progress for PullProgress {
    fn tell(&self, file: usize, event: Event<'_>) {
        let state = &mut *self.state();
        let path = &self.files[file].0;
        match event {
            Event::Begin { have } => self.begin_file(state, file, have),
            Event::Bytes(n_bytes) => {
                let have = state.have[file] + n_bytes;
                self.set(state, file, have);
            }
            Event::StartOver(why) => self.line(&format!("{path}: begun anew, because {why}")),
            Event::Retry { problem, wait } => {
                self.line(&format!("{path}: {problem}; again in {:.1} s", wait.as_secs_f64()));
            }
            Event::Done(origin) => self.end_file(state, file, origin),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template, this is a bug").progress_chars("=> ")
}
