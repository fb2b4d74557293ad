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
        // Opening a pipe would wait for somebody to write to it.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_is_opened() {
        let path = std::env::temp_dir().join(format!("pentimento-mapped-{}", std::process::id()));
        std::fs::write(&path, b"weights").unwrap();
        assert_eq!(&*Mapped::open(&path).unwrap(), b"weights");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Mapped::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Mapped::open(&std::env::temp_dir()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
