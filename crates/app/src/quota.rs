//! How often one key may submit: a bucket of tokens for each, refilled evenly.

use domain::fault::{ErrorCode, Fault};
use domain::id::KeyId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Buckets live in memory: a restart forgives, and no more of them exist than there are keys.
pub struct Quota {
    per_minute: u32,
    buckets: Mutex<HashMap<KeyId, Bucket>>,
}

struct Bucket {
    tokens: f64,
    refilled: Instant,
}

impl Quota {
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.max(1), buckets: Mutex::default() }
    }

    /// Takes one token of this key, or says when there will be one.
    pub fn take(&self, key: &KeyId) -> Result<(), Fault> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: &KeyId, now: Instant) -> Result<(), Fault> {
        let full = f64::from(self.per_minute);
        let per_second = full / 60.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(key.clone()).or_insert(Bucket { tokens: full, refilled: now });
        let elapsed_s = now.saturating_duration_since(bucket.refilled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed_s * per_second).min(full);
        bucket.refilled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait_s = ((1.0 - bucket.tokens) / per_second).ceil().max(1.0) as u32;
        let detail =
            format!("more than {} submissions a minute by this key; allowed again in {wait_s} s", self.per_minute);
        Err(Fault::new(ErrorCode::RateLimited, detail).retry_after_s(wait_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_empties_refills_and_never_overflows() {
        let quota = Quota::new(2);
        let (key, other) = (KeyId::from_random([1; 8]), KeyId::from_random([2; 8]));
        let start = Instant::now();
        assert!(quota.take_at(&key, start).is_ok());
        assert!(quota.take_at(&key, start).is_ok());
        let refused = quota.take_at(&key, start).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), (ErrorCode::RateLimited, Some(30)));
        assert!(quota.take_at(&other, start).is_ok(), "another key has its own bucket");
        let half_a_minute_on = start + Duration::from_secs(30);
        assert!(quota.take_at(&key, half_a_minute_on).is_ok());
        assert!(quota.take_at(&key, half_a_minute_on).is_err());
        let much_later = start + Duration::from_hours(24);
        assert!(quota.take_at(&key, much_later).is_ok());
        assert!(quota.take_at(&key, much_later).is_ok());
        assert!(quota.take_at(&key, much_later).is_err());
    }
}
