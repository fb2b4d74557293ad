//! GGUF, the file format of llama.cpp (ggml's `docs/gguf.md`, versions 2 and 3, little-endian).
//!
//! Every count and length is checked against what is left of the file before anything is set aside for it.

use super::{Encoding, Stored};
use std::collections::BTreeMap;
use std::ops::Range;

/// The bytes that every GGUF file begins with.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// As in ggml itself.
const DIMENSIONS_MAX: usize = 4;
/// Far more than any model has.
const TENSORS_MAX: u64 = 1 << 16;
const FIELDS_MAX: u64 = 1 << 16;
/// Of all lists together: a vocabulary with its scores and kinds has a tenth of it.
const LIST_VALUES_MAX: usize = 1 << 22;
const LIST_DEPTH_MAX: usize = 2;
/// Of all names and texts together: a tokenizer's own file, which some put into one text, has a tenth of it.
const TEXT_BYTES_MAX: usize = 1 << 28;
/// Where the data begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 16;

/// One value of the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    List(Vec<Value>),
}

/// What a header says.
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) fields: BTreeMap<String, Value>,
}

type Result<T> = std::result::Result<T, String>;

/// Reads the header of a file that begins with [`MAGIC`].
pub(super) fn read(bytes: &[u8]) -> Result<Header> {
    let mut reader = Reader { rest: bytes, n_list_values: 0, n_text_bytes: 0 };
    reader.take(MAGIC.len())?;
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version}; allowed: 2 and 3, little-endian"));
    }
    let n_tensors = bounded("tensors", reader.u64()?, TENSORS_MAX)?;
    let n_fields = bounded("fields", reader.u64()?, FIELDS_MAX)?;
    let mut fields = BTreeMap::new();
    for _ in 0..n_fields {
        let name = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind, 0)?;
        if fields.insert(name.clone(), value).is_some() {
            return Err(format!("the field {name} is there twice"));
        }
    }
    let infos = (0..n_tensors).map(|_| reader.tensor_info()).collect::<Result<Vec<_>>>()?;
    let alignment = match fields.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(n)) if (1..=ALIGNMENT_MAX as i64).contains(n) && n.count_ones() == 1 => *n as u64,
        Some(_) => return Err(format!("general.alignment is no power of two up to {ALIGNMENT_MAX}")),
    };
    let header_len = (bytes.len() - reader.rest.len()) as u64;
    let data_start = header_len.next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for info in infos {
        let range = info.range(data_start, alignment, bytes.len())?;
        let stored = Stored { encoding: info.encoding, shape: info.shape, bytes: range };
        if tensors.insert(info.name.clone(), stored).is_some() {
            return Err(format!("{} is there twice", info.name));
        }
    }
    Ok(Header { tensors, fields })
}

