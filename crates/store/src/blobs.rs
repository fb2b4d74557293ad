//! Files behind the `object_store` crate: a folder of this machine, or memory for tests.

use crate::contract::{BlobInfo, BlobStore, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::BlobKey;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// Files by their keys, each in one of 256 folders, so that no folder grows too large to list.
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

impl Blobs {
    /// Files in an existing folder, which no other process writes to. A file is written beside its place, synced,
    /// renamed, and its folder synced; what a killed process had not renamed is deleted.
    pub fn local(dir: &Path) -> Result<Self, StoreError> {
        delete_half_written(dir).map_err(|error| StoreError::Blobs(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(dir).map_err(failed)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// Files that die with the process.
    pub fn memory() -> Self {
        Self { store: Arc::new(InMemory::new()) }
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn put(&self, key: &BlobKey, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(&place(key), bytes.into()).await.map_err(failed)?;
        Ok(())
    }

    async fn get(&self, key: &BlobKey) -> Result<Option<Bytes>, StoreError> {
        let found = match self.store.get(&place(key)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match found.bytes().await {
            Ok(bytes) => Ok(Some(bytes)),
            // Deleted between the look and the read.
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn look(&self, key: &BlobKey) -> Result<Option<BlobInfo>, StoreError> {
        match self.store.head(&place(key)).await {
            Ok(meta) => Ok(Some(BlobInfo { stored_ms: meta.last_modified.timestamp_millis(), n_bytes: meta.size })),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn put_before(&self, ms: i64) -> Result<Vec<BlobKey>, StoreError> {
        let mut files = self.store.list(None);
        let mut old = Vec::new();
        while let Some(file) = files.try_next().await.map_err(failed)? {
            if file.last_modified.timestamp_millis() < ms {
                old.extend(file.location.filename().and_then(BlobKey::parse));
            }
        }
        Ok(old)
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), StoreError> {
        match self.store.delete(&place(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// `object_store` writes to `NAME#1`, `NAME#2`, …; keys have no `#`.
fn delete_half_written(dir: &Path) -> io::Result<()> {
    for shard in fs::read_dir(dir)? {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(shard.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

fn place(key: &BlobKey) -> ObjectPath {
    let shard = Sha256::digest(key.as_str())[0];
    ObjectPath::from_iter([format!("{shard:02x}").as_str(), key.as_str()])
}

fn failed(error: Error) -> StoreError {
    StoreError::Blobs(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn key(text: &str) -> BlobKey {
        BlobKey::parse(text).unwrap()
    }

    async fn check(blobs: &Blobs) {
        let name = key("r-0123.png");
        assert_eq!(blobs.get(&name).await.unwrap(), None);
        blobs.delete(&name).await.unwrap();
        assert_eq!(blobs.look(&name).await.unwrap(), None);
        blobs.put(&name, Bytes::from_static(b"first")).await.unwrap();
        blobs.put(&name, Bytes::from_static(b"second")).await.unwrap();
        blobs.put(&key("other"), Bytes::new()).await.unwrap();
        assert_eq!(blobs.get(&name).await.unwrap(), Some(Bytes::from_static(b"second")));
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let BlobInfo { stored_ms, n_bytes } = blobs.look(&name).await.unwrap().unwrap();
        assert_eq!(n_bytes, 6);
        assert!((now_ms - stored_ms).abs() < 60_000, "{stored_ms} is not about {now_ms}");
        assert!(blobs.put_before(now_ms - 60_000).await.unwrap().is_empty());
        let mut old = blobs.put_before(now_ms + 60_000).await.unwrap();
        old.sort();
        assert_eq!(old, [key("other"), name.clone()]);
        blobs.delete(&name).await.unwrap();
        assert_eq!(blobs.get(&name).await.unwrap(), None);
        assert_eq!(blobs.get(&key("other")).await.unwrap(), Some(Bytes::new()));
    }

    #[tokio::test]
    async fn files_come_and_go_in_a_folder_and_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        check(&Blobs::local(dir.path()).unwrap()).await;
        check(&Blobs::memory()).await;
    }

    #[tokio::test]
    async fn a_folder_keeps_its_files_and_not_the_halves_of_others() {
        let dir = tempfile::tempdir().unwrap();
        Blobs::local(dir.path()).unwrap().put(&key("a"), Bytes::from_static(b"kept")).await.unwrap();
        let shard = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        fs::write(shard.join("b#1"), "ha").unwrap();
        let reopened = Blobs::local(dir.path()).unwrap();
        assert_eq!(reopened.get(&key("a")).await.unwrap(), Some(Bytes::from_static(b"kept")));
        assert_eq!(fs::read_dir(shard).unwrap().count(), 1, "nobody will finish the other");
    }
}
