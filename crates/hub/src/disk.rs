//! How much room there is, and copies that last.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Free for this user on the file system of a folder, bytes; `None` where the system does not say.
#[cfg(unix)]
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// A copy of a file, on the disk when this returns.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Whether a file in one of these places can have a second name in the other; `false` where the system does not say.
#[cfg(unix)]
pub(crate) fn is_one_file_system(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| {
        // Of what is to be made, the folder that it will be made in.
        let whole = std::path::absolute(path).ok()?;
        let there = whole.ancestors().find_map(|part| rustix::fs::stat(part).ok());
        there.map(|found| found.st_dev)
    };
    device(a).is_some() && device(a) == device(b)
}

#[cfg(not(unix))]
pub(crate) fn is_one_file_system(_a: &Path, _b: &Path) -> bool {
    false
}

#[cfg(not(unix))]
pub fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}
