//! Weights by prefix walk: the Rust tree follows the checkpoint's names, and what does not fit is an error that lists it.

use crate::assembly::{Delta, Piece};
use crate::checkpoint::Checkpoint;
use crate::files::ModelFiles;
use crate::survey::Shapes;
use crate::view::View;
use crate::{Error, Precision, Result};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The tensors of one component below a prefix. Cheap to clone; all clones keep one account of what was used.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
    precision: Precision,
    /// Of the layers from here on.
    inputs: Inputs,
}

/// What a layer does with what it multiplies its weight by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// As the precision has it.
    Rounded,
    /// Nothing.
    Exact,
}

/// Names of missing tensors that are gathered before the walk is given up; no model has so many.
const MISSING_MAX: usize = 20_000;
/// Values that stand in for a tensor that does not fit; the largest of any model has half of it.
const STAND_IN_VALUES_MAX: usize = 1 << 28;

struct Shared {
    component: String,
    entries: BTreeMap<String, Entry>,
    deltas: Vec<Delta>,
    account: Mutex<Account>,
    /// What was asked for, if that is all that these are for.
    survey: Option<Mutex<Shapes>>,
}

struct Entry {
    checkpoint: Arc<Checkpoint>,
    /// What the checkpoint calls it.
    stored: String,
    view: View,
}

#[derive(Default)]
struct Account {
    used: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
}

impl Account {
    fn misfits(&self) -> bool {
        !self.missing.is_empty() || !self.mismatched.is_empty()
    }
}

impl Weights {
    /// Opens a component: its folder's sharded index or one file, in full or half precision, or what an assembly has
    /// in the place of a folder.
    pub fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let deltas = match files {
            ModelFiles::Assembled(assembly) => assembly.deltas.get(component).cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let entries = entries(files, component)?;
        let shared =
            Shared { component: component.to_owned(), entries, deltas, account: Mutex::default(), survey: None };
        Ok(Self::whole(shared))
    }

    fn whole(shared: Shared) -> Self {
        let (prefix, precision, inputs) = (String::new(), Precision::F32, Inputs::Rounded);
        Self { shared: Arc::new(shared), prefix, precision, inputs }
    }

    /// The same tensors, for layers that multiply in this precision.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same tensors, for layers that keep their inputs exact in every precision: a model's first and last layers and
    /// its modulations, where little is multiplied and much depends on it.
    #[must_use]
    pub fn with_exact_inputs(self) -> Self {
        Self { inputs: Inputs::Exact, ..self }
    }

    pub fn inputs(&self) -> Inputs {
        self.inputs
    }

    /// Weights that note what is asked of them, all of it zeros.
    pub(crate) fn surveying() -> Self {
        let (component, entries, deltas) = ("a survey".to_owned(), BTreeMap::new(), Vec::new());
        let shared = Shared { component, entries, deltas, account: Mutex::default(), survey: Some(Mutex::default()) };
        Self::whole(shared)
    }

    /// Whether these only note what is asked of them, for a survey, or because they do not fit already: a layer then need
    /// not lay out what it gets.
    pub(crate) fn only_note(&self) -> bool {
        self.shared.survey.is_some() || self.account().misfits()
    }

    /// What was asked of weights that note it.
    pub(crate) fn asked(&self) -> Shapes {
        let asked = |survey: &Mutex<Shapes>| survey.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.survey.as_ref().map(asked).unwrap_or_default()
    }

