//! A ring of 16-byte descriptors in memory that the device shares.

use std::sync::Arc;

use crate::memory::{DmaMemory, PairWriter};
use crate::space::{DmaError, DmaSpace};

/// Descriptors of 16 bytes, written and read by volatile copies of their 64-bit halves. Behind them lie [`ZEROS`](Self::ZEROS) zero bytes.
pub struct DescriptorRing {
    memory: DmaMemory,
    len: u16,
}

impl DescriptorRing {
    /// The size of a descriptor in bytes.
    pub const DESCRIPTOR: usize = 16;

    /// How many zero bytes the device can read behind the ring: padding for the shortest frame.
    pub const ZEROS: u32 = 64;

    /// A ring of `len` zeroed descriptors. It starts at a page, which is more than any device asks for.
    ///
    /// # Errors
    /// No memory, or the space's [`DmaError`].
    pub fn new(space: &Arc<dyn DmaSpace>, name: &str, len: u16) -> Result<Self, DmaError> {
        let bytes = usize::from(len) * Self::DESCRIPTOR + Self::ZEROS as usize;
        Ok(Self { memory: DmaMemory::new(space, name, bytes)?, len })
    }

    /// The bus address of descriptor 0.
    pub fn iova(&self) -> u64 {
        self.memory.iova()
    }

    /// The bus address of the zero bytes.
    pub fn zeros(&self) -> u64 {
        self.memory.iova() + u64::from(self.len) * Self::DESCRIPTOR as u64
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

    /// The index `steps` after `index`, at most once around.
    #[inline(always)]
    pub fn after(&self, index: u16, steps: usize) -> u16 {
        let (index, len) = (usize::from(index) + steps, usize::from(self.len));
        (if index < len { index } else { index - len }) as u16
    }

    /// The index before `index`.
    #[inline(always)]
    pub fn previous(&self, index: u16) -> u16 {
        if index == 0 { self.len - 1 } else { index - 1 }
    }

    /// Writes many descriptors, from `next` on: small enough to stay in registers.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline(always)]
    pub fn writer(&self, next: u16) -> RingWriter<'_> {
        RingWriter(self.memory.memory().pair_writer(self.len, next))
    }

    /// Writes descriptor `index`, low half first.
    ///
    /// # Panics
    /// When there is no such descriptor: indices are the driver's own.
    #[inline(always)]
    pub fn write(&self, index: u16, [low, high]: [u64; 2]) {
        self.memory.memory().write(usize::from(index) * Self::DESCRIPTOR, [low.to_le(), high.to_le()]);
    }

    /// Writes the byte at `offset` (0 to 15) of descriptor `index`.
    ///
    /// # Panics
    /// When there is no such descriptor.
    #[inline(always)]
    pub fn write_byte(&self, index: u16, offset: usize, value: u8) {
        self.memory.memory().write(usize::from(index) * Self::DESCRIPTOR + offset, value);
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

/// Writes descriptors of a [`DescriptorRing`], one after the other, around its end.
pub struct RingWriter<'r>(PairWriter<'r>);

impl RingWriter<'_> {
    /// Writes the next descriptor, low half first.
    #[inline(always)]
    pub fn write(&mut self, [low, high]: [u64; 2]) {
        self.0.write([low.to_le(), high.to_le()]);
    }
}
