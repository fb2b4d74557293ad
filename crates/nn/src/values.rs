//! The bridge between candle's tensors and the slices that kernels take.

use crate::{Error, Result};
use candle_core::{Device, Shape, Storage, Tensor};
use std::ops::{Deref, Range};

/// A contiguous f32 tensor's elements, row-major, borrowed.
pub struct Values<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
}

impl<'a> Values<'a> {
    /// The tensor must be contiguous, f32 and on the CPU.
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| Error::Shape(format!("a tensor of shape {:?} is not contiguous", tensor.dims())))?;
        match &*storage {
            Storage::Cpu(values) => values.as_slice::<f32>()?,
            _ => return Err(Error::Shape("a tensor is not on the CPU".to_owned())),
        };
        Ok(Self { storage: Box::new(storage), range: start..end })
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(values) => {
                &values.as_slice::<f32>().expect("`of` has checked the type, this is a bug")[self.range.clone()]
            }
            _ => unreachable!("`of` has checked the device, this is a bug"),
        }
    }
}

/// A tensor of these elements.
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// The elements of any f32 tensor, copied.
pub fn to_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.contiguous()?;
    Ok(Values::of(&tensor)?.to_vec())
}
