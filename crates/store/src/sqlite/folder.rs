//! The data folder: where its parts lie, who may read them, and the lock that keeps a second server out.

use crate::contract::StoreError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const DATABASE: &str = "pentimento.db";
const LOCK: &str = "server.lock";
const BLOBS: &str = "blobs";

/// An existing folder. What is created in it can be read by its owner alone.
pub(super) struct DataFolder {
    dir: PathBuf,
}

/// Held while it lives; the system lets go of it when the process dies.
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child, just forked and not yet another program, has the same file open.
        let _ = self.file.unlock();
    }
}

impl DataFolder {
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        create_private_dir(dir).map_err(|error| StoreError::Folder(dir.to_owned(), error))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Makes nothing; the folder may be missing.
    pub(super) fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.dir.join(LOCK);
        let file = private_file(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|error| StoreError::Folder(path.clone(), error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(self.dir.clone())),
            Err(TryLockError::Error(error)) => Err(StoreError::Folder(path, error)),
        }
    }

    /// The database's path. A new file is made here, for its owner alone: SQLite gives its companions the same mode.
    pub(super) fn database(&self) -> Result<PathBuf, StoreError> {
        if let Some(path) = self.existing_database()? {
            return Ok(path);
        }
        let path = self.dir.join(DATABASE);
        // Never opens an existing file: closing it again would drop the locks that SQLite holds in this process.
        match private_file(OpenOptions::new().write(true).create_new(true)).open(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(error) => Err(StoreError::Folder(path, error)),
        }
    }

    /// Where the database is, if something was ever written into one.
    ///
    /// # Errors
    /// [`StoreError::Forgotten`] where it is gone and its files are not.
    pub(super) fn existing_database(&self) -> Result<Option<PathBuf>, StoreError> {
        let (database, files) = (self.dir.join(DATABASE), self.dir.join(BLOBS));
        match fs::metadata(&database) {
            Ok(file) if file.len() > 0 => Ok(Some(database)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Folder(database, error)),
            _ if has_files(&files) => Err(StoreError::Forgotten { database, files }),
            _ => Ok(None),
        }
    }

    pub(super) fn blobs(&self) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(BLOBS);
        let made = create_private_dir(&path).and_then(|()| make_private(&path));
        made.map_err(|error| StoreError::Folder(path.clone(), error))?;
        Ok(path)
    }
}

/// Leaves the mode of a folder that exists alone: it may be somebody's home.
fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// A folder that is ours alone may have come from a backup, open to everybody.
fn make_private(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Whether any of the folder's folders has a file.
fn has_files(dir: &Path) -> bool {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    entries(dir).any(|shard| entries(&shard.path()).next().is_some())
}

fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_keeps_others_out_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::create(&dir.path().join("data")).unwrap();
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(StoreError::InUse(_))));
        // Open in two places, as between a fork and its exec.
        let _inherited = held.file.try_clone().unwrap();
        drop(held);
        assert!(folder.lock().is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_created_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep").join("data");
        let folder = DataFolder::create(&data).unwrap();
        let _held = folder.lock().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&folder.blobs().unwrap())), (0o700, 0o700));
        assert_eq!((mode(&folder.database().unwrap()), mode(&data.join(LOCK))), (0o600, 0o600));
        std::fs::set_permissions(data.join(BLOBS), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(mode(&folder.blobs().unwrap()), 0o700, "also where it was open before");
    }

    #[test]
    fn a_database_that_was_lost_is_not_taken_for_new() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::create(dir.path()).unwrap();
        let shard = folder.blobs().unwrap().join("7f");
        fs::create_dir(&shard).unwrap();
        let path = folder.database().unwrap();
        fs::write(shard.join("r-0123.png"), "a picture").unwrap();
        for lost in [&|| fs::write(&path, ""), &|| fs::remove_file(&path)] as [&dyn Fn() -> io::Result<()>; 2] {
            lost().unwrap();
            let error = folder.database().unwrap_err();
            assert!(matches!(error, StoreError::Forgotten { .. }), "{error}");
            assert!(error.to_string().contains("pentimento.db is missing or empty"), "{error}");
        }
        assert!(!path.exists(), "a backup can be put in its place");
        fs::write(&path, "a database").unwrap();
        assert_eq!(folder.database().unwrap(), path);
    }

    #[test]
    fn a_file_in_the_folder_s_place_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let Err(error) = DataFolder::create(&path) else { panic!("took a file for a folder") };
        assert!(error.to_string().contains("file"), "{error}");
    }
}
