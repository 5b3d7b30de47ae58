//! One structure of a device, inside its BAR: what is outside of it is out of reach.

use hal::registers::{RegisterValue, Width};
use hal::{Doorbell, RegisterError, Registers};

/// A part of a BAR. Its bounds were checked when it was made.
#[derive(Clone)]
pub(super) struct Region {
    registers: Registers,
    start: u64,
    len: u64,
}

impl Region {
    /// `len` bytes from `start` of a BAR; `None` when the BAR is shorter.
    pub(super) fn new(registers: Registers, start: u32, len: u32) -> Option<Self> {
        let (start, len) = (u64::from(start), u64::from(len));
        (start + len <= registers.len()).then_some(Self { registers, start, len })
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read<T: RegisterValue>(&self, offset: u64) -> Result<T, RegisterError> {
        self.registers.read(self.place(offset, T::WIDTH)?)
    }

    pub(super) fn write<T: RegisterValue>(&self, offset: u64, value: T) -> Result<(), RegisterError> {
        self.registers.write(self.place(offset, T::WIDTH)?, value)
    }

    /// A 64-bit field as two accesses of 32 bits, which is what all devices take (VIRTIO 1.3, 4.1.3.1).
    pub(super) fn write_wide(&self, offset: u64, value: u64) -> Result<(), RegisterError> {
        self.write(offset, value as u32)?;
        self.write(offset + 4, (value >> 32) as u32)
    }

    /// The 16-bit register at `offset` as a doorbell.
    pub(super) fn doorbell(&self, offset: u64) -> Result<Doorbell, RegisterError> {
        Doorbell::register(&self.registers, self.place(offset, Width::Word)?, Width::Word)
    }

    fn place(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let bytes = width as u64;
        match offset.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(RegisterError::OutOfRange { offset, bytes, len: self.len }),
        }
    }
}
