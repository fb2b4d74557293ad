//! What a bench found: seconds, speeds and shares of the machine's peaks, as a table or as JSON.

use crate::processor::n_threads;
use domain::quantity::Size;
use engine::{Operations, Timings};
use nn::peak::Peaks;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What was measured.
pub(super) struct Report<'a> {
    pub(super) setting: Setting<'a>,
    pub(super) runs: &'a [Timings],
    /// The most memory that was held, MiB.
    pub(super) memory: Option<u64>,
    pub(super) peaks: Peaks,
}

/// What was painted, and with what.
pub(super) struct Setting<'a> {
    pub(super) model: &'a str,
    /// As it was asked for.
    pub(super) precision: &'a str,
    /// What each component multiplies in.
    pub(super) precisions: BTreeMap<String, &'static str>,
    pub(super) size: Size,
    pub(super) steps: u32,
}

/// One line of the report.
struct Stage {
    name: &'static str,
    /// Median of the runs.
    seconds: f64,
    operations: Operations,
}

impl Report<'_> {
    /// Keys of stages are seconds; `gflops` and `share_of_peak` have the same keys.
    pub(super) fn json(&self) -> Value {
        let stages = self.stages();
        let of = |value: &dyn Fn(&Stage) -> Value| -> Map<String, Value> {
            stages.iter().map(|stage| (stage.name.to_owned(), value(stage))).collect()
        };
        let Setting { model, precision, precisions, size, steps } = &self.setting;
        let mut object = of(&|stage| json!(rounded(stage.seconds, 4)));
        let rest = json!({
            "gflops": of(&|stage| json!(stage.gflops().map(|speed| rounded(speed, 1)))),
            "share_of_peak": of(&|stage| json!(stage.share(&self.peaks).map(|share| rounded(share, 3)))),
            "peaks": {
                "f32_gflops": rounded(self.peaks.f32.all_threads, 1),
                "bf16_gflops": rounded(self.peaks.bf16.all_threads, 1),
                "int8_gops": rounded(self.peaks.int8.all_threads, 1),
                "copy_gb_per_s": rounded(self.peaks.copy.all_threads, 1),
            },
            "peak_rss_mib": self.memory, "model": model, "precision": precision,
            "precisions": precisions, "width": size.width,
            "height": size.height, "steps": steps, "runs": self.runs.len(), "threads": n_threads(),
        });
        if let Value::Object(rest) = rest {
            object.extend(rest);
        }
        Value::Object(object)
    }

    pub(super) fn table(&self) -> String {
        let Setting { model, precision, precisions, size, steps } = &self.setting;
        let (n_threads, n_runs) = (n_threads(), self.runs.len());
        let mut lines = vec![
            format!("{model}, {size}, {steps} steps, {precision}, {n_threads} threads, median of {n_runs} runs"),
            format!("  {:<12} {:>10} {:>10} {:>9}", "stage", "seconds", "GFLOP/s", "of peak"),
        ];
        // A part that runs alone leaves the other stages empty.
        for stage in self.stages().into_iter().filter(|stage| stage.seconds > 0.0) {
            let speed = stage.gflops().map_or("-".to_owned(), |speed| format!("{speed:.1}"));
            let share = stage.share(&self.peaks).map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
            lines.push(format!("  {:<12} {:>10.4} {speed:>10} {share:>9}", stage.name, stage.seconds));
        }
        if let Some(memory) = self.memory {
            lines.push(format!("  {:<12} {memory:>10} MiB", "peak memory"));
        }
        let of_components = precisions.iter().map(|(name, format)| format!("{name} {format}"));
        lines.push(format!("  {:<12} {}", "computed in", of_components.collect::<Vec<_>>().join(", ")));
        let Peaks { f32, bf16, int8, copy } = self.peaks;
        lines.push(format!(
            "peaks of this machine, measured: f32 {:.0} GFLOP/s, bf16 {:.0} GFLOP/s, int8 {:.0} GOP/s, copies {:.0} GB/s",
            f32.all_threads, bf16.all_threads, int8.all_threads, copy.all_threads
        ));
        lines.join("\n")
    }

    fn stages(&self) -> [Stage; 5] {
        let of = |stage: fn(&Timings) -> Duration| median(self.runs.iter().map(stage).collect());
        // Every run does the same arithmetic.
        let operations = self.runs.first().map(|run| run.operations).unwrap_or_default();
        let n_steps = self.runs.first().map_or(0, |run| run.steps.len()) as u64;
        let mut total = Operations::default();
        for stage in [operations.text, operations.vae_encode, operations.steps, operations.vae_decode] {
            total += stage;
        }
        let Operations { f32, bf16, int8 } = operations.steps;
        let a_step = |count: u64| count.checked_div(n_steps).unwrap_or(0);
        let step = Operations { f32: a_step(f32), bf16: a_step(bf16), int8: a_step(int8) };
        let steps = self.runs.iter().flat_map(|run| run.steps.clone()).collect();
        [
            Stage { name: "text", seconds: of(|run| run.text), operations: operations.text },
            Stage { name: "vae_encode", seconds: of(|run| run.vae_encode), operations: operations.vae_encode },
            Stage { name: "step", seconds: median(steps), operations: step },
            Stage { name: "vae_decode", seconds: of(|run| run.vae_decode), operations: operations.vae_decode },
            Stage { name: "total", seconds: of(|run| run.total), operations: total },
        ]
    }
}

