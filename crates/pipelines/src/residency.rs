//! Which components are in memory: shared by the engines that want the same ones, under a budget. Where it is short,
//! the component that was used longest ago leaves, so that a picture takes as many loads as the budget makes it, and
//! never more memory.

use crate::cache::{Cache, CacheUse, Fingerprint, Kept};
use crate::precision::{Precision, Role};
use nn::files::ModelFiles;
use nn::{Error, Result, Weights, memory};
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The components of all engines of a process, and how much memory their weights may take.
pub struct Residency {
    budget: u64,
    precision: Precision,
    /// That an autoencoder codes; a larger picture is cut.
    pixels_at_once: usize,
    reading: Reading,
    /// What components have made of inputs.
    cache: Arc<Cache>,
    state: Mutex<State>,
}

/// When components are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Read when an engine is made, if they all fit.
    Early,
    /// Refused when an engine is made, if one alone does not fit; read when they are used.
    Checked,
    /// Read, or refused, when they are used.
    Late,
}

/// A component, whatever its architecture.
pub(crate) trait Component {
    /// Bytes that its weights take in memory.
    fn bytes(&self) -> u64;

    /// Reads it from its files if it is not in memory.
    fn warm_up(&self) -> Result<()>;
}

/// A component of one engine: its architecture with its weights, in memory only while the budget allows.
pub(crate) struct Resident<T> {
    residency: Arc<Residency>,
    /// Of [`State::components`].
    idx: usize,
    load: Box<dyn Fn() -> Result<T> + Send + Sync>,
}

#[derive(Default)]
struct State {
    components: Vec<Entry>,
    /// Counts uses, so that the oldest can be told.
    clock: u64,
}

struct Entry {
    name: String,
    identity: Identity,
    bytes: u64,
    loaded: Option<Loaded>,
}

/// Two engines share a component if it is the same architecture, configured alike, with the same weights to the byte:
/// a text encoder that many models bring along is loaded once, a fine-tuned one is not mistaken for it.
struct Identity {
    architecture: TypeId,
    config: Option<String>,
    weights: Weights,
}

struct Loaded {
    value: Arc<dyn Any + Send + Sync>,
    used: u64,
}

impl Residency {
    /// Pixels that an autoencoder codes at once, unless said otherwise: pictures of up to 1536x1024 are coded whole, as the
    /// reference does, which takes some eight gigabytes.
    pub const PIXELS_AT_ONCE: usize = 1_600_000;

    /// At most so many bytes of weights at a time, as they lie in memory.
    pub fn new(budget: u64, precision: Precision) -> Arc<Self> {
        let cache = Arc::new(Cache::new(0));
        let pixels_at_once = Self::PIXELS_AT_ONCE;
        Arc::new(Self { budget, precision, pixels_at_once, reading: Reading::Early, cache, state: Mutex::default() })
    }

    /// As much as a model takes.
    pub fn unlimited(precision: Precision) -> Arc<Self> {
        Self::new(u64::MAX, precision)
    }

    /// Another like this one with nothing in it yet, which keeps at most so many bytes of what components have made of
    /// prompts and pictures, beside the weights. 0 keeps nothing.
    #[must_use]
    pub fn with_cache(&self, bytes: u64) -> Arc<Self> {
        self.another(self.reading, Cache::new(bytes))
    }

    /// How much the cache was of use.
    pub fn cache_use(&self) -> CacheUse {
        self.cache.told()
    }

    /// Another like this one with nothing in it yet, whose autoencoders cut pictures of more pixels into tiles.
    #[must_use]
    pub fn with_pixels_at_once(&self, pixels: usize) -> Arc<Self> {
        let mut other = self.another(self.reading, Cache::new(0));
        Arc::get_mut(&mut other).expect("nobody else has it yet, this is a bug").pixels_at_once = pixels;
        other
    }

