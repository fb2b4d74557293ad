//! Memory that many share: each takes more as it grows, and is refused, not kept waiting, once all of it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes for all. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

/// What one holder has of a [`Budget`]; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

/// Bytes and their share of the memory, which is given back with them.
#[derive(Debug)]
pub struct Held<T> {
    bytes: T,
    memory: Share,
}

/// All of the budget is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// A share of no bytes yet.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    pub fn bytes_left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Holds so many bytes in all from now on; a share that holds as many already stays as it is.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        let take = |left: usize| left.checked_sub(more);
        self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| Exhausted)?;
        self.bytes += more;
        Ok(())
    }
}

impl<T: AsRef<[u8]>> Held<T> {
    /// The share holds at least as many bytes.
    pub fn new(bytes: T, memory: Share) -> Self {
        Self { bytes, memory }
    }
}

impl Held<Vec<u8>> {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn extend(&mut self, more: &[u8]) -> Result<(), Exhausted> {
        self.memory.grow_to(self.bytes.len() + more.len())?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_have_a_limit() {
        let budget = Budget::new(4000);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow_to(1).unwrap();
        first.grow_to(3000).unwrap();
        first.grow_to(2000).unwrap();
        second.grow_to(1000).unwrap();
        assert_eq!((second.grow_to(1001), budget.bytes_left()), (Err(Exhausted), 0));
        drop(first);
        second.grow_to(4000).unwrap();
        drop(second);
        assert_eq!(budget.bytes_left(), 4000);
    }

    #[test]
    fn held_bytes_give_their_share_back() {
        let budget = Budget::new(4);
        let mut held = Held::new(Vec::new(), budget.share());
        held.extend(b"abc").unwrap();
        assert_eq!(held.extend(b"de"), Err(Exhausted));
        assert_eq!((held.as_ref(), budget.bytes_left()), (&b"abc"[..], 1));
        drop(held);
        assert_eq!(budget.bytes_left(), 4);
    }
}
