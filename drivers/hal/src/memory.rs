//! Memory that is shared with a device.
//!
//! No reference to it is ever made: the device may change it at any moment. Values are copied in and out, descriptors by volatile
//! accesses, ring indices as atomics.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use volatile::VolatilePtr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::space::{Access, DmaError, DmaSpace, Mapping};

/// The size of a page here, in bytes.
pub const PAGE: usize = 4096;
/// The size of a huge page here, in bytes.
pub const HUGE_PAGE: usize = 2 << 20;

/// Anonymous memory behind a descriptor (a memfd), mapped into this process: it can be given to other processes and mapped for devices.
pub struct SharedMemory {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
    huge: bool,
}

// SAFETY: the pointer is to a mapping that this value owns; all access is by copy.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; concurrent copies may tear, as copies of memory that a device writes may anyway, but never dangle.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// At least `len` bytes of zeros, rounded up to whole pages. `name` shows in /proc/PID/maps.
    ///
    /// # Errors
    /// What the system said: no memory, no descriptors.
    pub fn new(name: &str, len: usize) -> io::Result<Self> {
        Self::create(name, len, PAGE, MemfdFlags::CLOEXEC)
    }

    /// As [`new`](Self::new), on huge pages of 2 MiB when the system has enough of them reserved and lets this process have them, else on
    /// ordinary pages.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_huge_pages(name: &str, len: usize) -> io::Result<Self> {
        Self::create(name, len, HUGE_PAGE, MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
            .or_else(|_| Self::new(name, len))
    }

    fn create(name: &str, len: usize, page: usize, flags: MemfdFlags) -> io::Result<Self> {
        let len = len
            .max(1)
            .checked_next_multiple_of(page)
            .ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "a size beyond the address space"))?;
        let fd = memfd_create(name, flags | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, len as u64)?;
        if page == HUGE_PAGE {
            // Taken now: where a control group (a container's limit) forbids them, the kernel promises huge pages all the same, and the first
            // touch of one would end this process (SIGBUS).
            fallocate(&fd, FallocateFlags::empty(), 0, len as u64)?;
        }
        // Whoever is given the descriptor could cut it off, and the next access here would end this process (SIGBUS).
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL)?;
        Self::map(fd, len, page == HUGE_PAGE)
    }

    /// The same memory once more, with a descriptor and a mapping of its own, for a space whose device lives in this process.
    ///
    /// # Errors
    /// What the system said.
    pub fn map_again(&self) -> io::Result<Self> {
        Self::map(self.fd.try_clone()?, self.len, self.huge)
    }

    fn map(fd: OwnedFd, len: usize, huge: bool) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE, &fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { fd, base, len, huge })
    }

    /// The first byte, for a bus that maps by address. Valid as long as `self`; no reference may be made of it.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes, a multiple of the page size.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it lies on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// When the range is outside the memory: offsets are the program's own, never a device's.
    #[inline]
    pub fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the range is inside the mapping, and `bytes` cannot overlap it, since no reference to the mapping exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset).as_ptr(), bytes.len()) }
    }

    /// Copies from `offset` into `bytes`.
    ///
    /// # Panics
    /// As [`write_bytes`](Self::write_bytes).
    #[inline]
    pub fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        self.check(offset, bytes.len());
        // SAFETY: as in `write_bytes`.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset).as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Reads a value (a descriptor, a status) once, by a volatile copy.
    ///
    /// # Panics
    /// When the value is outside the memory or not aligned for its type.
    #[inline]
    pub fn read<T: FromBytes + Copy>(&self, offset: usize) -> T {
        self.cell(offset).read()
    }

    /// Writes a value once, by a volatile copy.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline]
    pub fn write<T: FromBytes + IntoBytes + Immutable + Copy>(&self, offset: usize, value: T) {
        self.cell(offset).write(value);
    }

    /// A ring index or flag that orders other memory.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline]
    pub fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: aligned and inside (checked by `cell`), and an atomic may be shared with a device.
        unsafe { AtomicU16::from_ptr(self.cell::<u16>(offset).as_raw_ptr().as_ptr()) }
    }

    /// As [`atomic_u16`](Self::atomic_u16), 32 bits wide.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `atomic_u16`.
        unsafe { AtomicU32::from_ptr(self.cell::<u32>(offset).as_raw_ptr().as_ptr()) }
    }

    /// Writes a ring of `len` pairs of 64-bit words at the memory's start, from pair `next` on.
    ///
    /// # Panics
    /// When the ring is outside the memory, or `next` outside the ring.
    #[inline(always)]
    pub(crate) fn pair_writer(&self, len: u16, next: u16) -> PairWriter<'_> {
        self.check(0, usize::from(len) * PairWriter::PAIR);
        if next >= len {
            outside(usize::from(next) * PairWriter::PAIR, PairWriter::PAIR, usize::from(len) * PairWriter::PAIR);
        }
        let first = self.base.cast();
        // SAFETY: both are inside the memory (checked above), or at its end.
        let (end, next) = unsafe { (first.add(len.into()), first.add(next.into())) };
        PairWriter { first, end, next, memory: PhantomData }
    }

    #[inline(always)]
    fn cell<T: Copy>(&self, offset: usize) -> VolatilePtr<'_, T> {
        self.check(offset, size_of::<T>());
        if !offset.is_multiple_of(align_of::<T>()) {
            not_aligned(offset);
        }
        // SAFETY: inside the mapping and aligned, since the mapping starts at a page; any bytes are a valid T (FromBytes at the callers).
        unsafe { VolatilePtr::new(self.base.add(offset).cast::<T>()) }
    }

    #[inline(always)]
    fn check(&self, offset: usize, len: usize) {
        if offset > self.len || len > self.len - offset {
            outside(offset, len, self.len);
        }
    }
}

