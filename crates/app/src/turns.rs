//! Turns at decoding pictures: a few at a time, and keys one after the other, so that none waits for all that another
//! has sent.

use domain::id::KeyId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// One turn for each key that waits or decodes.
    own: Mutex<HashMap<KeyId, Weak<Semaphore>>>,
}

/// Ends when it is dropped.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(n_at_a_time: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(n_at_a_time)), own: Mutex::default() }
    }

    /// Waits for the key's own turn first: in the line for all, each key stands once.
    pub(crate) async fn next(&self, key: &KeyId) -> Result<Turn, AcquireError> {
        let own = self.of(key).acquire_owned().await?;
        Ok(Turn { _own: own, _of_all: self.all.clone().acquire_owned().await? })
    }

    fn of(&self, key: &KeyId) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = own.get(key).and_then(Weak::upgrade) {
            return there;
        }
        own.retain(|_, turn| turn.strong_count() > 0);
        let new = Arc::new(Semaphore::new(1));
        own.insert(key.clone(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_key_waits_for_one_turn_of_another_and_not_for_all_that_it_wants() {
        let turns = Arc::new(Turns::new(1));
        let (busy, other) = (KeyId::from_random([1; 8]), KeyId::from_random([2; 8]));
        let (done, mut order) = mpsc::unbounded_channel();
        let first = turns.next(&busy).await.unwrap();
        for key in [&busy, &busy, &busy, &other] {
            let (turns, key, done) = (turns.clone(), key.clone(), done.clone());
            tokio::spawn(async move {
                let turn = turns.next(&key).await.unwrap();
                done.send(key).unwrap();
                drop(turn);
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(order.recv().await.unwrap());
        }
        assert!(got[..2].contains(&other), "{got:?}");
        assert!(turns.own.lock().unwrap().len() <= 2);
        drop(turns.next(&KeyId::from_random([3; 8])).await);
        assert_eq!(turns.own.lock().unwrap().len(), 1, "keys that neither wait nor decode are forgotten");
    }
}
