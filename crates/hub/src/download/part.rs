//! A file that is on its way: the bytes so far, what they are a part of, and the thread that hashes and writes them.

use super::PlannedFile;
use super::checksum::{Hasher, Sha256Hex, read};
use super::error::PullError;
use crate::disk;
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

/// Pieces that may wait to be written; the network waits when there are more.
const PIECES_WAITING_MAX: usize = 32;

/// Where the bytes so far are, and beside them what they belong to.
#[derive(Clone, Debug)]
pub(super) struct Part {
    data: PathBuf,
    tag: PathBuf,
}

/// What the bytes so far belong to: a line with the content's hash, and one with the tag of the copy that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) content: String,
    pub(super) etag: Option<String>,
}

impl Part {
    pub(super) fn new(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(ending);
            path.with_file_name(name)
        };
        Self { data: beside(".part"), tag: beside(".tag") }
    }

    /// How much of this content is here, and which copy it came from.
    pub(super) fn have(&self, file: &PlannedFile) -> (u64, Option<String>) {
        let tag = fs::read_to_string(&self.tag).ok().and_then(|text| Tag::parse(&text));
        let tag = tag.filter(|tag| tag.content == file.checksum.as_str());
        let n_bytes = fs::metadata(&self.data).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        match (tag, n_bytes) {
            (Some(tag), Some(n_bytes)) if n_bytes <= file.bytes => (n_bytes, tag.etag),
            _ => (0, None),
        }
    }

    /// Forgets what is here.
    pub(super) fn discard(&self) -> Result<(), PullError> {
        for path in [&self.tag, &self.data] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(PullError::file(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Begins to write after the first `from` bytes, which are hashed again: a hash's state does not outlive its
    /// process. The permit is given back when the thread is done.
    pub(super) fn write(
        &self,
        file: &PlannedFile,
        from: u64,
        etag: Option<String>,
        permit: OwnedSemaphorePermit,
    ) -> Writer {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let (part, file) = (self.clone(), file.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            part.take(&file, from, etag, receiver)
        });
        Writer { sender, thread }
    }

    fn take(
        &self,
        file: &PlannedFile,
        from: u64,
        etag: Option<String>,
        mut pieces: mpsc::Receiver<Bytes>,
    ) -> Result<Written, PullError> {
        let failed = PullError::file(&self.data);
        match self.try_take(file, from, etag, &mut pieces) {
            Ok(written) => Ok(written),
            Err(error) => Err(failed(error)),
        }
    }

    fn try_take(
        &self,
        file: &PlannedFile,
        from: u64,
        etag: Option<String>,
        pieces: &mut mpsc::Receiver<Bytes>,
    ) -> io::Result<Written> {
        if let Some(dir) = self.data.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut hasher = Hasher::new(&file.checksum, file.bytes);
        let mut n_bytes = 0;
        if from > 0 {
            n_bytes = read(&self.data, from, |chunk| hasher.update(chunk))?;
        }
        let mut data = OpenOptions::new().write(true).create(true).truncate(false).open(&self.data)?;
        data.set_len(n_bytes)?;
        io::Seek::seek(&mut data, io::SeekFrom::Start(n_bytes))?;
        // After the cut: a tag never speaks for bytes that came before it.
        fs::write(&self.tag, Tag { content: file.checksum.as_str().to_owned(), etag }.to_text())?;
        while let Some(piece) = pieces.blocking_recv() {
            data.write_all(&piece)?;
            hasher.update(&piece);
            n_bytes += piece.len() as u64;
        }
        Ok(Written { data, n_bytes, hasher })
    }

    /// A verified file from elsewhere, copied as a part until it is whole.
    pub(super) fn copy(&self, from: &Path, whole: &Path) -> Result<(), PullError> {
        if let Some(dir) = self.data.parent() {
            fs::create_dir_all(dir).map_err(PullError::file(dir))?;
        }
        disk::copy(from, &self.data).map_err(PullError::file(&self.data))?;
        self.finish(whole)
    }

    /// Puts a whole part into its place. It was synced, so that a name never stands for less than the content.
    pub(super) fn finish(&self, whole: &Path) -> Result<(), PullError> {
        if let Some(dir) = whole.parent() {
            fs::create_dir_all(dir).map_err(PullError::file(dir))?;
        }
        fs::rename(&self.data, whole).map_err(PullError::file(whole))?;
        self.discard()
    }
}

impl Tag {
    fn parse(text: &str) -> Option<Self> {
        let (content, rest) = text.split_once('\n')?;
        let etag = rest.strip_suffix('\n').unwrap_or(rest);
        Some(Self { content: content.to_owned(), etag: (!etag.is_empty()).then(|| etag.to_owned()) })
    }

    fn to_text(&self) -> String {
        format!("{}\n{}\n", self.content, self.etag.as_deref().unwrap_or_default())
    }
}

/// Takes pieces in order. Dropped, it leaves on the disk what it was given.
pub(super) struct Writer {
    sender: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<Written, PullError>>,
}

/// What was written, before it is compared with what was declared.
pub(super) struct Written {
    data: File,
    pub(super) n_bytes: u64,
    hasher: Hasher,
}

impl Writer {
    /// Whether it was taken; if not, `end` says why.
    pub(super) async fn push(&self, piece: Bytes) -> bool {
        self.sender.send(piece).await.is_ok()
    }

    /// Waits until everything is written.
    pub(super) async fn end(self) -> Result<Written, PullError> {
        drop(self.sender);
        self.thread.await.expect("the writing thread does not panic, this is a bug")
    }
}

impl Written {
    /// The SHA-256 of what was written, synced, if it is what was declared.
    pub(super) fn verify(self, path: &Path) -> Result<Option<Sha256Hex>, PullError> {
        let Some(sha256) = self.hasher.finish() else { return Ok(None) };
        self.data.sync_all().map_err(PullError::file(path))?;
        Ok(Some(sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::Checksum;
    use super::*;

    fn planned(bytes: u64) -> PlannedFile {
        let git = "3b18e512dba79e4c8300dd08aeb37f8e728b8dad";
        PlannedFile { path: "a".to_owned(), bytes, checksum: Checksum::git_blob(git).unwrap() }
    }

    async fn write(part: &Part, from: u64, pieces: &[&'static [u8]]) -> Written {
        let permit = std::sync::Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
        let writer = part.write(&planned(12), from, Some("\"e\"".to_owned()), permit);
        for piece in pieces {
            assert!(writer.push(Bytes::from_static(piece)).await);
        }
        writer.end().await.unwrap()
    }

    #[tokio::test]
    async fn a_part_goes_on_where_it_ended_and_is_hashed_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::new(&dir.path().join("deep/a.json"));
        assert_eq!(part.have(&planned(12)), (0, None));
        assert_eq!(write(&part, 0, &[b"hello", b" "]).await.n_bytes, 6);
        assert_eq!(part.have(&planned(12)), (6, Some("\"e\"".to_owned())));
        let written = write(&part, 6, &[b"world\n"]).await;
        assert_eq!(written.n_bytes, 12);
        assert!(written.verify(dir.path()).unwrap().is_some());
        let whole = dir.path().join("whole/a.json");
        part.finish(&whole).unwrap();
        assert_eq!(fs::read(whole).unwrap(), b"hello world\n");
        assert_eq!(part.have(&planned(12)), (0, None));
    }

    #[tokio::test]
    async fn bytes_of_another_content_or_too_many_are_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::new(&dir.path().join("a"));
        write(&part, 0, &[b"hello"]).await;
        let other = PlannedFile { checksum: Checksum::git_blob(&"0".repeat(40)).unwrap(), ..planned(12) };
        assert_eq!(part.have(&other), (0, None));
        assert_eq!(part.have(&planned(4)), (0, None));
        assert!(write(&part, 3, &[b"p"]).await.verify(dir.path()).unwrap().is_none());
        assert_eq!(fs::read(dir.path().join("a.part")).unwrap(), b"help");
        part.discard().unwrap();
        part.discard().unwrap();
        assert_eq!(part.have(&planned(12)), (0, None));
    }
}