    /// Names and shapes of everything that was opened, in the order of names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.shared.entries.iter().map(|(name, entry)| (name.as_str(), entry.view.shape()))
    }

    /// Bytes that all of its tensors take in memory, as layers of this precision keep them.
    pub fn bytes_in_memory(&self) -> u64 {
        let bytes = |(name, entry): (&String, &Entry)| self.n_bytes(name, entry).saturating_mul(n_values(entry));
        self.shared.entries.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// All of its numbers.
    pub fn n_values(&self) -> u64 {
        self.shared.entries.values().map(n_values).fold(0, u64::saturating_add)
    }

    /// Of each number of a tensor. Only matrices and convolutions' kernels are kept in less than 32 bits.
    fn n_bytes(&self, name: &str, entry: &Entry) -> u64 {
        let (is_matrix, is_kernel) = (entry.view.shape().len() == 2, entry.view.shape().len() == 4);
        let is_narrow = || entry.checkpoint.is_narrow(&entry.stored);
        let is_changed = || self.shared.deltas.iter().any(|delta| delta.name == *name);
        match self.precision {
            Precision::Int8 if is_matrix => 1,
            Precision::Bf16 if is_matrix => 2,
            _ if (is_matrix || is_kernel) && is_narrow() && !is_changed() => 2,
            _ => 4,
        }
    }

    /// Whether these are the same tensors in the same precision, byte for byte, with the same changes. Reads no more than
    /// it must to know.
    pub fn is(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.shared, &other.shared);
        let alike = |(a, b): ((&String, &Entry), (&String, &Entry))| a.0 == b.0 && a.1.view == b.1.view;
        self.precision == other.precision
            && ours.entries.len() == theirs.entries.len()
            && ours.deltas.len() == theirs.deltas.len()
            && ours.entries.iter().zip(&theirs.entries).all(alike)
            && ours.deltas.iter().zip(&theirs.deltas).all(|(a, b)| a.is(b))
            && ours
                .entries
                .values()
                .zip(theirs.entries.values())
                .all(|(a, b)| a.checkpoint.has_same(&a.stored, &b.checkpoint, &b.stored))
    }

    /// Descends one or more segments.
    #[must_use]
    pub fn at(&self, segment: impl std::fmt::Display) -> Self {
        Self { prefix: self.full_name(&segment.to_string()), ..self.clone() }
    }

    /// Whether a tensor, or any tensor below a segment, exists here.
    pub fn has(&self, segment: &str) -> bool {
        let name = self.full_name(segment);
        let below = format!("{name}.");
        let mut from_here = self.shared.entries.range(name.clone()..);
        from_here.next().is_some_and(|(key, _)| *key == name)
            || self.shared.entries.keys().any(|key| key.starts_with(&below))
    }

    /// Declares tensors below a segment as known and not needed (a buffer that some exporters write).
    pub fn skip(&self, segment: &str) {
        let name = self.full_name(segment);
        let below = format!("{name}.");
        let keys = self.shared.entries.keys().filter(|key| **key == name || key.starts_with(&below));
        self.account().used.extend(keys.cloned());
    }

    /// A tensor as f32. A missing one, or one of another shape, is noted for [`Weights::finish`] and reads as zeros.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        if let Some(survey) = &self.shared.survey {
            survey.lock().unwrap_or_else(PoisonError::into_inner).insert(full_name, shape.to_vec());
            return zeros(shape);
        }
        let Some(entry) = self.shared.entries.get(&full_name) else {
            self.account().missing.push(full_name);
            return self.zeros_of_a_misfit(shape);
        };
        self.account().used.insert(full_name.clone());
        let found = entry.view.shape();
        if found != shape {
            self.account().mismatched.push(format!("{full_name} ({found:?} instead of {shape:?})"));
        }
        if self.account().misfits() {
            return self.zeros_of_a_misfit(shape);
        }
        let mut values = entry.checkpoint.read(&entry.stored, &entry.view)?;
        for delta in self.shared.deltas.iter().filter(|delta| delta.name == full_name) {
            delta.add_to(&mut values, shape)?;
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// What does not fit is walked on only to tell all of it, and not without end: a configuration may ask for anything.
    fn zeros_of_a_misfit(&self, shape: &[usize]) -> Result<Tensor> {
        let n_values = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let is_absurd = n_values.is_none_or(|n_values| n_values > STAND_IN_VALUES_MAX);
        if is_absurd || self.account().missing.len() > MISSING_MAX { Err(self.misfit()) } else { zeros(shape) }
    }

    /// Ends the walk of a component: everything must have fitted, and nothing may be left over.
    pub fn finish(&self) -> Result<()> {
        let is_left_over = self.unused().next().is_some();
        if is_left_over || self.account().misfits() { Err(self.misfit()) } else { Ok(()) }
    }

    fn misfit(&self) -> Error {
        let unused = self.unused().collect();
        let account = self.account();
        let (missing, mismatched) = (account.missing.clone(), account.mismatched.clone());
        Error::DoNotFit { component: self.shared.component.clone(), missing, unused, mismatched }
    }

    fn unused(&self) -> impl Iterator<Item = String> + '_ {
        let used = self.account().used.clone();
        self.shared.entries.keys().filter(move |key| !used.contains(*key)).cloned()
    }

    fn full_name(&self, segment: &str) -> String {
        match (self.prefix.is_empty(), segment.is_empty()) {
            (true, _) => segment.to_owned(),
            (_, true) => self.prefix.clone(),
            _ => format!("{}.{segment}", self.prefix),
        }
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.shared.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entries(files: &ModelFiles, component: &str) -> Result<BTreeMap<String, Entry>> {
    let ModelFiles::Assembled(assembly) = files else { return entries_of_folder(files, component) };
    let Some(pieces) = assembly.pieces.get(component) else { return entries(&assembly.below, component) };
    let entry = |piece: &Piece| {
        let (checkpoint, view) = (Arc::clone(&piece.checkpoint), piece.view.clone());
        (piece.name.clone(), Entry { checkpoint, stored: piece.stored.clone(), view })
    };
    Ok(pieces.iter().map(entry).collect())
}

fn entries_of_folder(files: &ModelFiles, component: &str) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for name in shard_names(files, component)? {
        let path = format!("{component}/{name}");
        let malformed = |reason: String| Error::Malformed { path: files.display(&path), reason };
        let bytes =
            files.bytes(&path)?.ok_or_else(|| malformed("the index names this file, but it is not there".into()))?;
        let checkpoint = Arc::new(Checkpoint::open(files.display(&path), bytes)?);
        for (name, shape) in checkpoint.shapes() {
            let entry =
                Entry { checkpoint: Arc::clone(&checkpoint), stored: name.to_owned(), view: View::whole(shape) };
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(malformed(format!("{name} lies in two shards")));
            }
        }
    }
    Ok(entries)
}

