//! How weights lie in memory, and what there is beside them: `--memory-budget`, `--precision`, `--tile-above` and
//! `--cache-budget`.

use pipelines::{Precision, Residency};
use std::str::FromStr;
use std::sync::Arc;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

#[derive(clap::Args)]
pub(crate) struct MemoryArgs {
    /// Memory for weights, all models together: a size (16GiB) or a share of what there is (80%). What does not fit at
    /// once is read part by part; a model with a part that alone is larger is refused
    #[arg(long, value_name = "SIZE", env = "PENTIMENTO_MEMORY_BUDGET", default_value = "80%")]
    memory_budget: Budget,
    /// The number format that layers multiply in
    #[arg(long, value_enum, env = "PENTIMENTO_PRECISION", default_value = "auto")]
    precision: PrecisionArg,
    /// Megapixels that the autoencoder codes at once, some 5 GiB each; a larger picture is coded in tiles that overlap
    #[arg(
        long,
        value_name = "MEGAPIXELS",
        env = "PENTIMENTO_TILE_ABOVE",
        default_value_t = Residency::PIXELS_AT_ONCE as f64 / 1e6,
        value_parser = megapixels
    )]
    tile_above: f64,
}

/// The number formats that `--precision` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PrecisionArg {
    /// f32 for small models, and for large ones what is fastest on this processor
    Auto,
    /// 32-bit floating point, in step with the reference
    F32,
    /// bfloat16 with 32-bit sums; half the memory
    Bf16,
    /// 8-bit integers with a scale for each block; a quarter of the memory
    Int8,
}

impl From<PrecisionArg> for Precision {
    fn from(argument: PrecisionArg) -> Self {
        match argument {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

/// The `--cache-budget` option, of who paints more than once.
#[derive(clap::Args)]
pub(crate) struct CacheArgs {
    /// Memory for what was made of prompts and pictures, kept for tasks with the same ones: a size (256MiB); 0 keeps
    /// nothing
    #[arg(long, value_name = "SIZE", env = "PENTIMENTO_CACHE_BUDGET", default_value = "256MiB", value_parser = cache_bytes)]
    cache_budget: u64,
}

impl CacheArgs {
    pub(crate) fn bytes(&self) -> u64 {
        self.cache_budget
    }
}

/// A size, or a share of the memory that this process may have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Budget {
    Bytes(u64),
    /// Above 0, at most 1.
    Share(f64),
}

impl MemoryArgs {
    pub(crate) fn residency(&self) -> Arc<Residency> {
        let residency = match (self.memory_budget, total_bytes()) {
            (Budget::Bytes(bytes), _) => Residency::new(bytes, self.precision()),
            (Budget::Share(share), Some(total)) => Residency::new((total as f64 * share) as u64, self.precision()),
            (Budget::Share(_), None) => Residency::unlimited(self.precision()),
        };
        residency.with_pixels_at_once((self.tile_above * 1e6) as usize)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision.into()
    }
}

/// What the machine has, or what a container leaves of it. `None`: this system does not say.
pub(crate) fn total_bytes() -> Option<u64> {
    let system = system();
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    Some(system.total_memory().min(container)).filter(|bytes| *bytes > 0)
}

/// What could be had now, of the machine's memory or of what a container leaves of it.
pub(crate) fn available_bytes() -> Option<u64> {
    let system = system();
    let container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    Some(system.available_memory().min(container)).filter(|bytes| *bytes > 0)
}

fn system() -> System {
    System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
}

fn cache_bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "0" => Ok(0),
        Ok(Budget::Bytes(bytes)) => Ok(bytes),
        Ok(Budget::Share(_)) | Err(_) => Err("allowed: 0, or a size such as 256MiB or 1GiB".to_owned()),
    }
}

fn megapixels(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.05..=1000.0).contains(number));
    number.ok_or_else(|| "allowed: megapixels from 0.05 to 1000, such as 1.6".to_owned())
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: a size such as 16GiB or 900MiB, or a share such as 80%";
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number = number.parse::<f64>().ok().filter(|number| *number > 0.0).ok_or(ALLOWED)?;
        let unit_bytes = match unit.trim().to_ascii_lowercase().as_str() {
            "%" if number <= 100.0 => return Ok(Self::Share(number / 100.0)),
            "gib" | "g" => 1u64 << 30,
            "mib" | "m" => 1 << 20,
            "gb" => 1_000_000_000,
            "mb" => 1_000_000,
            _ => return Err(ALLOWED.to_owned()),
        };
        Ok(Self::Bytes((number * unit_bytes as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let (total, available) = (total_bytes().unwrap(), available_bytes().unwrap());
        assert!((64 << 20..64 << 40).contains(&total) && available > 0, "{total} {available}");
    }

    #[test]
    fn a_budget_is_a_size_or_a_share() {
        let parsed = |text: &str| text.parse::<Budget>();
        assert_eq!(parsed("16GiB"), Ok(Budget::Bytes(16 << 30)));
        assert_eq!(parsed("1.5 gib"), Ok(Budget::Bytes(3 << 29)));
        assert_eq!(parsed("900MB"), Ok(Budget::Bytes(900_000_000)));
        assert_eq!(parsed("80%"), Ok(Budget::Share(0.8)));
        for text in ["", "16", "GiB", "0GiB", "101%", "-1GiB", "1TiB", "1..5GiB", "NaN%"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tiles_are_not_smaller_than_a_small_picture() {
        assert_eq!((megapixels("1.6"), megapixels("0.05")), (Ok(1.6), Ok(0.05)));
        for text in ["", "0", "0.04", "-1", "NaN", "inf", "1001", "1MP"] {
            assert!(megapixels(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cache_has_a_size_or_is_off() {
        assert_eq!((cache_bytes("0"), cache_bytes("1MiB")), (Ok(0), Ok(1 << 20)));
        for text in ["", "1", "80%", "-1MiB"] {
            assert!(cache_bytes(text).is_err(), "{text}");
        }
    }
}
