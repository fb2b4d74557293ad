//! What this machine's processor is, and how fast it is at most: measured once, and remembered in the data folder.

use nn::peak::{Kind, Peaks, Rate, instructions};
use serde_json::{Value, json};
use std::path::Path;
use std::{fs, thread};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// Below the data folder.
const FILE: &str = "peaks.json";

/// As the system calls it; the architecture, where it has no name.
pub(crate) fn name() -> String {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let name = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

pub(crate) fn n_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The instruction sets that make painting faster.
#[cfg(target_arch = "x86_64")]
pub(crate) fn features() -> Vec<&'static str> {
    let known = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn features() -> Vec<&'static str> {
    let has_dot_product = std::arch::is_aarch64_feature_detected!("dotprod");
    if has_dot_product { vec!["neon", "dotprod"] } else { vec!["neon"] }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn features() -> Vec<&'static str> {
    Vec::new()
}

/// The peaks that were measured on this processor by this version, or else measured now, in 0.3 s. They are remembered
/// if there is a data folder; one is not made for them.
pub(crate) fn peaks(dir: &Path) -> Peaks {
    let path = dir.join(FILE);
    let subject = subject();
    let remembered = fs::read_to_string(&path).ok().and_then(|text| read(&text, &subject));
    remembered.unwrap_or_else(|| {
        let peaks = nn::peak::measure();
        // Where it cannot be written it is measured again the next time.
        let _ = write(&path, &written(&peaks, &subject));
        peaks
    })
}

/// One line for people.
pub(crate) fn described(peaks: &Peaks) -> String {
    let of = |kind: Kind, rate: Rate, unit: &str| format!("{:.0} {unit} ({})", rate.all_threads, instructions(kind));
    format!(
        "f32 {}, bf16 {}, int8 {}, copies {:.0} GB/s",
        of(Kind::F32, peaks.f32, "GFLOP/s"),
        of(Kind::Bf16, peaks.bf16, "GFLOP/s"),
        of(Kind::Int8, peaks.int8, "GOP/s"),
        peaks.copy.all_threads
    )
}

/// What was measured, and by what: anything else is measured anew.
fn subject() -> String {
    let (name, n_threads) = (name(), n_threads());
    // Not what the processor has: kernels may have been told to use less of it.
    let used = [Kind::F32, Kind::Bf16, Kind::Int8].map(instructions).join("; ");
    format!("{name}, {used}, {n_threads} threads, pentimento {}", env!("CARGO_PKG_VERSION"))
}

/// In whole millions a second, of one thread and of all.
fn written(peaks: &Peaks, subject: &str) -> Value {
    let millions = |rate: f64| (rate * 1e3).round() as u64;
    let rate = |rate: Rate| json!([millions(rate.one_thread), millions(rate.all_threads)]);
    let Peaks { f32, bf16, int8, copy } = peaks;
    json!({"subject": subject, "f32": rate(*f32), "bf16": rate(*bf16), "int8": rate(*int8), "copy": rate(*copy)})
}

/// `None`: no peaks of this subject, or none that can be.
fn read(text: &str, subject: &str) -> Option<Peaks> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |value: &Value| value.as_u64().filter(|millions| *millions > 0).map(|millions| millions as f64 / 1e3);
    let rate = |name: &str| {
        let (one_thread, all_threads) = (number(&value[name][0])?, number(&value[name][1])?);
        Some(Rate { one_thread, all_threads })
    };
    if value["subject"] != subject {
        return None;
    }
    Some(Peaks { f32: rate("f32")?, bf16: rate("bf16")?, int8: rate("int8")?, copy: rate("copy")? })
}

/// Whole or not at all: another process may read meanwhile.
fn write(path: &Path, value: &Value) -> std::io::Result<()> {
    let part = path.with_extension(format!("json.{}", std::process::id()));
    fs::write(&part, value.to_string())?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peaks_of(unit: f64) -> Peaks {
        let rate = |factor: f64| Rate { one_thread: factor * unit, all_threads: 2.0 * factor * unit };
        Peaks { f32: rate(1.0), bf16: rate(2.0), int8: rate(4.0), copy: rate(0.1) }
    }

    #[test]
    fn peaks_are_remembered_for_the_processor_that_they_are_of() {
        let dir = tempfile::tempdir().unwrap();
        let known = peaks_of(1234.5);
        let path = dir.path().join(FILE);
        write(&path, &written(&known, &subject())).unwrap();
        assert_eq!(peaks(dir.path()), known);
        write(&path, &written(&known, "another")).unwrap();
        let measured = peaks(dir.path());
        assert_ne!(measured, known);
        let off = |a: Rate, b: Rate| (a.all_threads - b.all_threads).abs();
        let remembered = peaks(dir.path());
        assert!(
            off(remembered.f32, measured.f32) < 0.01 && off(remembered.copy, measured.copy) < 0.01,
            "{remembered:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_peaks_is_measured_anew() {
        let subject = subject();
        let good = written(&peaks_of(1.0), &subject);
        assert!(read(&good.to_string(), &subject).is_some());
        for (name, bad) in [("f32", json!([0, 1])), ("copy", json!([1])), ("int8", json!("fast"))] {
            let mut value = good.clone();
            value[name] = bad;
            assert_eq!(read(&value.to_string(), &subject), None, "{name}");
        }
        assert_eq!(read("", &subject), None);
    }

    #[test]
    fn no_folder_is_made_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("not/yet");
        assert!(peaks(&missing).f32.all_threads > 0.0);
        assert!(!missing.exists());
    }
}