/// The file names of a component, by the conventions of diffusers and transformers.
fn shard_names(files: &ModelFiles, component: &str) -> Result<Vec<String>> {
    const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
    const VARIANTS: [&str; 3] = ["", ".fp16", ".bf16"];
    for stem in STEMS {
        for variant in VARIANTS {
            let index = format!("{stem}.safetensors.index{variant}.json");
            if let Some(text) = files.optional_text(&format!("{component}/{index}"))? {
                return indexed_names(&text).map_err(|reason| Error::Malformed {
                    path: files.display(&format!("{component}/{index}")),
                    reason,
                });
            }
            let single = format!("{stem}{variant}.safetensors");
            if files.bytes(&format!("{component}/{single}"))?.is_some() {
                return Ok(vec![single]);
            }
        }
    }
    let expected =
        format!("no weights; expected {}.safetensors or {}.safetensors, or an index of shards", STEMS[0], STEMS[1]);
    Err(Error::Malformed { path: files.display(component), reason: expected })
}

fn indexed_names(text: &str) -> std::result::Result<Vec<String>, String> {
    let index: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let map = index.get("weight_map").and_then(|map| map.as_object()).ok_or("no weight_map")?;
    let names: BTreeSet<String> = map.values().filter_map(|name| name.as_str()).map(str::to_owned).collect();
    match names.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        Some(name) => Err(format!("a shard outside the folder: {name}")),
        None => Ok(names.into_iter().collect()),
    }
}

