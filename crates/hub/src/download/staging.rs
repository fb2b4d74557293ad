//! The folders of a pull: where files wait until all are verified, and the model's own, where they go together.

use super::checksum::Sha256Hex;
use super::error::PullError;
use super::part::Part;
use super::transfer::Fetched;
use super::{DISK_RESERVE_BYTES, PARALLEL_MAX, Plan, PlannedFile};
use crate::disk;
use crate::installed::INDEX_FILE;
use crate::record::{RECORD_FILE, Record, RecordedFile};
use domain::id::ModelId;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Below the folder of weights; no model can have this name.
pub(super) const PULL_DIR: &str = ".pull";

/// One model's waiting room, locked against other pulls of it.
pub(super) struct Staging {
    weights: PathBuf,
    dir: PathBuf,
    _lock: Lock,
    writers: Arc<Semaphore>,
}

/// Held while it lives; the system lets go of it when the process dies.
struct Lock(File);

impl Lock {
    fn take(weights: &Path, model: &ModelId) -> Result<Self, PullError> {
        let dir = weights.join(PULL_DIR);
        fs::create_dir_all(&dir).map_err(PullError::file(&dir))?;
        let path = dir.join(format!("{model}.lock"));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(PullError::file(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(PullError::InUse(model.to_string())),
            Err(TryLockError::Error(error)) => Err(PullError::File(path, error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child, just forked and not yet another program, has the same file open.
        let _ = self.0.unlock();
    }
}

impl Staging {
    pub(super) fn open(plan: &Plan, weights: &Path) -> Result<Self, PullError> {
        if weights.join(INDEX_FILE).is_file() {
            return Err(PullError::ModelFolder(weights.to_owned()));
        }
        let lock = Lock::take(weights, &plan.model)?;
        let dir = dir_of(&plan.model, weights);
        fs::create_dir_all(&dir).map_err(PullError::file(&dir))?;
        let writers = Arc::new(Semaphore::new(PARALLEL_MAX));
        Ok(Self { weights: weights.to_owned(), dir, _lock: lock, writers })
    }

    /// Of the disk where files wait, and of the one where they go, if that is another.
    pub(super) fn check_space(&self, target: &Target, bytes: u64) -> Result<(), PullError> {
        let needed = bytes + DISK_RESERVE_BYTES;
        // Nothing is known of a folder that is yet to be made; it will be on the disk of the first.
        for dir in [&self.weights, &target.dir] {
            match disk::free_bytes(dir) {
                Some(free) if bytes > 0 && free < needed => {
                    return Err(PullError::NoSpace { dir: dir.clone(), needed, free });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a verified file waits.
    pub(super) fn whole(&self, file: &PlannedFile) -> PathBuf {
        whole_path(&self.dir, file)
    }

    pub(super) fn part(&self, file: &PlannedFile) -> Part {
        Part::new(&part_path(&self.dir, file))
    }

    /// Held by a thread that writes.
    pub(super) async fn writer(&self) -> OwnedSemaphorePermit {
        let permit = self.writers.clone().acquire_owned().await;
        permit.expect("the semaphore is never closed, this is a bug")
    }

    /// Waits until nobody writes any more: a transfer that was given up leaves its thread behind for a moment.
    pub(super) async fn settle(&self) {
        // Cannot fail: the semaphore is never closed.
        let _ = self.writers.acquire_many(PARALLEL_MAX as u32).await;
    }

    /// Puts the verified files into the model's folder. It counts as whole only after the last of them.
    pub(super) fn install(&self, plan: &Plan, target: &Target, fetched: &[Fetched]) -> Result<(), PullError> {
        let dir = &target.dir;
        fs::create_dir_all(dir).map_err(PullError::file(dir))?;
        let mut record = record(plan, target, fetched);
        record.write(dir).map_err(PullError::file(dir))?;
        for fetched in fetched.iter().filter(|fetched| !fetched.is_in_place) {
            let file = &plan.files[fetched.file];
            let place = dir.join(&file.path);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(PullError::file(parent))?;
            }
            put(&self.whole(file), &place).map_err(PullError::file(&place))?;
        }
        for path in target.superfluous(plan) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(PullError::File(path, error)),
                _ => {}
            }
        }
        record.complete = true;
        record.write(dir).map_err(PullError::file(dir))?;
        // Nothing in it is of use any more; a pull that finds leftovers ignores them.
        let _ = fs::remove_dir_all(&self.dir);
        Ok(())
    }
}

/// The folder that the model is for.
pub(super) struct Target {
    dir: PathBuf,
    state: State,
    /// All that the plan asks for is there.
    complete: bool,
}

enum State {
    Absent,
    /// A pull made it.
    Ours(Record),
    /// Somebody else put it there.
    Foreign,
}

/// What the folder has under a file's name.
pub(super) enum Found {
    Nothing,
    /// This file, by the word of the record.
    Recorded(Sha256Hex),
    /// A file of its size.
    Likely(PathBuf),
    Other,
}

impl Target {
    pub(super) fn look(plan: &Plan, weights: &Path) -> Self {
        let dir = weights.join(plan.model.as_str());
        let state = match Record::read(&dir) {
            Ok(Some(record)) => State::Ours(record),
            // Also with a record that cannot be read: then nothing is known of it.
            _ if dir.exists() => State::Foreign,
            _ => State::Absent,
        };
        let complete = match &state {
            State::Ours(record) => {
                let same = |(file, recorded): (&PlannedFile, &RecordedFile)| {
                    file.path == recorded.path && file.checksum.as_str() == recorded.content
                };
                let n_files = record.files.len() == plan.files.len();
                n_files && plan.files.iter().zip(&record.files).all(same) && record.is_whole(&dir)
            }
            State::Absent | State::Foreign => false,
        };
        Self { dir, state, complete }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether what is not ours may be written over.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.state, State::Foreign)
    }

    pub(super) fn find(&self, file: &PlannedFile) -> Found {
        let path = self.dir.join(&file.path);
        let Ok(found) = fs::metadata(&path) else { return Found::Nothing };
        if !found.is_file() || found.len() != file.bytes {
            return Found::Other;
        }
        match self.recorded(file) {
            Some(sha256) => Found::Recorded(sha256),
            None => Found::Likely(path),
        }
    }

    /// The word of a record is taken for files that it says are in their places.
    fn recorded(&self, file: &PlannedFile) -> Option<Sha256Hex> {
        let State::Ours(record) = &self.state else { return None };
        let recorded = record.files.iter().find(|recorded| recorded.path == file.path)?;
        let is_same = record.complete && recorded.content == file.checksum.as_str() && recorded.bytes == file.bytes;
        is_same.then(|| Sha256Hex::parse(&recorded.sha256)).flatten()
    }

    /// Whether a file that lies in its place was there before any pull.
    fn was_there(&self, path: &str) -> bool {
        match &self.state {
            State::Absent => false,
            State::Foreign => true,
            State::Ours(record) => record.files.iter().any(|file| file.path == path && file.was_there),
        }
    }

    /// What an earlier pull brought and this plan has no use for.
    fn superfluous(&self, plan: &Plan) -> Vec<PathBuf> {
        let State::Ours(record) = &self.state else { return Vec::new() };
        let is_planned = |path: &str| plan.files.iter().any(|file| file.path == path);
        let old = record.brought().filter(|file| !is_planned(&file.path));
        old.map(|file| self.dir.join(&file.path)).collect()
    }
}

/// The size of what waits under a file's name.
pub(super) fn whole_bytes(plan: &Plan, weights: &Path, file: &PlannedFile) -> Option<u64> {
    let found = fs::metadata(whole_path(&dir_of(&plan.model, weights), file)).ok()?;
    found.is_file().then_some(found.len())
}

/// How much of a file has arrived before.
pub(super) fn part_bytes(plan: &Plan, weights: &Path, file: &PlannedFile) -> u64 {
    Part::new(&part_path(&dir_of(&plan.model, weights), file)).have(file).0
}

/// Whether a pull of this model has begun and not ended.
pub fn has_begun(weights: &Path, model: &ModelId) -> bool {
    dir_of(model, weights).is_dir()
}

/// Takes away what pulls of this model have brought, and nothing else. Returns how many bytes that were.
pub fn remove(weights: &Path, model: &ModelId) -> Result<u64, PullError> {
    let _lock = Lock::take(weights, model)?;
    let (dir, waiting) = (weights.join(model.as_str()), dir_of(model, weights));
    let record = Record::read(&dir).ok().flatten();
    if record.is_none() && !waiting.is_dir() {
        return Err(PullError::NotPulled(dir));
    }
    let mut n_bytes = 0;
    if waiting.is_dir() {
        n_bytes += bytes_below(&waiting);
        fs::remove_dir_all(&waiting).map_err(PullError::file(&waiting))?;
    }
    if let Some(mut record) = record {
        // From here on nobody takes the model for whole.
        record.complete = false;
        record.write(&dir).map_err(PullError::file(&dir))?;
        for file in record.brought() {
            let path = dir.join(&file.path);
            match fs::remove_file(&path) {
                Ok(()) => n_bytes += file.bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(PullError::File(path, error)),
            }
            // A folder stays while there is something of somebody else's in it.
            let _ = path.parent().map(fs::remove_dir);
        }
        let path = dir.join(RECORD_FILE);
        fs::remove_file(&path).map_err(PullError::file(&path))?;
        let _ = fs::remove_dir(&dir);
    }
    Ok(n_bytes)
}

/// Gives a file its place; on another disk by a copy, which has the place's name only when it is whole.
fn put(from: &Path, place: &Path) -> io::Result<()> {
    match fs::rename(from, place) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        done => return done,
    }
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let copy = place.with_file_name(name);
    let moved = disk::copy(from, &copy).and_then(|()| fs::rename(&copy, place));
    moved.inspect_err(|_| _ = fs::remove_file(&copy))?;
    fs::remove_file(from)
}

/// What the files in a folder and in those below it take.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

fn dir_of(model: &ModelId, weights: &Path) -> PathBuf {
    weights.join(PULL_DIR).join(format!("{model}.pull"))
}

fn whole_path(dir: &Path, file: &PlannedFile) -> PathBuf {
    dir.join("whole").join(&file.path)
}

fn part_path(dir: &Path, file: &PlannedFile) -> PathBuf {
    dir.join("parts").join(&file.path)
}

fn record(plan: &Plan, target: &Target, fetched: &[Fetched]) -> Record {
    let file = |(idx, file): (usize, &PlannedFile)| {
        let fetched = fetched.iter().find(|fetched| fetched.file == idx);
        let fetched = fetched.expect("every planned file was fetched, this is a bug");
        RecordedFile {
            path: file.path.clone(),
            bytes: file.bytes,
            content: file.checksum.as_str().to_owned(),
            sha256: fetched.sha256.to_string(),
            was_there: fetched.is_in_place && target.was_there(&file.path),
        }
    };
    Record {
        repository: plan.repository.clone(),
        revision: plan.revision.clone(),
        commit: plan.commit.clone(),
        complete: false,
        files: plan.files.iter().enumerate().map(file).collect(),
    }
}
