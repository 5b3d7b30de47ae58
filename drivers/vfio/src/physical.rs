//! The space of a device without an IOMMU: physical addresses.
//!
//! Nothing is mapped here, and nothing is pinned: the device reaches all of this machine's memory. So it is given only memory that the
//! kernel does not move, huge pages that this process holds, and never a file's pages, which the kernel could reuse while the device reads.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use hal::memory::PAGE;
use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, SharedMemory};

use crate::frames::{PageFrame, frames_at};
use hal::iova::AddressWidth;

/// Physical addresses, for one device.
pub(crate) struct PhysicalSpace {
    width: AddressWidth,
    domain: Domain,
    queues: ProgressBoard,
    /// Length by address of what was handed to the device.
    known: Mutex<HashMap<u64, u64>>,
}

impl PhysicalSpace {
    pub(crate) fn new(width: AddressWidth) -> Self {
        Self { width, domain: Domain::new(), queues: ProgressBoard::new(), known: Mutex::default() }
    }

    fn last(&self) -> u64 {
        match self.width {
            AddressWidth::Bits32 => u32::MAX.into(),
            AddressWidth::Bits64 => u64::MAX,
        }
    }
}

impl DmaSpace for PhysicalSpace {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![PAGE as u64..=self.last()],
            granule: PAGE as u64,
            maps: u32::MAX,
            bytes: u64::MAX,
            whole_files: false,
            partial_page: true,
            writable_descriptor: false,
        }
    }

    fn memory(&self, name: &str, len: usize) -> io::Result<SharedMemory> {
        SharedMemory::with_huge_pages(name, len)
    }

    fn map_memory(&self, memory: &SharedMemory, _access: Access) -> Result<Mapping, DmaError> {
        let len = memory.len() as u64;
        if !memory.huge_pages() {
            return Err(DmaError::Full {
                len,
                reason:
                    "without an IOMMU, memory for the device has to lie on huge pages, which the kernel does not move, and there are not \
                         enough: `echo 8 | sudo tee /proc/sys/vm/nr_hugepages` reserves some (hugepages=8 on the kernel's command line is \
                         surer)"
                        .into(),
            });
        }
        let frames = frames_at(memory.base(), memory.len());
        let frames = frames.map_err(|error| DmaError::Map { len, reason: format!("reading /proc/self/pagemap: {error}") })?;
        let address = contiguous(&frames).map_err(|reason| DmaError::Map { len, reason: reason.into() })?;
        if address.checked_add(len - 1).is_none_or(|last| last > self.last()) {
            let reason = format!(
                "it lies at the physical address {address:#x}, and this device takes addresses below 4 GiB; reserve the huge pages at boot \
                 (hugepages=8 on the kernel's command line), where low memory is free"
            );
            return Err(DmaError::Map { len, reason });
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(address, len);
        Ok(Mapping::new(self.domain, address, len))
    }

    fn map_file(&self, _file: BorrowedFd<'_>, _range: Range<u64>) -> Result<Mapping, DmaError> {
        Err(DmaError::Unsupported(
            "there is no IOMMU, so nothing pins the file's pages: the kernel could give them to somebody else while the device reads them"
                .into(),
        ))
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        let (iova, len) = (mapping.iova(), mapping.len());
        let known = mapping.domain() == self.domain && self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&iova).is_some();
        if known { Ok(()) } else { Err(DmaError::Unmap { iova, len, reason: "it is not mapped here".into() }) }
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}

/// The physical address of pages that lie one behind the other, or why there is none.
fn contiguous(frames: &[PageFrame]) -> Result<u64, &'static str> {
    let numbers: Option<Vec<u64>> = frames.iter().map(|frame| frame.number()).collect();
    let numbers = numbers.ok_or("its physical address is not to be had: that takes root (CAP_SYS_ADMIN)")?;
    let first = *numbers.first().ok_or("it has no pages")?;
    if !numbers.iter().zip(first..).all(|(number, expected)| *number == expected) {
        return Err(
            "its huge pages do not lie one behind the other, as a device without an IOMMU needs them; use a smaller MTU (the packet \
                    buffers then fit into one), fewer queues or smaller rings, or reserve huge pages at boot (hugepages=8 on the kernel's command line)",
        );
    }
    first.checked_mul(PAGE as u64).ok_or("its physical address is beyond 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn pages_have_an_address_when_they_lie_one_behind_the_other() {
        let frames = |numbers: &[u64]| numbers.iter().map(|number| PageFrame::at(*number)).collect::<Vec<_>>();
        assert_eq!(contiguous(&frames(&[0x200, 0x201, 0x202])), Ok(0x20_0000));
        for (numbers, expected) in [(vec![5, 7], "one behind the other"), (vec![6, 5], "one behind the other"), (vec![0], "takes root")] {
            assert!(contiguous(&frames(&numbers)).unwrap_err().contains(expected), "{numbers:?}");
        }
        assert!(contiguous(&[]).is_err());
    }

    #[test]
    fn neither_files_nor_pages_that_can_move_are_given_to_the_device() {
        let space = PhysicalSpace::new(AddressWidth::Bits32);
        let file = tempfile::tempfile().unwrap();
        assert!(space.map_file(file.as_fd(), 0..1).unwrap_err().to_string().contains("nothing pins the file's pages"));
        let memory = SharedMemory::new("test", PAGE).unwrap();
        let error = space.map_memory(&memory, Access::ReadWrite).unwrap_err().to_string();
        assert!(error.contains("nr_hugepages"), "{error}");
    }
}
