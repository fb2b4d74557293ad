//! What was computed of prompts and of pictures, kept for the next run that asks for the same: in memory alone, under a
//! budget of its own. What was used longest ago leaves. Inputs are known by their SHA-256, and not kept themselves.

use candle_core::Tensor;
use imaging::Picture;
use nn::Result;
use sha2::{Digest, Sha256};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that an entry takes beside what it keeps.
const ENTRY_BYTES: u64 = 256;

/// What a [`Cache`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Questions that it answered.
    pub n_hits: u64,
    /// Questions whose answer had to be computed.
    pub n_misses: u64,
    /// Bytes that it holds.
    pub bytes: u64,
}

/// Kept results. With a budget of 0 it keeps nothing, and hashes nothing.
pub(crate) struct Cache {
    budget: u64,
    state: Mutex<State>,
}

/// What can be kept; cheap to clone.
pub(crate) trait Kept: Clone + Send + Sync + 'static {
    fn bytes(&self) -> u64;

    /// The same without what it is a part of: a row of a tensor would keep the whole tensor in memory.
    fn alone(&self) -> Result<Self>;
}

/// Everything that decides a result.
pub(crate) struct Fingerprint(Sha256);

type Key = [u8; 32];

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Keys by the time of their last use.
    order: BTreeMap<u64, Key>,
    /// Counts uses.
    clock: u64,
    told: CacheUse,
}

struct Entry {
    value: Arc<dyn Any + Send + Sync>,
    bytes: u64,
    used: u64,
}

impl Cache {
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, state: Mutex::default() }
    }

    /// What was kept under this fingerprint, or else what is computed now. `what` says which result of the inputs it is;
    /// two kinds of result never have the same name.
    pub(crate) fn get_or<T: Kept>(
        &self,
        what: &'static str,
        inputs: impl FnOnce(Fingerprint) -> Fingerprint,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.budget == 0 {
            return compute();
        }
        let key = inputs(Fingerprint(Sha256::new()).text(what)).0.finalize().into();
        let kept = self.state().get(key).and_then(|value| value.downcast_ref::<T>().cloned());
        tracing::debug!(cache.what = what, cache.hit = kept.is_some(), "looked into the cache");
        if let Some(kept) = kept {
            return Ok(kept);
        }
        // Others may look meanwhile; whoever computes the same does so twice, to the same result.
        let value = compute()?.alone()?;
        let bytes = value.bytes().saturating_add(ENTRY_BYTES);
        self.state().put(key, Arc::new(value.clone()), bytes, self.budget);
        Ok(value)
    }

    pub(crate) fn told(&self) -> CacheUse {
        self.state().told
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held but for want of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&mut self, key: Key) -> Option<Arc<dyn Any + Send + Sync>> {
        let Some(entry) = self.entries.get_mut(&key) else {
            self.told.n_misses += 1;
            return None;
        };
        self.told.n_hits += 1;
        self.clock += 1;
        self.order.remove(&entry.used);
        self.order.insert(self.clock, key);
        entry.used = self.clock;
        Some(Arc::clone(&entry.value))
    }

    /// What is larger than the whole budget is not kept.
    fn put(&mut self, key: Key, value: Arc<dyn Any + Send + Sync>, bytes: u64, budget: u64) {
        self.remove(&key);
        if bytes > budget {
            return;
        }
        while self.told.bytes + bytes > budget {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            self.remove(&oldest.clone());
        }
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.entries.insert(key, Entry { value, bytes, used: self.clock });
        self.told.bytes += bytes;
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.told.bytes -= entry.bytes;
        }
    }
}

/// Each part is framed by its length, so that no two lists of parts read alike.
impl Fingerprint {
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(self, number: usize) -> Self {
        self.bytes(&(number as u64).to_le_bytes())
    }

    pub(crate) fn tokens(self, tokens: &[u32]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    pub(crate) fn picture(self, picture: &Picture) -> Self {
        let size = picture.size();
        self.number(size.width as usize).number(size.height as usize).bytes(picture.pixels())
    }
}

impl Kept for Tensor {
    fn bytes(&self) -> u64 {
        (self.elem_count() * self.dtype().size_in_bytes()) as u64
    }

