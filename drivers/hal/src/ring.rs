//! A ring of 16-byte descriptors in memory that the device shares.

use std::sync::Arc;

use crate::memory::DmaMemory;
use crate::space::{DmaError, DmaSpace};

/// Descriptors of 16 bytes, written and read by volatile copies of their 64-bit halves.
pub struct DescriptorRing {
    memory: DmaMemory,
    len: u16,
}

impl DescriptorRing {
    /// The size of a descriptor in bytes.
    pub const DESCRIPTOR: usize = 16;

    /// A ring of `len` zeroed descriptors. It starts at a page, which is more than any device asks for.
    ///
    /// # Errors
    /// No memory, or the space's [`DmaError`].
    pub fn new(space: &Arc<dyn DmaSpace>, name: &str, len: u16) -> Result<Self, DmaError> {
        Ok(Self { memory: DmaMemory::new(space, name, usize::from(len) * Self::DESCRIPTOR)?, len })
    }

    /// The bus address of descriptor 0.
    pub fn iova(&self) -> u64 {
        self.memory.iova()
    }

    /// How many descriptors there are.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> u16 {
        self.len
    }

    /// The index after `index`.
    #[inline(always)]
    pub fn next(&self, index: u16) -> u16 {
        if index + 1 == self.len { 0 } else { index + 1 }
    }

    /// Writes descriptor `index`, low half first.
    ///
    /// # Panics
    /// When there is no such descriptor: indices are the driver's own.
    #[inline(always)]
    pub fn write(&self, index: u16, [low, high]: [u64; 2]) {
        self.memory.memory().write(usize::from(index) * Self::DESCRIPTOR, [low.to_le(), high.to_le()]);
    }

    /// Reads the byte at `offset` (0 to 15) of descriptor `index` once: a status that says whether the rest may be read.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline(always)]
    pub fn read_byte(&self, index: u16, offset: usize) -> u8 {
        self.memory.memory().read(usize::from(index) * Self::DESCRIPTOR + offset)
    }

    /// Reads the high half of descriptor `index` once.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline(always)]
    pub fn read_high(&self, index: u16) -> u64 {
        u64::from_le(self.memory.memory().read(usize::from(index) * Self::DESCRIPTOR + 8))
    }
}