/// Writes a ring of pairs of 64-bit words in [`SharedMemory`], one after the other. It needs no check for each, since `next` is always one
/// of the ring's: it starts as one, and goes from the last to the first.
pub(crate) struct PairWriter<'m> {
    first: NonNull<[u64; 2]>,
    end: NonNull<[u64; 2]>,
    next: NonNull<[u64; 2]>,
    memory: PhantomData<&'m SharedMemory>,
}

impl PairWriter<'_> {
    /// The size of a pair in bytes.
    const PAIR: usize = 16;

    /// Writes the next pair by two volatile stores, the low one first.
    #[inline(always)]
    pub(crate) fn write(&mut self, [low, high]: [u64; 2]) {
        let pair = self.next.cast::<u64>();
        // SAFETY: the pair is inside the memory, which is borrowed, and aligned, since the memory starts at a page.
        unsafe {
            VolatilePtr::new(pair).write(low);
            VolatilePtr::new(pair.add(1)).write(high);
            self.next = self.next.add(1);
        }
        if self.next == self.end {
            self.next = self.first;
        }
    }
}

// The panics are functions, so that no hot path prepares their messages.

#[cold]
#[inline(never)]
fn outside(offset: usize, len: usize, size: usize) -> ! {
    panic!("{len} bytes at {offset:#x} of {size:#x}")
}

#[cold]
#[inline(never)]
fn not_aligned(offset: usize) -> ! {
    panic!("offset {offset:#x} is not aligned")
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `create` and nothing refers to it any more. A device that still does holds its own pins.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// [`SharedMemory`] that is mapped for a device in one space: descriptor rings and their like. Unmapped when dropped, so drop it after
/// the device has been stopped.
pub struct DmaMemory {
    memory: SharedMemory,
    mapping: Option<Mapping>,
    iova: u64,
    space: Arc<dyn DmaSpace>,
}

impl DmaMemory {
    /// At least `len` bytes of zeros that the device reads and writes.
    ///
    /// # Errors
    /// No memory, or the space's [`DmaError`].
    pub fn new(space: &Arc<dyn DmaSpace>, name: &str, len: usize) -> Result<Self, DmaError> {
        let memory = space.memory(name, len).map_err(|error| DmaError::Map { len: len as u64, reason: error.to_string() })?;
        let mapping = space.map_memory(&memory, Access::ReadWrite)?;
        Ok(Self { iova: mapping.iova(), memory, mapping: Some(mapping), space: Arc::clone(space) })
    }

    /// The bus address of the first byte.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// The memory, for values in and out.
    #[inline(always)]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // A failure leaves the range mapped: the space counts it as lost and the kernel keeps the pages until the device is closed.
            let _ = self.space.unmap(mapping);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_in_and_out_by_copy() {
        let memory = SharedMemory::new("test", 100).unwrap();
        assert_eq!(memory.len(), PAGE);
        memory.write(8, 0x1122_3344_5566_7788_u64);
        assert_eq!(memory.read::<u16>(8), 0x7788);
        memory.write_bytes(4090, b"tail!!");
        let mut bytes = [0; 6];
        memory.read_bytes(4090, &mut bytes);
        assert_eq!(&bytes, b"tail!!");
        memory.atomic_u16(8).store(1, std::sync::atomic::Ordering::Release);
        assert_eq!(memory.read::<u16>(8), 1);
    }

    #[test]
    fn whoever_has_the_descriptor_cannot_cut_the_memory_off() {
        for memory in [SharedMemory::new("test", PAGE).unwrap(), SharedMemory::with_huge_pages("test", PAGE).unwrap()] {
            assert!(ftruncate(memory.as_fd(), 0).is_err());
            assert!(fcntl_add_seals(memory.as_fd(), SealFlags::FUTURE_WRITE).is_err());
            memory.map_again().unwrap().write_bytes(0, b"still here");
            assert_eq!(memory.read::<u8>(0), b's');
        }
    }

    #[test]
    #[should_panic(expected = "7 bytes at 0xffa")]
    fn a_write_past_the_end_is_stopped() {
        SharedMemory::new("test", PAGE).unwrap().write_bytes(4090, b"tail!!!");
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn an_unaligned_value_is_stopped() {
        SharedMemory::new("test", PAGE).unwrap().read::<u32>(2);
    }
}