    pub(crate) fn pixels_at_once(&self) -> usize {
        self.pixels_at_once
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// For a look whether a model's parts are within the budget: nothing is read before it is asked for.
    pub(crate) fn rehearsal(&self) -> Arc<Self> {
        self.another(Reading::Checked, Cache::new(0))
    }

    /// Another like this one with nothing in it yet, for who uses some of a model's components and not the others: each is
    /// read, or refused as too large, when it is used.
    #[must_use]
    pub fn reading_late(&self) -> Arc<Self> {
        self.another(Reading::Late, Cache::new(0))
    }

    fn another(&self, reading: Reading, cache: Cache) -> Arc<Self> {
        let Self { budget, precision, pixels_at_once, .. } = *self;
        Arc::new(Self { budget, precision, pixels_at_once, reading, cache: Arc::new(cache), state: Mutex::default() })
    }

    /// Makes a component of a folder known; its weights are read when it is first used. `load` is called again whenever
    /// it had to leave.
    ///
    /// # Errors
    /// If it alone is over the budget (unless that is found when it is used), or its files cannot be opened.
    pub(crate) fn component<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        files: &ModelFiles,
        name: &str,
        role: Role,
        load: impl Fn(&Weights) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Resident<T>> {
        let weights = Weights::open(files, name)?;
        let precision = self.precision.of(role, weights.n_values());
        let weights = weights.in_precision(precision);
        let bytes = weights.bytes_in_memory();
        if self.reading != Reading::Late && bytes > self.budget {
            return Err(Error::OverBudget { component: name.to_owned(), bytes, budget: self.budget });
        }
        let config = files.optional_text(&format!("{name}/config.json"))?;
        let identity = Identity { architecture: TypeId::of::<T>(), config, weights };
        let idx = self.state().index_of(name, identity, bytes);
        let (files, name) = (files.clone(), name.to_owned());
        let load = move || {
            let weights = Weights::open(&files, &name)?.in_precision(precision);
            let loaded = load(&weights)?;
            weights.finish()?;
            Ok(loaded)
        };
        Ok(Resident { residency: Arc::clone(self), idx, load: Box::new(load) })
    }

    /// Reads the components of one engine now, if they all fit at once: what is wrong with them is then known before the
    /// first picture, which need not wait for them either.
    pub(crate) fn warm_up(&self, components: &[&dyn Component]) -> Result<()> {
        let bytes = components.iter().fold(0u64, |sum, component| sum.saturating_add(component.bytes()));
        if self.reading != Reading::Early || bytes > self.budget {
            return Ok(());
        }
        components.iter().try_for_each(|component| component.warm_up())
    }

    /// The components that are in memory now, each with the number format that it multiplies in.
    pub fn precisions(&self) -> BTreeMap<String, &'static str> {
        let state = self.state();
        let loaded = state.components.iter().filter(|component| component.loaded.is_some());
        loaded.map(|component| (component.name.clone(), component.identity.weights.precision().as_str())).collect()
    }

    /// Bytes of weights that are in memory now.
    pub fn bytes_loaded(&self) -> u64 {
        self.state().bytes_loaded()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A load that panicked left nothing half done: it is put down only once it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + Sync + 'static> Resident<T> {
    /// The component, read from its files if it is not in memory. It stays there at least as long as the result lives.
    ///
    /// # Errors
    /// If its weights do not fit the architecture, or what is in use leaves no room for it.
    pub(crate) fn get(&self) -> Result<Arc<T>> {
        let mut state = self.residency.state();
        state.clock += 1;
        let used = state.clock;
        if let Some(loaded) = &mut state.components[self.idx].loaded {
            loaded.used = used;
            let value = Arc::clone(&loaded.value);
            return Ok(value.downcast().expect("a component is of its identity's architecture, this is a bug"));
        }
        state.make_room(self.idx, self.residency.budget)?;
        // Weights stay: what layers left, and what reading leaves, is not to be kept beside them.
        memory::release();
        let value = Arc::new((self.load)()?);
        memory::release();
        let component = &mut state.components[self.idx];
        tracing::debug!(component = component.name, bytes = component.bytes, "loaded a component");
        component.loaded = Some(Loaded { value: value.clone(), used });
        Ok(value)
    }
}

impl<T: Send + Sync + 'static> Resident<T> {
    /// What this component makes of inputs, from the cache if it is there; the component itself is then not needed.
    pub(crate) fn kept<V: Kept>(
        &self,
        what: &'static str,
        inputs: impl FnOnce(Fingerprint) -> Fingerprint,
        compute: impl FnOnce(&T) -> Result<V>,
    ) -> Result<V> {
        let inputs = |print: Fingerprint| inputs(print.number(self.identity()));
        self.residency.cache.get_or(what, inputs, || compute(&*self.get()?))
    }

    /// The same for components of this process that are the same architecture with the same weights in the same
    /// precision, and for no others.
    pub(crate) fn identity(&self) -> usize {
        self.idx
    }
}

impl<T: Send + Sync + 'static> Component for Resident<T> {
    fn bytes(&self) -> u64 {
        self.residency.state().components[self.idx].bytes
    }

    fn warm_up(&self) -> Result<()> {
        self.get().map(|_| ())
    }
}

impl State {
    fn index_of(&mut self, name: &str, identity: Identity, bytes: u64) -> usize {
        if let Some(idx) = self.components.iter().position(|component| component.identity.is(&identity)) {
            return idx;
        }
        self.components.push(Entry { name: name.to_owned(), identity, bytes, loaded: None });
        self.components.len() - 1
    }