impl Stage {
    /// Thousand million operations a second, of all number formats together. `None`: none were counted.
    fn gflops(&self) -> Option<f64> {
        let Operations { f32, bf16, int8 } = self.operations;
        let n_operations = f32 + bf16 + int8;
        (n_operations > 0 && self.seconds > 0.0).then(|| n_operations as f64 / self.seconds / 1e9)
    }

    /// The time that the arithmetic would take at the peaks of the number formats that it is done in, of the time that
    /// the stage takes.
    fn share(&self, peaks: &Peaks) -> Option<f64> {
        let Operations { f32, bf16, int8 } = self.operations;
        let at_peak = [(f32, peaks.f32), (bf16, peaks.bf16), (int8, peaks.int8)]
            .map(|(n_operations, peak)| n_operations as f64 / (peak.all_threads * 1e9));
        self.gflops().map(|_| at_peak.iter().sum::<f64>() / self.seconds)
    }
}

/// In seconds; of none, zero.
fn median(mut durations: Vec<Duration>) -> f64 {
    durations.sort_unstable();
    let middle = durations.len() / 2;
    let seconds = |idx: usize| durations.get(idx).map_or(0.0, Duration::as_secs_f64);
    let even = durations.len().is_multiple_of(2) && middle > 0;
    if even { f64::midpoint(seconds(middle - 1), seconds(middle)) } else { seconds(middle) }
}

fn rounded(value: f64, n_digits: i32) -> f64 {
    let unit = 10f64.powi(n_digits);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::StageOperations;
    use nn::peak::Rate;

    #[test]
    fn a_median_stands_in_the_middle() {
        let seconds = |values: &[u64]| median(values.iter().map(|value| Duration::from_secs(*value)).collect());
        assert!((seconds(&[3, 1, 100]) - 3.0).abs() < 1e-9);
        assert!((seconds(&[1, 2, 3, 100]) - 2.5).abs() < 1e-9);
        assert!(seconds(&[]).abs() < 1e-9);
    }

    fn rate(all_threads: f64) -> Rate {
        Rate { one_thread: all_threads, all_threads }
    }

    /// Two steps of a second each, in which 100 thousand million operations of f32 and 400 of int8 are done.
    fn report(runs: &[Timings]) -> Report<'_> {
        let setting = Setting {
            model: "a-model",
            precision: "int8",
            precisions: [("vae".to_owned(), "f32")].into(),
            size: Size::new(64, 32),
            steps: 2,
        };
        let peaks = Peaks { f32: rate(200.0), bf16: rate(400.0), int8: rate(800.0), copy: rate(30.0) };
        Report { setting, runs, memory: Some(77), peaks }
    }

    fn timings() -> Timings {
        let steps = Operations { f32: 200_000_000_000, bf16: 0, int8: 800_000_000_000 };
        Timings {
            steps: vec![Duration::from_secs(1); 2],
            total: Duration::from_secs(4),
            operations: StageOperations { steps, ..StageOperations::default() },
            ..Timings::default()
        }
    }

    #[test]
    fn a_share_is_that_of_each_formats_own_peak() {
        let runs = [timings()];
        let json = report(&runs).json();
        assert_eq!(
            json["gflops"],
            json!({"text": null, "vae_encode": null, "step": 500.0, "vae_decode": null, "total": 250.0})
        );
        // Half a second of f32 and half a second of int8 in a second.
        assert_eq!(json["share_of_peak"]["step"], json!(1.0));
        assert_eq!(json["share_of_peak"]["total"], json!(0.5));
        assert_eq!((&json["step"], &json["total"], &json["peak_rss_mib"]), (&json!(1.0), &json!(4.0), &json!(77)));
    }

    #[test]
    fn the_table_has_a_line_for_each_stage() {
        let runs = [timings()];
        let table = report(&runs).table();
        let line = |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        let words: Vec<&str> = line("step").split_whitespace().collect();
        assert_eq!(words, ["step", "1.0000", "500.0", "100%"]);
        assert_eq!(line("text"), "", "a stage that did not run");
        assert_eq!(line("computed in").split_whitespace().collect::<Vec<_>>(), ["computed", "in", "vae", "f32"]);
        assert!(
            line("peak memory").ends_with("77 MiB") && table.starts_with("a-model, 64x32, 2 steps, int8"),
            "{table}"
        );
    }
}
