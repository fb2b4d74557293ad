//! Whether the stores take what work writes. Anybody may ask, so that it is tried once a second at most.

use bytes::Bytes;
use domain::id::BlobKey;
use std::time::{Duration, Instant};
use store::contract::{StoreError, Stores};
use tokio::sync::Mutex;

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(1);
/// A file that belongs to no task; one that is left behind is swept up.
const TRIAL: &str = "ready-trial.png";

/// Remembers the last trial: when it ended, and whether it went well. Who asks during one waits for it.
#[derive(Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, bool)>>,
}

impl Readiness {
    pub(crate) async fn check(&self, stores: &Stores) -> bool {
        let mut last = self.last.lock().await;
        match *last {
            Some((at, is_fine)) if at.elapsed() < HOLDS => is_fine,
            _ => {
                let trial = try_to_write(stores).await;
                if let Err(error) = &trial {
                    tracing::error!(%error, "nothing can be written");
                }
                *last = Some((Instant::now(), trial.is_ok()));
                trial.is_ok()
            }
        }
    }
}

async fn try_to_write(stores: &Stores) -> Result<(), StoreError> {
    let key = BlobKey::parse(TRIAL).expect("a valid key, this is a bug");
    stores.tasks.try_to_write().await?;
    stores.blobs.put(&key, Bytes::from_static(b"ready")).await?;
    stores.blobs.delete(&key).await
}
