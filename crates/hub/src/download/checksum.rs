//! What a file must hash to: a large file by its SHA-256, a small one as git knows it.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Read at once when a file on the disk is hashed.
const CHUNK_BYTES: usize = 1 << 20;

/// What a hub declares of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Of the content, for files in large file storage.
    Sha256(Sha256Hex),
    /// Git's id of the content: SHA-1 of `blob`, its length and the content, 40 hexadecimal digits.
    GitBlob(String),
}

/// 64 hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    pub fn parse(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Checksum {
    pub(super) fn git_blob(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitBlob(text.to_owned()))
    }

    /// What the hub and its cache call the content.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hex) => hex.as_str(),
            Self::GitBlob(hex) => hex,
        }
    }
}

/// Whether a text is so many hexadecimal digits in lower case.
pub(super) fn is_hex(text: &str, n_digits: usize) -> bool {
    text.len() == n_digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hashes content as it comes: always to SHA-256, which the record keeps, and to what is declared.
pub(super) struct Hasher {
    declared: Checksum,
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Hasher {
    pub(super) fn new(declared: &Checksum, bytes: u64) -> Self {
        let git = matches!(declared, Checksum::GitBlob(_)).then(|| Sha1::new_with_prefix(format!("blob {bytes}\0")));
        Self { declared: declared.clone(), sha256: Sha256::new(), git }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// The SHA-256, if the content is what was declared.
    pub(super) fn finish(self) -> Option<Sha256Hex> {
        let sha256 = hex(&self.sha256.finalize());
        let found = self.git.map_or_else(|| sha256.clone(), |git| hex(&git.finalize()));
        (found == self.declared.as_str()).then_some(Sha256Hex(sha256))
    }
}

/// The SHA-256 of a file that is what was declared; `None` if it is another.
pub(super) fn verify(path: &Path, declared: &Checksum, bytes: u64) -> io::Result<Option<Sha256Hex>> {
    if std::fs::metadata(path)?.len() != bytes {
        return Ok(None);
    }
    let mut hasher = Hasher::new(declared, bytes);
    read(path, u64::MAX, |chunk| hasher.update(chunk))?;
    Ok(hasher.finish())
}

/// The SHA-256 of a whole file.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    read(path, u64::MAX, |chunk| sha256.update(chunk))?;
    Ok(hex(&sha256.finalize()))
}

/// Shows at most so many bytes of a file, piece by piece; returns how many there were.
pub(super) fn read(path: &Path, bytes_max: u64, mut show: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = File::open(path)?.take(bytes_max);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut n_read = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(n_read),
            n => {
                show(&chunk[..n]);
                n_read += n as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(declared: &Checksum, content: &[u8]) -> Option<Sha256Hex> {
        let mut hasher = Hasher::new(declared, content.len() as u64);
        content.chunks(2).for_each(|chunk| hasher.update(chunk));
        hasher.finish()
    }

    #[test]
    fn content_is_known_by_sha256_and_as_git_knows_it() {
        let sha256 = Sha256Hex::parse("a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447").unwrap();
        // `echo hello world | git hash-object --stdin`
        let git = Checksum::git_blob("3b18e512dba79e4c8300dd08aeb37f8e728b8dad").unwrap();
        assert_eq!(finish(&Checksum::Sha256(sha256.clone()), b"hello world\n"), Some(sha256.clone()));
        assert_eq!(finish(&git, b"hello world\n"), Some(sha256.clone()));
        assert_eq!(finish(&git, b"hello world!"), None);
        assert_eq!(finish(&Checksum::Sha256(sha256), b"hello world"), None);
    }

    #[test]
    fn what_is_no_hash_is_none() {
        assert_eq!(Sha256Hex::parse("A948904F2F0F479B8F8197694B30184B0D2ED1C1CD2A1EC0FB85D299A192A447"), None);
        assert_eq!(Checksum::git_blob("../../../../../../../../../../../../etc/"), None);
    }
}
