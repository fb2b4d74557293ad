//! How long to wait before asking again.

use std::time::Duration;

/// Pauses between the tries of one call.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// How often a call is tried in all.
    pub tries_max: u32,
    /// Before the second try; doubled for each further one.
    pub first: Duration,
    pub max: Duration,
    /// The longest that a `Retry-After` is obeyed.
    pub asked_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            tries_max: 4,
            first: Duration::from_secs(1),
            max: Duration::from_secs(30),
            asked_max: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The pause after this try, the first being 1: half of it by plan, half by chance, so that callers who were turned
    /// away together do not come back together; and never less than the host asked for, up to the limit.
    pub(crate) fn pause(&self, n_tries: u32, asked: Option<Duration>) -> Duration {
        let doublings = n_tries.saturating_sub(1).min(16);
        let planned = self.first.saturating_mul(1 << doublings).min(self.max);
        let pause = planned.mul_f64(0.5 + 0.5 * chance());
        pause.max(asked.unwrap_or_default().min(self.asked_max))
    }
}

/// 0 to 1. A machine without random numbers waits like all others of its kind, which is no reason to fail.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_differ() {
        let backoff = Backoff::default();
        for (n_tries, planned) in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 30.0), (u32::MAX, 30.0)] {
            for _ in 0..50 {
                let pause = backoff.pause(n_tries, None).as_secs_f64();
                assert!((planned / 2.0..=planned).contains(&pause), "{n_tries}: {pause}");
            }
        }
        assert_ne!(backoff.pause(6, None), backoff.pause(6, None));
    }

    #[test]
    fn what_the_host_asks_for_is_the_least_up_to_a_limit() {
        let backoff = Backoff::default();
        let pause = |asked| backoff.pause(1, Some(Duration::from_secs(asked))).as_secs_f64();
        assert!((0.5..=1.0).contains(&pause(0)));
        assert!((7.0 - pause(7)).abs() < 1e-9);
        assert!((60.0 - pause(86_400)).abs() < 1e-9);
    }
}
