//! Group norms of parts of a picture by the statistics of all of it, so that the parts fit together.

use kernels::norm::{GroupNorm, Statistics};
use std::cell::RefCell;
use std::ops::Range;

/// What the group norms of a model saw in one run, in the order in which they ran.
#[derive(Debug)]
pub struct SharedStatistics {
    norms: Vec<Vec<Statistics>>,
    /// Of what is told of.
    area: f64,
}

/// A part of a picture, whatever its size in a layer: ranges of its rows and of its columns, each from 0 to 1.
#[derive(Clone, Debug)]
pub struct Part {
    pub rows: Range<f64>,
    pub columns: Range<f64>,
}

/// How the group norms of this thread run.
#[derive(Default)]
struct Run {
    /// What they norm by, instead of by what they see.
    given: Option<Vec<Vec<Statistics>>>,
    /// Of which part what they see is written down.
    noted: Option<Part>,
    norms: Vec<Vec<Statistics>>,
    /// Norms that have run.
    n: usize,
}

thread_local! {
    /// A thread's own, because an engine belongs to one thread.
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

impl SharedStatistics {
    /// Writes down what the group norms that `run` runs on this thread, on a single picture, see of a part of it, while they
    /// norm by what is given, or else by what they see.
    pub fn of<T>(part: Part, given: Option<&Self>, run: impl FnOnce() -> T) -> (Self, T) {
        let area = (part.rows.end - part.rows.start) * (part.columns.end - part.columns.start);
        let given = given.map(|given| given.norms.clone());
        let (seen, output) = within(Run { given, noted: Some(part), ..Run::default() }, run);
        (Self { norms: seen.norms, area }, output)
    }

    /// What norms would see of all the parts together, which are of pictures of one size.
    pub fn pooled(seen: &[Self]) -> Self {
        let area = seen.iter().map(|seen| seen.area).sum::<f64>();
        let group = |norm: usize, group: usize| {
            let each = seen.iter().filter_map(|seen| Some((seen.norms.get(norm)?.get(group)?, seen.area / area)));
            let mean_of = |of: &dyn Fn(&Statistics) -> f64| each.clone().map(|(each, share)| share * of(each)).sum();
            let mean: f64 = mean_of(&|each| f64::from(each.mean));
            let variance: f64 =
                mean_of(&|each| f64::from(each.inverse_deviation).powi(-2) + (f64::from(each.mean) - mean).powi(2));
            Statistics { mean: mean as f32, inverse_deviation: variance.powf(-0.5) as f32 }
        };
        let norms = seen.first().map_or(&[][..], |first| &first.norms).iter().enumerate();
        let norms = norms.map(|(norm, groups)| (0..groups.len()).map(|idx| group(norm, idx)).collect()).collect();
        Self { norms, area }
    }

    /// Runs the same layers again, in the same order, normed by these statistics.
    pub fn given_to<T>(&self, run: impl FnOnce() -> T) -> T {
        within(Run { given: Some(self.norms.clone()), ..Run::default() }, run).1
    }
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { rows: 0.0..1.0, columns: 0.0..1.0 };

    /// Its elements of `(channels, height, width)`.
    fn of(&self, values: &[f32], height: usize, width: usize) -> Vec<f32> {
        let within = |range: &Range<f64>, len: usize| {
            let at = |x: f64| ((x * len as f64).round() as usize).min(len);
            at(range.start)..at(range.end)
        };
        let (rows, columns) = (within(&self.rows, height), within(&self.columns, width));
        let mut part = Vec::with_capacity(values.len() / (height * width) * rows.len() * columns.len());
        for plane in values.chunks(height * width) {
            rows.clone().for_each(|y| part.extend_from_slice(&plane[y * width..][columns.clone()]));
        }
        part
    }
}

/// What the group norm that runs now is normed by, if not by what it sees.
///
/// # Shapes
/// - input: `(channels, height, width)`
pub(super) fn next(norm: &GroupNorm<'_>, input: &[f32], height: usize, width: usize) -> Option<Vec<Statistics>> {
    RUN.with_borrow_mut(|run| {
        let run = run.as_mut()?;
        if let Some(part) = &run.noted {
            run.norms.push(norm.statistics_of(&part.of(input, height, width)));
        }
        run.n += 1;
        run.given.as_ref()?.get(run.n - 1).cloned()
    })
}

/// Runs so, and gives what has been written down.
fn within<T>(how: Run, run: impl FnOnce() -> T) -> (Run, T) {
    /// Ends it, however it ends.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RUN.set(None);
        }
    }
    RUN.set(Some(how));
    let end = End;
    let output = run();
    let seen = RUN.take().unwrap_or_default();
    drop(end);
    (seen, output)
}
