//! One file of tensors, safetensors or GGUF, told apart by its first bytes: what is in it, and how it is read.

mod encoding;
mod gguf;
mod synthetic;

pub use gguf::Value;

use crate::files::FileBytes;
use crate::survey::Shapes;
use crate::view::View;
use crate::{Error, Result};
use encoding::Encoding;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;

/// An opened file of tensors. Nothing is read before it is asked for.
pub struct Checkpoint {
    path: String,
    bytes: FileBytes,
    tensors: BTreeMap<String, Stored>,
    fields: BTreeMap<String, Value>,
}

/// Where a tensor lies and how it is written.
struct Stored {
    encoding: Encoding,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Checkpoint {
    /// Reads the header. `path` is how errors name the file.
    pub fn open(path: String, bytes: FileBytes) -> Result<Self> {
        let header = if bytes.starts_with(gguf::MAGIC) { gguf::read(&bytes) } else { read_safetensors(&bytes) };
        match header {
            Ok(gguf::Header { tensors, fields }) => Ok(Self { path, bytes, tensors, fields }),
            Err(reason) => Err(Error::Malformed { path, reason }),
        }
    }

    /// A file that is not there, of tensors with these names and shapes: their numbers are random, always the same ones,
    /// and made when they are read. `path` is how errors name it.
    pub fn synthetic(path: String, shapes: Shapes) -> Self {
        let stored = |shape| Stored { encoding: Encoding::Synthetic, shape, bytes: 0..0 };
        let tensors = shapes.into_iter().map(|(name, shape)| (name, stored(shape))).collect();
        Self { path, bytes: FileBytes::Embedded(&[]), tensors, fields: BTreeMap::new() }
    }

    /// How errors name the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Names and shapes, in the order of names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.shape.as_slice()))
    }

    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// What the header says beside its tensors: GGUF's fields, or the texts of a safetensors file.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Whether 16 bits hold each of a tensor's numbers.
    pub(crate) fn is_narrow(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|stored| stored.encoding.is_narrow())
    }

    /// Whether a tensor is written like one of another file, byte for byte.
    pub(crate) fn has_same(&self, name: &str, other: &Self, other_name: &str) -> bool {
        match (self.tensors.get(name), other.tensors.get(other_name)) {
            (Some(ours), Some(theirs)) => {
                ours.encoding == theirs.encoding
                    && ours.shape == theirs.shape
                    && self.bytes[ours.bytes.clone()] == other.bytes[theirs.bytes.clone()]
            }
            _ => false,
        }
    }

    /// A tensor as f32, as the view has it.
    pub fn read(&self, name: &str, view: &View) -> Result<Vec<f32>> {
        let wrong = |reason: &str| Error::Malformed { path: self.path.clone(), reason: format!("{name}: {reason}") };
        let stored = self.tensors.get(name).ok_or_else(|| wrong("no such tensor"))?;
        if stored.encoding == Encoding::Synthetic && view.rows().is_none() {
            return Ok(view.arrange(synthetic::numbers(name, &stored.shape)));
        }
        let bytes = &self.bytes[stored.bytes.clone()];
        let decode = |bytes: &[u8]| stored.encoding.decode(bytes).ok_or_else(|| wrong("not of a float type"));
        let Some(rows) = view.rows() else {
            let values = decode(bytes)?;
            let fits = view.n_values() == Some(values.len());
            return if fits { Ok(view.arrange(values)) } else { Err(wrong("it has another shape")) };
        };
        let row = stored.bytes_per_row().ok_or_else(|| wrong("its rows are not whole blocks"))?;
        let mut values = Vec::new();
        for range in rows {
            let part = bytes.get(range.start * row..range.end * row).ok_or_else(|| wrong("it has not so many rows"))?;
            values.append(&mut decode(part)?);
        }
        Ok(view.arrange(values))
    }
}

impl Stored {
    /// `None` if a row does not begin with a block.
    fn bytes_per_row(&self) -> Option<usize> {
        let block = self.encoding.block()?;
        let n_values = self.shape.iter().skip(1).try_fold(1usize, |n, side| n.checked_mul(*side))?;
        n_values.is_multiple_of(block.n_values).then_some(n_values / block.n_values * block.n_bytes)
    }
}

fn read_safetensors(bytes: &[u8]) -> std::result::Result<gguf::Header, String> {
    let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let data_start = header_len + 8;
    let stored = |info: &safetensors::tensor::TensorInfo| {
        let (start, end) = info.data_offsets;
        let encoding = encoding_of(info.dtype);
        Stored { encoding, shape: info.shape.clone(), bytes: data_start + start..data_start + end }
    };
    let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, stored(info))).collect();
    let texts = metadata.metadata().iter().flatten();
    let fields = texts.map(|(name, text)| (name.clone(), Value::Text(text.clone()))).collect();
    Ok(gguf::Header { tensors, fields })
}

fn encoding_of(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F64 => Encoding::F64,
        Dtype::F32 => Encoding::F32,
        Dtype::F16 => Encoding::F16,
        Dtype::BF16 => Encoding::Bf16,
        Dtype::F8_E4M3 => Encoding::F8E4M3,
        Dtype::F8_E5M2 => Encoding::F8E5M2,
        _ => Encoding::NotFloat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &'static [u8]) -> Result<Checkpoint> {
        Checkpoint::open("a file".to_owned(), FileBytes::Embedded(bytes))
    }

    /// A safetensors file of this header and so many bytes of data.
    fn safetensors(header: &str, n_data: usize) -> &'static [u8] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + n_data, 0);
        bytes.leak()
    }

    #[test]
    fn a_hostile_header_is_an_error_that_names_the_file() {
        let refused = |bytes: &'static [u8]| {
            let error = open(bytes).err().expect("an error").to_string();
            assert!(error.starts_with("a file: "), "{error}");
        };
        refused(b"");
        refused(b"GGUF");
        refused(b"12345678");
        refused(b"\xff\xff\xff\xff\xff\xff\xff\xff{}");
        refused(safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4));
        refused(safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#, 16));
        refused(safetensors(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#, 8));
        refused(safetensors(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8));
        let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        refused(safetensors(twice, 8));
    }

    #[test]
    fn parts_of_a_tensor_are_read_by_rows() {
        let header = r#"{"a":{"dtype":"F8_E5M2","shape":[3,2],"data_offsets":[0,6]}}"#;
        let mut bytes = safetensors(header, 0).to_vec();
        bytes.extend([0x3c, 0, 0x40, 0, 0x44, 0]);
        let file = open(bytes.leak()).unwrap();
        let swapped = View::rows_of(&[3, 2], &[2..3, 0..1]).unwrap();
        assert_eq!(file.read("a", &swapped).unwrap(), [4.0, 0.0, 1.0, 0.0]);
        let turned = View::transposed(&[3, 2]).unwrap();
        assert_eq!(file.read("a", &turned).unwrap(), [1.0, 2.0, 4.0, 0.0, 0.0, 0.0]);
        let beyond = View::rows_of(&[9, 2], &[0..4, 4..9]).unwrap();
        assert!(file.read("a", &beyond).unwrap_err().to_string().contains("not so many rows"));
        assert!(file.read("b", &swapped).is_err());
    }
}
