//! The device's address space: memory and files in the IOMMU's table.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use hal::memory::HUGE_PAGE;
use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, SharedMemory};

use crate::container::Container;
use crate::file_pages::FilePages;
use crate::frames::{PageFrame, frames_of};
use crate::group::OpenGroup;
use crate::info::IommuInfo;
use crate::memlock::Memlock;
use hal::iova::{AddressWidth, Alignment, IovaAllocator};

/// What a container takes where the kernel does not say how many maps are left (`dma_entry_limit` of vfio_iommu_type1).
const MOST_MAPS: u32 = 65_535;

/// With so many bytes left that may be locked, rings lie on huge pages where there are any: one entry of the IOMMU's cache for all of a ring.
const AMPLE: u64 = 256 << 20;

/// An IOMMU table of the kernel's VFIO, for the devices of one group that this process has open.
///
/// Files are mapped read-only for the device, so no device and no driver's error can change a file through it.
pub struct VfioSpace {
    container: Container,
    info: IommuInfo,
    width: AddressWidth,
    domain: Domain,
    queues: ProgressBoard,
    /// The devices that use it. When all are closed, the kernel has taken all maps back with them.
    group: Weak<OpenGroup>,
    state: Mutex<State>,
}

struct State {
    addresses: IovaAllocator,
    /// By bus address.
    maps: HashMap<u64, Map>,
}

struct Map {
    /// As the kernel has it, whole pages.
    len: u64,
    /// A file's pages stay in this process' address space as long as they are mapped for the device: a map is tied to the addresses that it
    /// was made of. Memory is kept by its owner, who unmaps it first (`DmaMemory`, `PoolMapping`).
    pages: Option<FilePages>,
}

impl VfioSpace {
    pub(crate) fn new(container: Container, width: AddressWidth, group: Weak<OpenGroup>) -> io::Result<Self> {
        let info = container.info()?;
        let addresses = IovaAllocator::new(&info.usable(), info.granule(), width);
        let state = Mutex::new(State { addresses, maps: HashMap::new() });
        Ok(Self { container, info, width, domain: Domain::new(), queues: ProgressBoard::new(), group, state })
    }

    /// How many bits of an address the device drives.
    pub fn width(&self) -> AddressWidth {
        self.width
    }

    /// What the kernel said about the IOMMU when the device was opened.
    pub fn iommu(&self) -> &IommuInfo {
        &self.info
    }

