//! Bit-for-bit comparison with what the reference implementation recorded in `parity/goldens`.

mod diffusion;
mod noise;
mod runs;
mod schedules;

use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../parity/goldens").join(name)
}
