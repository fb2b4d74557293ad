//! How much room there is.

use std::path::Path;

/// Free for this user on the file system of a folder, bytes; `None` where the system does not say.
#[cfg(unix)]
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
pub fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}
