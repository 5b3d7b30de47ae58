//! Descriptors of split and packed rings (VIRTIO 1.3, 2.7.5 and 2.8.13).

pub(super) const SIZE: u64 = 16;
/// A descriptor as it lies in memory.
pub(super) type Raw = [u8; SIZE as usize];

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;
pub(super) const AVAIL: u16 = 1 << 7;
pub(super) const USED: u16 = 1 << 15;

/// What a descriptor says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    /// Split: the next descriptor. Packed: the buffer's identifier.
    pub link: u16,
}

impl Descriptor {
    pub(super) fn of(raw: &Raw, packed: bool) -> Self {
        let word = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *raw;
        let (flags, link) = if packed { (word(14), word(12)) } else { (word(12), word(14)) };
        Self { address: u64::from_le_bytes([a, b, c, d, e, f, g, h]), len: u32::from_le_bytes([i, j, k, l]), flags, link }
    }

    /// The flags AVAIL and USED, as a driver with this wrap counter sets them for a descriptor that it makes available.
    pub(super) fn is_available(&self, wrap: bool) -> bool {
        (self.flags & AVAIL != 0) == wrap && (self.flags & USED != 0) != wrap
    }
}