    /// As [`map_file`](DmaSpace::map_file), with the permission chosen. For the proof alone: the kernel refuses [`Access::ReadWrite`],
    /// since the file is mapped read-only.
    ///
    /// # Errors
    /// As [`map_file`](DmaSpace::map_file).
    pub fn map_file_as(&self, file: BorrowedFd<'_>, range: Range<u64>, access: Access) -> Result<Mapping, DmaError> {
        let len = range.end.saturating_sub(range.start);
        if !range.start.is_multiple_of(self.info.granule()) {
            return Err(DmaError::Unsupported(format!(
                "a window that starts at {}: not at a page of {} bytes",
                range.start,
                self.info.granule()
            )));
        }
        self.check_open()?;
        let pages = FilePages::map(file, &range).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => DmaError::Unsupported(error.to_string()),
            _ => DmaError::Map { len, reason: format!("reading the file into the page cache: {error}") },
        })?;
        let mapped = pages.len() as u64;
        // SAFETY: `pages` is mapped for that length; it is read-only, and no reference to it exists at all.
        let iova = self.map_at(mapped, range.start, |container, iova| unsafe { container.map(iova, pages.base(), mapped, access) })?;
        self.state().maps.insert(iova, Map { len: mapped, pages: Some(pages) });
        Ok(Mapping::new(self.domain, iova, len))
    }

    /// Takes every access to a file window from this process: from now on a load from the mapping is a fault, and the device still reads
    /// it. Shows that no payload byte goes through the CPU.
    ///
    /// # Errors
    /// When `mapping` is not a file's, or not of this space.
    pub fn protect(&self, mapping: &Mapping) -> Result<(), DmaError> {
        self.with_pages(mapping, FilePages::protect)
    }

    /// The page frames of a file window, as they are now: equal to [`page_cache_frames`](crate::page_cache_frames) of the same range when
    /// nothing was copied.
    ///
    /// # Errors
    /// When `mapping` is not a file's, or not of this space, or /proc/self/pagemap cannot be read.
    pub fn page_frames(&self, mapping: &Mapping) -> Result<Vec<PageFrame>, DmaError> {
        self.with_pages(mapping, frames_of)
    }

    fn with_pages<T>(&self, mapping: &Mapping, work: impl FnOnce(&FilePages) -> io::Result<T>) -> Result<T, DmaError> {
        let state = self.state();
        let found = state.maps.get(&mapping.iova()).filter(|_| mapping.domain() == self.domain).and_then(|map| map.pages.as_ref());
        let pages = found.ok_or_else(|| DmaError::Unsupported("this mapping is not a file's window in this space".into()))?;
        work(pages).map_err(|error| DmaError::Map { len: mapping.len(), reason: error.to_string() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.group.strong_count() == 0
    }

    fn check_open(&self) -> Result<(), DmaError> {
        if self.is_closed() { Err(DmaError::Unsupported("the device is closed".into())) } else { Ok(()) }
    }

    /// Finds bus addresses for `len` bytes and has `map` map them, without the lock: it may wait for a disk.
    fn map_at(&self, len: u64, phase: u64, map: impl FnOnce(&Container, u64) -> io::Result<()>) -> Result<u64, DmaError> {
        let huge = HUGE_PAGE as u64;
        // A large page of the IOMMU needs the bus address and the physical one to agree in their low 21 bits; the page cache's large
        // folios lie as in the file.
        let pages = Alignment { modulus: self.info.granule(), phase: 0 };
        let aligned = if len >= huge { Alignment { modulus: huge, phase: phase % huge } } else { pages };
        let found = {
            let addresses = &mut self.state().addresses;
            addresses.allocate(len, aligned).or_else(|| addresses.allocate(len, pages))
        };
        let iova = found.ok_or_else(|| {
            let reason = match self.width {
                AddressWidth::Bits32 => "this device takes addresses below 4 GiB, and they are used up; unmap other windows first",
                AddressWidth::Bits64 => "the IOMMU's addresses are used up; unmap other windows first",
            };
            DmaError::Full { len, reason: reason.into() }
        })?;
        match map(&self.container, iova) {
            Ok(()) => Ok(iova),
            Err(error) => {
                self.state().addresses.release(iova, len);
                Err(refused(len, &error, Memlock::now()))
            }
        }
    }

    /// Takes a map from the device. What is left of it, when the kernel cannot, has to stay as it is.
    fn unmap_at(&self, iova: u64, map: &Map) -> io::Result<()> {
        match self.container.unmap(iova, map.len) {
            Err(error) if !self.is_closed() => Err(error),
            _ => Ok(()),
        }
    }
}

impl DmaSpace for VfioSpace {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        let (free, maps) = {
            let state = self.state();
            (state.addresses.free_bytes(), state.maps.len() as u32)
        };
        let last = match self.width {
            AddressWidth::Bits32 => u64::from(u32::MAX),
            AddressWidth::Bits64 => u64::MAX,
        };
        let ranges = self.info.usable().into_iter().map(|range| *range.start()..=(*range.end()).min(last));
        // The kernel's own count, where it gives one: it is never below what this space knows of.
        let left = self.container.info().ok().and_then(|info| info.maps_left).unwrap_or(MOST_MAPS.saturating_sub(maps));
        DmaLimits {
            ranges: ranges.filter(|range| !range.is_empty()).collect(),
            granule: self.info.granule(),
            maps: left,
            bytes: free.min(Memlock::now().left()),
            whole_files: false,
            partial_page: true,
            writable_descriptor: false,
        }
    }

    fn memory(&self, name: &str, len: usize) -> io::Result<SharedMemory> {
        // A huge page counts as a whole against the limit, which is for files rather than for rings.
        if Memlock::now().left() >= AMPLE { SharedMemory::with_huge_pages(name, len) } else { SharedMemory::new(name, len) }
    }

    fn map_memory(&self, memory: &SharedMemory, access: Access) -> Result<Mapping, DmaError> {
        self.check_open()?;
        let len = memory.len() as u64;
        // SAFETY: the memory is mapped for its length, and SharedMemory hands out no reference to it. Its owner unmaps it here before it
        // goes; should it go earlier, the kernel's pins keep the pages.
        let iova = self.map_at(len, 0, |container, iova| unsafe { container.map(iova, memory.base(), len, access) })?;
        self.state().maps.insert(iova, Map { len, pages: None });
        Ok(Mapping::new(self.domain, iova, len))
    }

    fn map_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError> {
        self.map_file_as(file, range, Access::Read)
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        let (iova, len) = (mapping.iova(), mapping.len());
        let failed = |reason: String| DmaError::Unmap { iova, len, reason };
        if mapping.domain() != self.domain {
            return Err(failed("it is mapped in another device's space".into()));
        }
        let map = self.state().maps.remove(&iova).ok_or_else(|| failed("it is not mapped".into()))?;
        if let Err(error) = self.unmap_at(iova, &map) {
            // Still mapped, for all that is known: neither its addresses nor its pages may be used for anything else.
            std::mem::forget(map.pages);
            return Err(failed(error.to_string()));
        }
        self.state().addresses.release(iova, map.len);
        Ok(())
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}

impl Drop for VfioSpace {
    fn drop(&mut self) {
        let maps = std::mem::take(&mut self.state().maps);
        for (iova, map) in maps {
            if self.unmap_at(iova, &map).is_err() {
                std::mem::forget(map.pages);
            }
        }
    }
}

/// Why the kernel refused a map, and what would help.
fn refused(len: u64, error: &io::Error, memlock: Memlock) -> DmaError {
    let map = |reason: &str| DmaError::Map { len, reason: format!("{reason} ({error})") };
    match error.raw_os_error() {
        Some(libc::ENOMEM) => DmaError::Full { len, reason: memlock.remedy(len) },
        Some(libc::ENOSPC) => DmaError::Full {
            len,
            reason: "the container has as many maps as it takes (65535 by default); use larger or fewer windows, or load \
             vfio_iommu_type1 with a larger dma_entry_limit"
                .into(),
        },
        Some(libc::EOPNOTSUPP) => DmaError::Unsupported(
            "the file system keeps this file's pages outside the page cache (DAX), and \
         they cannot be pinned"
                .into(),
        ),
        Some(libc::EEXIST) => map("these bus addresses are mapped already, by nobody that this space knows of"),
        Some(libc::EINVAL) => map("the IOMMU does not take these bus addresses"),
        Some(libc::EFAULT) => map("pages cannot be pinned: the file has become shorter, or its pages were to be writable for the \
         device, or they are secret memory"),
        Some(libc::EBUSY | libc::ENODEV) => map("the container has no IOMMU any more: the device was taken away"),
        _ => DmaError::Map { len, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_map_says_what_would_help() {
        let memlock = Memlock { limit: Some(8 << 20), privileged: false, locked: 8 << 20 };
        for (errno, expected) in [
            (libc::ENOMEM, "ulimit -l 17408"),
            (libc::ENOSPC, "dma_entry_limit"),
            (libc::EOPNOTSUPP, "DAX"),
            (libc::EEXIST, "mapped already"),
            (libc::EFAULT, "cannot be pinned"),
            (libc::EINVAL, "bus addresses"),
            (libc::EIO, "Input/output"),
        ] {
            let error = refused(1 << 20, &io::Error::from_raw_os_error(errno), memlock).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