    fn alone(&self) -> Result<Self> {
        Ok(self.force_contiguous()?)
    }
}

impl<A: Kept, B: Kept> Kept for (A, B) {
    fn bytes(&self) -> u64 {
        self.0.bytes() + self.1.bytes()
    }

    fn alone(&self) -> Result<Self> {
        Ok((self.0.alone()?, self.1.alone()?))
    }
}

impl Kept for Picture {
    fn bytes(&self) -> u64 {
        self.pixels().len() as u64
    }

    fn alone(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::values;

    /// 100 bytes of numbers.
    fn tensor(value: f32) -> Tensor {
        values::tensor(vec![value; 25], 25).unwrap()
    }

    const ENTRY: u64 = 100 + ENTRY_BYTES;

    /// What the cache gives for a number, and whether it was computed for that.
    fn ask(cache: &Cache, number: u8) -> (f32, bool) {
        let mut computed = false;
        let compute = || {
            computed = true;
            Ok(tensor(f32::from(number)))
        };
        let value = cache.get_or("a tensor", |print| print.bytes(&[number]), compute).unwrap();
        (values::to_vec(&value).unwrap()[0], computed)
    }

    #[test]
    fn what_is_asked_for_again_is_not_computed_again() {
        let cache = Cache::new(3 * ENTRY);
        assert_eq!((ask(&cache, 1), ask(&cache, 1), ask(&cache, 2)), ((1.0, true), (1.0, false), (2.0, true)));
        assert_eq!(cache.told(), CacheUse { n_hits: 1, n_misses: 2, bytes: 2 * ENTRY });
    }

    #[test]
    fn what_was_used_longest_ago_leaves() {
        let cache = Cache::new(2 * ENTRY);
        for number in [1, 2, 1, 3] {
            ask(&cache, number);
        }
        assert_eq!(cache.told().bytes, 2 * ENTRY);
        assert_eq!([ask(&cache, 1).1, ask(&cache, 3).1, ask(&cache, 2).1], [false, false, true]);
    }

    #[test]
    fn nothing_is_kept_beyond_the_budget() {
        for budget in [0, ENTRY - 1] {
            let cache = Cache::new(budget);
            assert!(ask(&cache, 1).1 && ask(&cache, 1).1);
            assert_eq!(cache.told().bytes, 0);
        }
        assert_eq!(Cache::new(0).told(), CacheUse::default());
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = Cache::new(ENTRY);
        let failed = cache.get_or(
            "a tensor",
            |print| print.bytes(&[1]),
            || -> Result<Tensor> { Err(nn::Error::Shape("no".to_owned())) },
        );
        assert!(failed.is_err());
        assert_eq!(ask(&cache, 1), (1.0, true));
    }

    #[test]
    fn a_part_of_a_tensor_does_not_keep_the_rest() {
        let whole = values::tensor(vec![1.0; 1000], (10, 100)).unwrap();
        let row = whole.narrow(0, 3, 1).unwrap().alone().unwrap();
        assert_eq!(row.bytes(), 400);
        assert_eq!(row.storage_and_layout().1.start_offset(), 0);
    }

    #[test]
    fn no_two_inputs_have_one_fingerprint() {
        let empty = || Fingerprint(Sha256::new());
        let picture = |width, height| Picture::filled(domain::quantity::Size::new(width, height), [1, 2, 3]);
        let prints = [
            empty(),
            empty().bytes(b""),
            empty().bytes(b"ab").bytes(b"c"),
            empty().bytes(b"a").bytes(b"bc"),
            empty().bytes(b"abc"),
            empty().tokens(&[1, 2]),
            empty().tokens(&[1]).tokens(&[2]),
            empty().picture(&picture(2, 3)),
            empty().picture(&picture(3, 2)),
        ];
        let n_prints = prints.len();
        let keys: std::collections::HashSet<Key> = prints.map(|print| print.0.finalize().into()).into();
        assert_eq!(keys.len(), n_prints);
    }
}
