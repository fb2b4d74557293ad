//! Results by their unguessable names, until they expire.

use crate::submit::SOURCE_PREFIX;
use crate::{App, now_ms, store_failed};
use bytes::Bytes;
use domain::fault::{ErrorCode, Fault};
use domain::id::BlobKey;
use domain::memory::Held;
use store::contract::BlobInfo;

/// A finished picture or its thumbnail.
pub struct ResultFile {
    /// They count as being sent until the last handle to them is dropped.
    pub bytes: Bytes,
    pub media_type: &'static str,
    /// Seconds from now until it expires.
    pub max_age_s: u64,
}

impl App {
    /// Whoever knows the name may have the picture; there is nothing else to check.
    pub async fn result(&self, name: &str) -> Result<ResultFile, Fault> {
        let key =
            BlobKey::parse(name).filter(|key| !key.as_str().starts_with(SOURCE_PREFIX)).ok_or_else(no_such_file)?;
        let media_type = media_type(key.as_str()).ok_or_else(no_such_file)?;
        let blobs = &self.inner.stores.blobs;
        let BlobInfo { stored_ms, n_bytes } = blobs.look(&key).await.map_err(store_failed)?.ok_or_else(no_such_file)?;
        let keep_ms = i64::try_from(self.inner.config.keep_results.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = stored_ms.saturating_add(keep_ms);
        let left_ms = expires_ms.saturating_sub(now_ms());
        if left_ms <= 0 {
            return Err(no_such_file());
        }
        // Taken before the file is read: slow clients may hold many of them for long.
        let mut memory = self.results_memory.share();
        memory.grow_to(usize::try_from(n_bytes).unwrap_or(usize::MAX)).map_err(|_| crowded())?;
        let bytes = blobs.get(&key).await.map_err(store_failed)?.ok_or_else(no_such_file)?;
        let bytes = Bytes::from_owner(Held::new(bytes, memory));
        Ok(ResultFile { bytes, media_type, max_age_s: (left_ms / 1000).unsigned_abs() })
    }
}

fn no_such_file() -> Fault {
    Fault::new(ErrorCode::NotFound, "no result has this name, or it has expired")
}

fn crowded() -> Fault {
    Fault::new(ErrorCode::Unavailable, "too many results are being sent at once; try again").retry_after_s(1)
}

fn media_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        _ => None,
    }
}
