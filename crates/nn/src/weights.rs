//! Weights by prefix walk: the Rust tree follows the checkpoint's names, and what does not fit is an error that lists it.

use crate::files::{FileBytes, ModelFiles};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The tensors of one component below a prefix. Cheap to clone; all clones keep one account of what was used.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
}

struct Shared {
    component: String,
    files: Vec<FileBytes>,
    entries: BTreeMap<String, Entry>,
    account: Mutex<Account>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

#[derive(Default)]
struct Account {
    used: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
}

impl Weights {
    /// Opens a component's folder: its sharded index, or its one file, in full or half precision.
    pub fn open(files: &ModelFiles, component: &str) -> Result<Self> {
        let names = shard_names(files, component)?;
        let mut shards = Vec::new();
        let mut entries = BTreeMap::new();
        for name in names {
            let path = format!("{component}/{name}");
            let malformed = |reason: String| Error::Malformed { path: files.display(&path), reason };
            let bytes = files
                .bytes(&path)?
                .ok_or_else(|| malformed("the index names this file, but it is not there".into()))?;
            index_shard(&bytes, shards.len(), &mut entries).map_err(malformed)?;
            shards.push(bytes);
        }
        let account = Mutex::default();
        let shared = Shared { component: component.to_owned(), files: shards, entries, account };
        Ok(Self { shared: Arc::new(shared), prefix: String::new() })
    }

    /// Descends one or more segments.
    #[must_use]
    pub fn at(&self, segment: impl std::fmt::Display) -> Self {
        Self { shared: Arc::clone(&self.shared), prefix: self.full_name(&segment.to_string()) }
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
        let Some(entry) = self.shared.entries.get(&full_name) else {
            self.account().missing.push(full_name);
            return zeros(shape);
        };
        self.account().used.insert(full_name.clone());
        if entry.shape != shape {
            self.account().mismatched.push(format!("{full_name} ({:?} instead of {shape:?})", entry.shape));
            return zeros(shape);
        }
        let bytes = &self.shared.files[entry.file][entry.bytes.clone()];
        let values = to_f32(bytes, entry.dtype).ok_or_else(|| Error::Malformed {
            path: full_name,
            reason: format!("{:?} is not a float type", entry.dtype),
        })?;
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Ends the walk of a component: everything must have fitted, and nothing may be left over.
    pub fn finish(&self) -> Result<()> {
        let account = self.account();
        let unused: Vec<String> =
            self.shared.entries.keys().filter(|key| !account.used.contains(*key)).cloned().collect();
        if account.missing.is_empty() && account.mismatched.is_empty() && unused.is_empty() {
            return Ok(());
        }
        Err(Error::DoNotFit {
            component: self.shared.component.clone(),
            missing: account.missing.clone(),
            unused,
            mismatched: account.mismatched.clone(),
        })
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

fn index_shard(bytes: &[u8], file: usize, entries: &mut BTreeMap<String, Entry>) -> std::result::Result<(), String> {
    let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let data_start = header_len + 8;
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let entry =
            Entry { file, dtype: info.dtype, shape: info.shape.clone(), bytes: data_start + start..data_start + end };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("{name} lies in two shards"));
        }
    }
    Ok(())
}

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu)?)
}

/// Widens any float type to f32; f64 alone is narrowed. `None`: not a float type.
fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    fn convert<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
        let element = |bytes: &[u8]| value(bytes.try_into().expect("chunks have N bytes, this is a bug"));
        bytes.par_chunks_exact(N).with_min_len(1 << 16).map(element).collect()
    }
    match dtype {
        Dtype::F32 => Some(convert(bytes, f32::from_le_bytes)),
        Dtype::BF16 => Some(convert(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => Some(convert(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::F64 => Some(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn half_types_widen_exactly() {
        let value = 1.5f32;
        assert_eq!(to_f32(&half::bf16::from_f32(value).to_le_bytes(), Dtype::BF16), Some(vec![value]));
        assert_eq!(to_f32(&half::f16::from_f32(value).to_le_bytes(), Dtype::F16), Some(vec![value]));
        assert_eq!(to_f32(&1.5f64.to_le_bytes(), Dtype::F64), Some(vec![value]));
        assert_eq!(to_f32(&[0; 8], Dtype::I64), None);
    }
}
