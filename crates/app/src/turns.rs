//! Turns of keys at what is scarce while a picture comes in: memory and decoders. A key waits for others once, and not for
//! all that they have sent.

use domain::id::KeyId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Submissions of one key whose pictures are being fetched, checked and stored at a time. With two of the largest pictures
/// each they leave three eighths of the memory for all to others.
const PREPARED_AT_A_TIME: usize = 8;

pub(crate) struct Turns {
    decoders: Arc<Semaphore>,
    /// Of each key that waits or has a turn.
    own: Mutex<HashMap<KeyId, Weak<Own>>>,
}

struct Own {
    preparing: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
}

/// Ends when it is dropped.
pub(crate) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
    /// Others of the key count by the same.
    _own: Arc<Own>,
}

impl Turns {
    pub(crate) fn new(n_decoders: usize) -> Self {
        Self { decoders: Arc::new(Semaphore::new(n_decoders)), own: Mutex::default() }
    }

    /// A turn at bringing the pictures of one submission.
    pub(crate) async fn to_prepare(&self, key: &KeyId) -> Result<Turn, AcquireError> {
        let own = self.of(key);
        Ok(Turn { _permits: vec![own.preparing.clone().acquire_owned().await?], _own: own })
    }

    /// A turn at decoding a picture. The key's own comes first: in the line for all, each key stands once.
    pub(crate) async fn to_decode(&self, key: &KeyId) -> Result<Turn, AcquireError> {
        let own = self.of(key);
        let alone = own.decoding.clone().acquire_owned().await?;
        let decoder = self.decoders.clone().acquire_owned().await?;
        Ok(Turn { _permits: vec![decoder, alone], _own: own })
    }

    fn of(&self, key: &KeyId) -> Arc<Own> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = own.get(key).and_then(Weak::upgrade) {
            return there;
        }
        own.retain(|_, own| own.strong_count() > 0);
        let semaphore = |n_permits| Arc::new(Semaphore::new(n_permits));
        let new = Arc::new(Own { preparing: semaphore(PREPARED_AT_A_TIME), decoding: semaphore(1) });
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
        let first = turns.to_decode(&busy).await.unwrap();
        for key in [&busy, &busy, &busy, &other] {
            let (turns, key, done) = (turns.clone(), key.clone(), done.clone());
            tokio::spawn(async move {
                let turn = turns.to_decode(&key).await.unwrap();
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
        drop(turns.to_decode(&KeyId::from_random([3; 8])).await);
        assert_eq!(turns.own.lock().unwrap().len(), 1, "keys that neither wait nor decode are forgotten");
    }

    #[tokio::test]
    async fn a_key_prepares_so_many_at_a_time_and_keeps_nobody_else_waiting() {
        let turns = Turns::new(1);
        let (busy, other) = (KeyId::from_random([1; 8]), KeyId::from_random([2; 8]));
        let mut held = Vec::new();
        for _ in 0..PREPARED_AT_A_TIME {
            held.push(turns.to_prepare(&busy).await.unwrap());
        }
        let mut next = Box::pin(turns.to_prepare(&busy));
        assert!(is_pending(&mut next).await);
        turns.to_prepare(&other).await.unwrap();
        held.pop();
        next.await.unwrap();
    }

    async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
