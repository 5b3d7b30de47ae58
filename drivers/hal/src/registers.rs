//! Device registers: mapped memory, or messages to whoever holds the device.
#![allow(unsafe_code)]

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use volatile::VolatilePtr;

use crate::memory::SharedMemory;

/// Registers that are reached by a call: a message to the rig, a function of a model, `pread` on a VFIO region.
pub trait RegisterIo: Send + Sync {
    /// Reads `width` at `offset` bytes from the start of the region; the value is zero-extended.
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError>;

    /// Writes the low `width` of `value` at `offset` bytes from the start of the region.
    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError>;
}

/// The size of one register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte
    Byte = 1,
    /// 2 bytes
    Word = 2,
    /// 4 bytes
    Double = 4,
    /// 8 bytes
    Quad = 8,
}

/// A register access that did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegisterError {
    /// The region ends before the register, or the offset is not a multiple of the register's size.
    #[error(
        "register {offset:#x} ({bytes} bytes) is outside the device's region of {len:#x} bytes or not aligned: this is not the device that the driver is for"
    )]
    OutOfRange {
        /// where the access was, in bytes from the start of the region
        offset: u64,
        /// how wide it was
        bytes: u64,
        /// how long the region is
        len: u64,
    },
    /// Whoever holds the device is gone, or answered with an error.
    #[error("the device cannot be reached: {0}")]
    Unreachable(String),
}

/// A value that a register can hold: `u8`, `u16`, `u32` or `u64`.
pub trait RegisterValue: Copy + sealed::Sealed {
    /// The access that moves such a value.
    const WIDTH: Width;
    /// From the low bits of a message.
    fn from_u64(value: u64) -> Self;
    /// To the low bits of a message.
    fn to_u64(self) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! register_value {
    ($($int:ty => $width:ident),*) => {$(
        impl sealed::Sealed for $int {}
        impl RegisterValue for $int {
            const WIDTH: Width = Width::$width;
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as $int
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self as u64
            }
        }
    )*};
}
register_value!(u8 => Byte, u16 => Word, u32 => Double, u64 => Quad);

/// One region of device registers (a BAR). Cheap to clone; every clone reaches the same registers.
///
/// ```
/// use hal::Registers;
/// # use pagewire_hal as hal;
/// let registers = Registers::in_memory(4096)?;
/// registers.write::<u32>(0x10, 0xcafe)?;
/// assert_eq!(registers.read::<u32>(0x10)?, 0xcafe);
/// assert!(registers.read::<u32>(4096).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Registers {
    pub(crate) access: RegisterAccess,
    len: u64,
}

#[derive(Clone)]
pub(crate) enum RegisterAccess {
    Mapped(MappedRegion),
    Remote(Arc<dyn RegisterIo>),
}

/// A mapped region and what keeps it mapped.
#[derive(Clone)]
pub(crate) struct MappedRegion {
    pub(crate) base: NonNull<u8>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the pointer is only used for volatile accesses inside the region, which the owner keeps mapped; any thread may make them.
unsafe impl Send for MappedRegion {}
// SAFETY: as above; concurrent volatile accesses of aligned words are the device's business, not Rust's memory model's.
unsafe impl Sync for MappedRegion {}

impl Registers {
    /// Registers that are mapped at `base` for `len` bytes.
    ///
    /// # Safety
    /// The region is mapped readable and writable as long as `owner` lives, is aligned to 8 bytes, and no Rust reference to it exists.
    pub unsafe fn mapped(base: NonNull<u8>, len: u64, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { access: RegisterAccess::Mapped(MappedRegion { base, _owner: owner }), len }
    }

    /// Registers in ordinary memory, all zero, with no device behind them: for benchmarks and tests of a driver's own cost.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn in_memory(len: usize) -> std::io::Result<Self> {
        let memory = Arc::new(SharedMemory::new("registers", len)?);
        // SAFETY: the memory stays mapped as long as `memory`, is page-aligned, and SharedMemory hands out no references.
        Ok(unsafe { Self::mapped(memory.base(), memory.len() as u64, memory) })
    }

    /// Registers of `len` bytes that are reached by calls.
    pub fn remote(io: Arc<dyn RegisterIo>, len: u64) -> Self {
        Self { access: RegisterAccess::Remote(io), len }
    }

    /// The size of the region in bytes.
    #[allow(clippy::len_without_is_empty)] // a region is never empty in a useful sense
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads the register at `offset` bytes.
    ///
    /// # Errors
    /// [`RegisterError::OutOfRange`] for an offset outside the region or not aligned; [`RegisterError::Unreachable`] when the device is gone.
    #[inline]
    pub fn read<T: RegisterValue>(&self, offset: u64) -> Result<T, RegisterError> {
        self.check(offset, T::WIDTH)?;
        match &self.access {
            // SAFETY: the range was checked, the offset is aligned to T, and the region is mapped as long as `self`.
            RegisterAccess::Mapped(region) => Ok(unsafe { VolatilePtr::new(region.base.add(offset as usize).cast::<T>()) }.read()),
            RegisterAccess::Remote(io) => io.read(offset, T::WIDTH).map(T::from_u64),
        }
    }

    /// Writes the register at `offset` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write<T: RegisterValue>(&self, offset: u64, value: T) -> Result<(), RegisterError> {
        self.check(offset, T::WIDTH)?;
        match &self.access {
            RegisterAccess::Mapped(region) => {
                // SAFETY: the range was checked, the offset is aligned to T, and the region is mapped as long as `self`.
                unsafe { VolatilePtr::new(region.base.add(offset as usize).cast::<T>()) }.write(value);
                Ok(())
            }
            RegisterAccess::Remote(io) => io.write(offset, T::WIDTH, value.to_u64()),
        }
    }

    #[inline]
    pub(crate) fn check(&self, offset: u64, width: Width) -> Result<(), RegisterError> {
        let bytes = width as u64;
        if offset.is_multiple_of(bytes) && offset.checked_add(bytes).is_some_and(|end| end <= self.len) {
            Ok(())
        } else {
            Err(RegisterError::OutOfRange { offset, bytes, len: self.len })
        }
    }
}
