//! What a device can address, and how memory and files get there.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::BorrowedFd;

use crate::memory::SharedMemory;
use crate::progress::ProgressBoard;
use crate::segment::{Domain, Segment};

/// An address space that devices see: an IOMMU domain, the rig's guest memory, a vhost-user memory table.
///
/// Mapping and unmapping may block (a page fault from disk, a message) and may fail. Neither belongs on the hot path.
pub trait DmaSpace: Send + Sync {
    /// The domain of this space's addresses.
    fn domain(&self) -> Domain;

    /// What can be mapped here.
    fn limits(&self) -> DmaLimits;

    /// Memory of the kind that this space can map: ordinary pages, unless it needs others.
    ///
    /// # Errors
    /// What the system said.
    fn memory(&self, name: &str, len: usize) -> io::Result<SharedMemory> {
        SharedMemory::new(name, len)
    }

    /// Maps all of `memory` for the device.
    ///
    /// # Errors
    /// [`DmaError`], with what would help.
    fn map_memory(&self, memory: &SharedMemory, access: Access) -> Result<Mapping, DmaError>;

    /// Maps the bytes `range` of `file`, read-only for the device: the pages of the page cache themselves.
    ///
    /// `range.start` is a multiple of the granule, 0 where [whole files](DmaLimits::whole_files) are asked for. The mapping may be shorter
    /// than the range where the partial last page of a file [cannot be mapped](DmaLimits::partial_page); its length says so.
    /// Whoever maps a file keeps it from being truncated under way, by a lease where one is to be had.
    ///
    /// # Errors
    /// [`DmaError`]; the caller then falls back to copying and reports it.
    fn map_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError>;

    /// Takes a mapping back. The caller has made sure that no device still reads it: see [`progress`](crate::progress).
    ///
    /// # Errors
    /// [`DmaError::Unmap`]; the range then counts as mapped for ever and is not used again.
    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError>;

    /// The queues whose devices read from this space.
    fn queues(&self) -> &ProgressBoard;
}

/// What a [`DmaSpace`] can do. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmaLimits {
    /// The usable bus addresses.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// Mappings start and end at multiples of this.
    pub granule: u64,
    /// How many mappings can be made now, besides those that exist.
    pub maps: u32,
    /// How many bytes can be mapped altogether (a memlock limit, an address range).
    pub bytes: u64,
    /// Only a whole file can be mapped, from offset 0 (QEMU before 8.1).
    pub whole_files: bool,
    /// Whether the last page of a file that is not a multiple of the granule can be mapped.
    pub partial_page: bool,
    /// The descriptor of a file must be open for writing (vhost-user), which rules out a lease.
    pub writable_descriptor: bool,
}

/// What a device may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// A range of bus addresses that a space has mapped. Given back by [`DmaSpace::unmap`], or it stays mapped.
#[derive(Debug)]
#[must_use = "a mapping that is not given back to DmaSpace::unmap stays mapped"]
pub struct Mapping {
    domain: Domain,
    iova: u64,
    len: u64,
}

impl Mapping {
    /// For a [`DmaSpace`] that has just mapped `len` bytes at bus address `iova`.
    ///
    /// # Panics
    /// When the range is empty or passes the end of the address space: no space maps that.
    pub fn new(domain: Domain, iova: u64, len: u64) -> Self {
        assert!(len > 0 && iova.checked_add(len).is_some(), "a mapping of {len} bytes at {iova:#x}");
        Self { domain, iova, len }
    }

    /// The bus address of the first byte.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // an empty mapping cannot be made
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The space it belongs to.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// `len` bytes from `offset` on, as a segment for the device; `None` when they are not all mapped, or `len` is 0.
    ///
    /// ```
    /// # use pagewire_hal::{Mapping, segment::Domain};
    /// let mapping = Mapping::new(Domain::new(), 0x10_0000, 4096);
    /// assert_eq!(mapping.segment(96, 4000).unwrap().address(), 0x10_0060);
    /// assert!(mapping.segment(97, 4000).is_none());
    /// ```
    #[inline]
    pub fn segment(&self, offset: u64, len: u32) -> Option<Segment<'_>> {
        let inside = len != 0 && offset.checked_add(u64::from(len)).is_some_and(|end| end <= self.len);
        inside.then(|| Segment::new(self.domain, self.iova + offset, len))
    }
}

/// A mapping that could not be made or taken back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DmaError {
    /// No room: slots, bytes or addresses are used up.
    #[error("no room to map {len} bytes: {reason}")]
    Full {
        /// how many bytes were wanted
        len: u64,
        /// what is used up, and how to have more of it
        reason: String,
    },
    /// The space cannot map this at all.
    #[error("cannot be mapped for the device: {0}")]
    Unsupported(String),
    /// The system or the device's holder refused.
    #[error("mapping {len} bytes for the device failed: {reason}")]
    Map {
        /// how many bytes were wanted
        len: u64,
        /// what the system said
        reason: String,
    },
    /// A mapping could not be taken back.
    #[error("unmapping {len} bytes at {iova:#x} failed: {reason}")]
    Unmap {
        /// the bus address
        iova: u64,
        /// the length in bytes
        len: u64,
        /// what the system said
        reason: String,
    },
}