    fn bytes_loaded(&self) -> u64 {
        self.components.iter().filter(|component| component.loaded.is_some()).map(|component| component.bytes).sum()
    }

    /// Puts out what was used longest ago and is not in use, until the component fits.
    fn make_room(&mut self, idx: usize, budget: u64) -> Result<()> {
        let bytes = self.components[idx].bytes;
        while self.bytes_loaded().saturating_add(bytes) > budget {
            let idle = |component: &&mut Entry| {
                component.loaded.as_ref().is_some_and(|loaded| Arc::strong_count(&loaded.value) == 1)
            };
            let oldest = self.components.iter_mut().filter(idle).min_by_key(|component| component.last_used());
            let Some(oldest) = oldest else {
                let component = self.components[idx].name.clone();
                return Err(Error::OverBudget { component, bytes, budget });
            };
            tracing::debug!(component = oldest.name, bytes = oldest.bytes, "put out a component to make room");
            oldest.loaded = None;
        }
        Ok(())
    }
}

impl Entry {
    fn last_used(&self) -> u64 {
        self.loaded.as_ref().map_or(0, |loaded| loaded.used)
    }
}

impl Identity {
    fn is(&self, other: &Self) -> bool {
        self.architecture == other.architecture && self.config == other.config && self.weights.is(&other.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use safetensors::tensor::{Dtype, TensorView};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// `part` with one tensor of 25 values, 100 bytes in memory.
    fn files(value: f32) -> ModelFiles {
        let bytes: Vec<u8> = [value; 25].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![25], &bytes).unwrap();
        let file = safetensors::serialize([("x", view)], None).unwrap();
        ModelFiles::Embedded(Arc::from([("part/model.safetensors", &*file.leak())]))
    }

    struct Part(Tensor);

    fn part(residency: &Arc<Residency>, value: f32, loads: &Arc<AtomicUsize>) -> Resident<Part> {
        let loads = Arc::clone(loads);
        let load = move |weights: &Weights| {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok(Part(weights.tensor("x", &[25])?))
        };
        residency.component(&files(value), "part", Role::Denoiser, load).unwrap()
    }

    fn first(part: &Resident<Part>) -> f32 {
        part.get().unwrap().0.to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn what_has_the_same_bytes_is_loaded_once() {
        let (residency, loads) = (Residency::unlimited(Precision::F32), Arc::default());
        let (here, there, other) =
            (part(&residency, 1.0, &loads), part(&residency, 1.0, &loads), part(&residency, 2.0, &loads));
        assert_eq!((first(&here), first(&there), first(&other)), (1.0, 1.0, 2.0));
        assert_eq!(loads.load(Ordering::Relaxed), 2);
        assert_eq!(residency.bytes_loaded(), 200);
    }

    #[test]
    fn the_component_that_was_used_longest_ago_leaves() {
        let (residency, loads) = (Residency::new(250, Precision::F32), Arc::default());
        let parts: Vec<Resident<Part>> = [1.0, 2.0, 3.0].map(|value| part(&residency, value, &loads)).into();
        for idx in [0, 1, 0, 2] {
            first(&parts[idx]);
        }
        assert_eq!((residency.bytes_loaded(), loads.load(Ordering::Relaxed)), (200, 3));
        // The first was used after the second, so it is still there, and the second is not.
        first(&parts[0]);
        assert_eq!(loads.load(Ordering::Relaxed), 3);
        first(&parts[1]);
        assert_eq!((residency.bytes_loaded(), loads.load(Ordering::Relaxed)), (200, 4));
    }

    #[test]
    fn what_is_in_use_stays_and_what_cannot_fit_is_an_error() {
        let (residency, loads) = (Residency::new(150, Precision::F32), Arc::default());
        let (used, wanted) = (part(&residency, 1.0, &loads), part(&residency, 2.0, &loads));
        let held = used.get().unwrap();
        assert!(matches!(wanted.get(), Err(Error::OverBudget { bytes: 100, budget: 150, .. })));
        drop(held);
        assert_eq!((first(&wanted), residency.bytes_loaded()), (2.0, 100));
        let small = Residency::new(99, Precision::F32);
        let refused = small.component(&files(1.0), "part", Role::Denoiser, |weights| weights.tensor("x", &[25]));
        assert!(matches!(refused, Err(Error::OverBudget { bytes: 100, budget: 99, .. })));
    }

    #[test]
    fn weights_that_do_not_fit_are_no_component() {
        let residency = Residency::unlimited(Precision::F32);
        let part =
            residency.component(&files(1.0), "part", Role::Denoiser, |weights| weights.tensor("y", &[25])).unwrap();
        assert!(matches!(part.get(), Err(Error::DoNotFit { .. })));
        assert_eq!(residency.bytes_loaded(), 0);
    }
}