fn n_values(entry: &Entry) -> u64 {
    entry.view.shape().iter().fold(1, |n, side| n.saturating_mul(*side as u64))
}

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    fn weights(tensors: &[(&str, &[f32])]) -> Weights {
        let raw: Vec<(String, Vec<u8>)> = tensors
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views = raw.iter().map(|(name, bytes)| {
            let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("a whole view");
            (name.as_str(), view)
        });
        let file = safetensors::serialize(views, None).expect("serializable");
        let files = ModelFiles::Embedded(Arc::from([("part/model.safetensors", &*file.leak())]));
        Weights::open(&files, "part").expect("a readable component")
    }

    #[test]
    fn a_walk_that_finds_nothing_ends() {
        let weights = weights(&[("a.weight", &[1.0, 2.0])]);
        let error = (0..).find_map(|layer| weights.at(layer).tensor("weight", &[1]).err()).unwrap();
        let Error::DoNotFit { missing, unused, .. } = error else { panic!("{error}") };
        assert_eq!((missing.len(), unused), (MISSING_MAX + 1, vec!["a.weight".to_owned()]));
    }

    #[test]
    fn what_a_configuration_asks_for_in_vain_is_not_set_aside() {
        for shape in [&[usize::MAX, 2][..], &[1 << 20, 1 << 20]] {
            let weights = weights(&[("a.weight", &[1.0, 2.0])]);
            let message = weights.at("a").tensor("weight", shape).unwrap_err().to_string();
            assert!(message.contains("a.weight ([2] instead of"), "{message}");
        }
    }

    #[test]
    fn everything_that_does_not_fit_is_listed_at_once() {
        let weights = weights(&[("a.weight", &[1.0, 2.0]), ("b.weight", &[1.0]), ("left.over", &[0.0])]);
        weights.at("a").tensor("weight", &[3]).unwrap();
        weights.at("b").tensor("weight", &[1]).unwrap();
        weights.at("c").tensor("weight", &[1]).unwrap();
        let message = weights.finish().unwrap_err().to_string();
        assert_eq!(
            message,
            "the weights of part do not fit: 1 missing: c.weight; 1 unused: left.over; 1 of another shape: a.weight ([2] instead of [3])"
        );
    }

    #[test]
    fn what_fits_is_no_error() {
        let weights = weights(&[("a.b.weight", &[1.0, 2.0]), ("buffer", &[0.0])]);
        assert!(weights.has("a") && weights.at("a").has("b.weight") && !weights.has("a.c"));
        let tensor = weights.at("a").at("b").tensor("weight", &[2]).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        weights.skip("buffer");
        weights.finish().unwrap();
    }

    #[test]
    fn matrices_and_kernels_take_what_their_precision_and_their_file_make_them() {
        let shapes = [vec![3], vec![5, 3], vec![4, 2, 3, 3]];
        let bytes = [0; 4 * 72];
        let view = |dtype, size, shape: &Vec<usize>| {
            TensorView::new(dtype, shape.clone(), &bytes[..size * shape.iter().product::<usize>()]).unwrap()
        };
        for (dtype, size, taken) in [
            (Dtype::F16, 2, [4 * 3 + 2 * 15 + 2 * 72, 4 * 3 + 15 + 2 * 72]),
            (Dtype::F32, 4, [4 * 3 + 4 * 15 + 4 * 72, 4 * 3 + 15 + 4 * 72]),
        ] {
            let views = ["vector", "matrix", "kernel"].into_iter().zip(shapes.iter().map(|s| view(dtype, size, s)));
            let file = safetensors::serialize(views, None).unwrap();
            let files = ModelFiles::Embedded(Arc::from([("part/model.safetensors", &*file.leak())]));
            let weights = Weights::open(&files, "part").unwrap();
            for (precision, taken) in [Precision::F32, Precision::Int8].into_iter().zip(taken) {
                let weights = weights.clone().in_precision(precision);
                assert_eq!(weights.bytes_in_memory(), taken, "{dtype:?} in {precision:?}");
            }
        }
    }

    #[test]
    fn a_broken_file_is_an_error_not_a_panic() {
        for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0{}trailing"] {
            let files = ModelFiles::Embedded(Arc::from([("part/model.safetensors", bytes)]));
            assert!(Weights::open(&files, "part").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_index_cannot_leave_its_folder() {
        assert!(indexed_names(r#"{"weight_map":{"a":"../b.safetensors"}}"#).is_err());
        assert!(indexed_names(r#"{"weight_map":{"a":"x-1.safetensors","b":"x-1.safetensors"}}"#).unwrap().len() == 1);
    }
}
