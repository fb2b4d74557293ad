//! Read-only memory-mapped files: weights are read from the page cache, never copied whole.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: nothing of ours writes to the file, and whoever installs weights puts a new file in the place of an old
        // one: that is what docs/weights.md asks of operators. Rewritten in place, the bytes could change under us, and
        // truncated, reading them would end the process with SIGBUS, as with every reader that maps files.
        let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) }?;
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
