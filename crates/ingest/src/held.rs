//! A picture's bytes and their share of the memory for all pictures, which is given back with the last of their handles.

use crate::error::FetchError;
use domain::memory::Share;

pub(crate) struct Held {
    bytes: Vec<u8>,
    memory: Share,
}

impl Held {
    /// The share holds at least as many bytes.
    pub(crate) fn new(bytes: Vec<u8>, memory: Share) -> Self {
        Self { bytes, memory }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn extend(&mut self, more: &[u8]) -> Result<(), FetchError> {
        self.memory.grow_to(self.bytes.len() + more.len()).map_err(|_| FetchError::Crowded)?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