fn bounded(what: &str, n: u64, max: u64) -> Result<u64> {
    if n <= max { Ok(n) } else { Err(format!("{n} {what}; allowed: at most {max}")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    n_list_values: usize,
    n_text_bytes: usize,
}

struct TensorInfo {
    name: String,
    encoding: Encoding,
    shape: Vec<usize>,
    offset: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or("the file ends within its header")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for, this is a bug"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.u64()?).map_err(|error| error.to_string())?;
        let bytes = self.take(length)?;
        self.n_text_bytes = self.n_text_bytes.saturating_add(length);
        if self.n_text_bytes > TEXT_BYTES_MAX {
            return Err(format!("texts of more than {TEXT_BYTES_MAX} bytes"));
        }
        // Names of tensors are ASCII; a vocabulary may hold halves of characters.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A value of one of the format's thirteen kinds.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(self.array().map(u8::from_le_bytes)?.into()),
            1 => Value::Integer(self.array().map(i8::from_le_bytes)?.into()),
            2 => Value::Integer(self.array().map(u16::from_le_bytes)?.into()),
            3 => Value::Integer(self.array().map(i16::from_le_bytes)?.into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(self.array().map(i32::from_le_bytes)?.into()),
            6 => Value::Float(self.array().map(f32::from_le_bytes)?.into()),
            7 => Value::Flag(self.take(1)?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => self.list(depth)?,
            10 => Value::Integer(self.u64()? as i64),
            11 => Value::Integer(self.array().map(i64::from_le_bytes)?),
            12 => Value::Float(self.array().map(f64::from_le_bytes)?),
            other => return Err(format!("a field of the unknown kind {other}")),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        if depth >= LIST_DEPTH_MAX {
            return Err(format!("lists nest deeper than {LIST_DEPTH_MAX}"));
        }
        let kind = self.u32()?;
        let length = self.u64()?;
        // Every value takes a byte at least.
        let n = usize::try_from(length).ok().filter(|n| *n <= self.rest.len());
        let n = n.ok_or("a list is longer than the file")?;
        self.n_list_values = self.n_list_values.saturating_add(n);
        if self.n_list_values > LIST_VALUES_MAX {
            return Err(format!("lists of more than {LIST_VALUES_MAX} values"));
        }
        Ok(Value::List((0..n).map(|_| self.value(kind, depth + 1)).collect::<Result<_>>()?))
    }

    fn tensor_info(&mut self) -> Result<TensorInfo> {
        let name = self.text()?;
        let n_dimensions = self.u32()? as usize;
        if n_dimensions > DIMENSIONS_MAX {
            return Err(format!("{name} has {n_dimensions} dimensions; allowed: at most {DIMENSIONS_MAX}"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            shape.push(usize::try_from(self.u64()?).map_err(|error| error.to_string())?);
        }
        // The fastest dimension comes first here, and last everywhere else.
        shape.reverse();
        let kind = self.u32()?;
        let encoding = encoding_of(kind).ok_or_else(|| format!("{name} is of type {kind}; allowed: {ALLOWED}"))?;
        Ok(TensorInfo { name, encoding, shape, offset: self.u64()? })
    }
}

impl TensorInfo {
    /// Where the tensor lies in the file, if it does.
    fn range(&self, data_start: u64, alignment: u64, file_len: usize) -> Result<Range<usize>> {
        let absurd = || format!("{}: shape {:?} does not fit the file", self.name, self.shape);
        let block = self.encoding.block().ok_or_else(absurd)?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(format!("{} begins at {}, no multiple of {alignment}", self.name, self.offset));
        }
        let n_values = self.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).ok_or_else(absurd)?;
        if !self.shape.last().copied().unwrap_or(1).is_multiple_of(block.n_values) {
            return Err(format!("{}: rows of {:?} are no whole blocks of {}", self.name, self.shape, block.n_values));
        }
        let n_bytes = (n_values / block.n_values).checked_mul(block.n_bytes).ok_or_else(absurd)?;
        let start = data_start.checked_add(self.offset).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(n_bytes)?));
        range.filter(|range| range.end <= file_len).ok_or_else(absurd)
    }
}

/// What [`encoding_of`] knows, as errors name it.
const ALLOWED: &str = "F64 F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K";

/// ggml's numbers of its types.
fn encoding_of(kind: u32) -> Option<Encoding> {
    Some(match kind {
        0 => Encoding::F32,
        1 => Encoding::F16,
        2 => Encoding::Q4_0,
        3 => Encoding::Q4_1,
        6 => Encoding::Q5_0,
        7 => Encoding::Q5_1,
        8 => Encoding::Q8_0,
        10 => Encoding::Q2K,
        11 => Encoding::Q3K,
        12 => Encoding::Q4K,
        13 => Encoding::Q5K,
        14 => Encoding::Q6K,
        28 => Encoding::F64,
        30 => Encoding::Bf16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }

    struct Tensor {
        name: &'static str,
        sides: Vec<u64>,
        kind: u32,
        offset: u64,
    }

    fn file(n_tensors: u64, fields: &[u8], n_fields: u64, tensors: &[Tensor], n_data: usize) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(n_tensors.to_le_bytes());
        bytes.extend(n_fields.to_le_bytes());
        bytes.extend(fields);
        for tensor in tensors {
            text(&mut bytes, tensor.name);
            bytes.extend((tensor.sides.len() as u32).to_le_bytes());
            bytes.extend(tensor.sides.iter().flat_map(|side| side.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + n_data, 0);
        bytes
    }

    fn plain(name: &'static str, sides: &[u64], kind: u32, offset: u64) -> Tensor {
        Tensor { name, sides: sides.to_vec(), kind, offset }
    }

    fn with(tensors: &[Tensor]) -> std::result::Result<Header, String> {
        read(&file(tensors.len() as u64, &[], 0, tensors, 128))
    }

    #[test]
    fn the_fastest_dimension_becomes_the_last() {
        let header = with(&[plain("a", &[4, 8], 0, 0)]).unwrap();
        let stored = &header.tensors["a"];
        assert_eq!((stored.shape.as_slice(), stored.bytes.len()), (&[8, 4][..], 128));
    }

    #[test]
    fn a_tensor_that_cannot_be_is_refused() {
        #[track_caller]
        fn check(tensors: &[Tensor], expect: &str) {
            let error = with(tensors).err().expect("an error");
            assert!(error.contains(expect), "{error}");
        }
        check(&[plain("a", &[u64::MAX, u64::MAX], 0, 0)], "does not fit the file");
        check(&[plain("a", &[1 << 40, 1 << 20], 0, 0)], "does not fit the file");
        check(&[plain("a", &[33], 0, 0)], "does not fit the file");
        check(&[plain("a", &[4], 0, 1 << 40)], "does not fit the file");
        check(&[plain("a", &[4], 0, u64::MAX - 31)], "does not fit the file");
        check(&[plain("a", &[4], 0, 4)], "no multiple of 32");
        check(&[plain("a", &[1, 1, 1, 1, 1], 0, 0)], "5 dimensions");
        check(&[plain("a", &[16], 2, 0)], "no whole blocks of 32");
        check(&[plain("a", &[256], 23, 0)], "of type 23; allowed: F64");
        check(&[plain("a", &[4], 0, 0), plain("a", &[4], 0, 0)], "twice");
    }

    #[test]
    fn absurd_counts_are_refused_before_anything_is_set_aside() {
        let refused = |bytes: &[u8]| read(bytes).err().expect("an error");
        assert!(refused(&file(u64::MAX, &[], 0, &[], 0)).contains("tensors"));
        assert!(refused(&file(0, &[], u64::MAX, &[], 0)).contains("fields"));
        assert!(refused(&file(5, &[], 0, &[], 0)).contains("ends within its header"));
        let mut list = Vec::new();
        text(&mut list, "tokens");
        list.extend(9u32.to_le_bytes());
        list.extend(8u32.to_le_bytes());
        list.extend((1u64 << 60).to_le_bytes());
        assert!(refused(&file(0, &list, 1, &[], 0)).contains("longer than the file"));
        let mut long_text = (1u64 << 60).to_le_bytes().to_vec();
        long_text.extend(b"short");
        assert!(refused(&file(0, &long_text, 1, &[], 0)).contains("ends within its header"));
        let mut nested = Vec::new();
        text(&mut nested, "deep");
        nested.extend(9u32.to_le_bytes());
        nested.extend([9u32; 9].iter().flat_map(|kind| kind.to_le_bytes().into_iter().chain(1u64.to_le_bytes())));
        assert!(refused(&file(0, &nested, 1, &[], 0)).contains("nest deeper"));
    }

    #[test]
    fn every_shortening_of_a_good_file_is_an_error_not_a_panic() {
        let mut fields = Vec::new();
        text(&mut fields, "general.architecture");
        fields.extend(8u32.to_le_bytes());
        text(&mut fields, "flux");
        let whole = file(1, &fields, 1, &[plain("a", &[32], 0, 0)], 128);
        assert_eq!(read(&whole).unwrap().fields["general.architecture"], Value::Text("flux".into()));
        for n in 0..whole.len() {
            assert!(read(&whole[..n]).is_err(), "{n} bytes");
        }
    }
}
