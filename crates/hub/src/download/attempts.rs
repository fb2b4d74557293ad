//! Asking again: after a wait that grows, or that the hub asks for, and not forever.

use super::Patience;
use super::error::{PullError, is_passing};
use super::http::Answer;
use std::time::Duration;
use transport::retry_after;

/// What one attempt came to.
pub(super) struct Attempt<T> {
    pub(super) outcome: Result<T, Failed>,
    /// What it brought, whether or not it failed.
    pub(super) n_bytes: u64,
}

pub(super) enum Failed {
    Final(PullError),
    /// Another attempt may go better, after the wait that the hub asks for.
    Passing {
        error: PullError,
        wait: Option<Duration>,
    },
}

impl From<PullError> for Failed {
    fn from(error: PullError) -> Self {
        if error.is_passing() { Self::Passing { error, wait: None } } else { Self::Final(error) }
    }
}

impl Failed {
    /// A status that is no success; `error` is what it means if it is here to stay.
    pub(super) fn by_status(patience: &Patience, answer: &Answer, host: String, error: PullError) -> Self {
        let status = answer.status.as_u16();
        if !is_passing(status) {
            return Self::Final(error);
        }
        match retry_after(&answer.headers) {
            Some(wait) if wait > patience.retry_after_max => Self::Final(PullError::AsksToWait { host, status, wait }),
            wait => Self::Passing { error: PullError::Status { host, status }, wait },
        }
    }
}

/// Repeats an attempt while its failures pass; `retry` is told of each. An attempt that brought something begins the
/// count anew.
pub(super) async fn attempts<T>(
    patience: &Patience,
    retry: impl Fn(&PullError, Duration),
    mut attempt: impl AsyncFnMut() -> Attempt<T>,
) -> Result<T, PullError> {
    let mut n_failed = 0;
    loop {
        let Attempt { outcome, n_bytes } = attempt().await;
        let (error, wait) = match outcome {
            Ok(value) => return Ok(value),
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::Passing { error, wait }) => (error, wait),
        };
        n_failed = if n_bytes >= patience.progress_bytes { 1 } else { n_failed + 1 };
        if n_failed >= patience.attempts {
            return Err(error);
        }
        let doubled = patience.backoff_min.saturating_mul(2_u32.saturating_pow(n_failed - 1));
        let wait = wait.unwrap_or(doubled.min(patience.backoff_max));
        retry(&error, wait);
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn patience() -> Patience {
        let (backoff_min, backoff_max) = (Duration::from_millis(1), Duration::from_millis(3));
        Patience { attempts: 4, backoff_min, backoff_max, progress_bytes: 10, ..Patience::default() }
    }

    fn broken() -> PullError {
        PullError::Broken { host: "h".to_owned() }
    }

    /// The waits, in milliseconds, when every attempt fails and brings so much.
    async fn waits(brought: &[u64]) -> Vec<u128> {
        let (waits, mut brought) = (RefCell::new(Vec::new()), brought.iter().copied());
        let retry = |_: &PullError, wait: Duration| waits.borrow_mut().push(wait.as_millis());
        let attempt = async || Attempt::<()> { outcome: Err(broken().into()), n_bytes: brought.next().unwrap_or(0) };
        assert!(attempts(&patience(), retry, attempt).await.is_err());
        waits.into_inner()
    }

    #[tokio::test]
    async fn waits_grow_to_a_limit_and_attempts_end() {
        assert_eq!(waits(&[]).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn an_attempt_that_brought_something_begins_the_count_anew() {
        assert_eq!(waits(&[0, 0, 10, 9]).await, [1, 2, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_final_failure_is_not_repeated() {
        let n_asked = RefCell::new(0);
        let attempt = async || {
            *n_asked.borrow_mut() += 1;
            Attempt::<()> { outcome: Err(PullError::Tls { host: "h".to_owned() }.into()), n_bytes: 0 }
        };
        assert!(matches!(attempts(&patience(), |_, _| {}, attempt).await, Err(PullError::Tls { .. })));
        assert_eq!(n_asked.into_inner(), 1);
    }
}
