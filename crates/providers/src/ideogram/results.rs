//! The pictures behind the links of an answer: fetched at once, since the links expire, by the guarded fetcher, since
//! whoever wrote them is a stranger.

use super::answer::Painted;
use crate::backoff::Backoff;
use engine::EngineError;
use imaging::Picture;
use ingest::{FetchError, Fetcher};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Files on their way, all at a time: there are eight at most.
pub(crate) struct Results {
    fetching: JoinSet<(usize, Result<Vec<u8>, FetchError>)>,
    /// `None` for what was withheld.
    files: Vec<Option<Vec<u8>>>,
}

impl Results {
    /// Begins to fetch.
    pub(crate) fn of(painted: &[Painted], fetcher: &Arc<Fetcher>, backoff: Backoff) -> Self {
        let mut fetching = JoinSet::new();
        for (idx, painted) in painted.iter().enumerate() {
            let Painted::At(url) = painted else { continue };
            let (fetcher, url) = (Arc::clone(fetcher), url.clone());
            fetching.spawn(async move { (idx, file_at(&url, &fetcher, backoff).await) });
        }
        Self { fetching, files: vec![None; painted.len()] }
    }

    /// Waits for one more; `false` if there is none.
    pub(crate) async fn next(&mut self) -> Result<bool, EngineError> {
        let Some(ended) = self.fetching.join_next().await else { return Ok(false) };
        let (idx, file) = ended.map_err(|_| EngineError::Failed("fetching a result failed".to_owned()))?;
        self.files[idx] = Some(file.map_err(|error| lost(&format!("could not be fetched: {error}")))?);
        Ok(true)
    }

    /// The pictures in order; `None` for what was withheld.
    pub(crate) fn pictures(self) -> Result<Vec<Option<Picture>>, EngineError> {
        let picture = |file: Vec<u8>| imaging::decode(&file).map_err(|error| lost(&format!("cannot be read: {error}")));
        self.files.into_iter().map(|file| file.map(picture).transpose()).collect()
    }
}

/// A link is asked again as often as a call: to fetch twice costs nothing.
async fn file_at(url: &str, fetcher: &Fetcher, backoff: Backoff) -> Result<Vec<u8>, FetchError> {
    let mut n_tries = 0;
    loop {
        n_tries += 1;
        match fetcher.fetch(url).await {
            Ok(fetched) => return Ok(fetched.bytes.to_vec()),
            Err(error) if n_tries < backoff.tries_max && may_pass(&error) => {
                sleep(backoff.pause(n_tries, None)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A name that is not found now may be found later, and one that may not be asked is refused again.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::UnusableHost | FetchError::Connect | FetchError::TimedOut(_) | FetchError::BadAnswer => true,
        FetchError::Status(status) => *status == 429 || *status >= 500,
        _ => false,
    }
}

fn lost(why: &str) -> EngineError {
    EngineError::Lost(format!("Ideogram has painted, but a result {why}"))
}
