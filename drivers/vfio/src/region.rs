//! The regions of a device: configuration space and BARs, mapped or through the kernel.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use hal::memory::PAGE;
use hal::registers::{RegisterIo, Width};
use hal::{RegisterError, Registers};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_bindings::bindings::vfio::{VFIO_PCI_CONFIG_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP};
use volatile::VolatilePtr;

use crate::group::Claim;
use crate::handle::{DeviceHandle, RegionLayout};

/// An open device; closed when the last of its registers and interrupts is dropped.
pub(crate) struct OpenDevice {
    /// First: the space learns that the device is closed before the maps go. `None` without an IOMMU.
    _claim: Option<Claim>,
    pub(crate) handle: DeviceHandle,
    /// The device's descriptor once more, closed when everything else is. The kernel keeps a device that is to be removed as long as that, so
    /// that vfio-ioctls still finds its directory in /sys, without which its drop panics.
    _last: Option<OwnedFd>,
}

/// A part of the device's descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    /// Where it starts in the descriptor.
    start: u64,
    pub(crate) len: u64,
    /// What may be mapped, relative to the region, in order.
    mappable: Vec<Range<u64>>,
}

impl OpenDevice {
    pub(crate) fn new(claim: Option<Claim>, handle: DeviceHandle) -> Arc<Self> {
        // Without another descriptor to be had, it is closed in the usual order.
        let last = handle.fd().try_clone_to_owned().ok();
        Arc::new(Self { _claim: claim, handle, _last: last })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.handle.fd()
    }

    /// Region `index`; `None` when the device does not have it.
    pub(crate) fn region(&self, index: u32) -> Option<Region> {
        let RegionLayout { start, len, flags, areas } = self.handle.region(index);
        let mappable = if flags & VFIO_REGION_INFO_FLAG_MMAP != 0 { mappable(len, areas) } else { Vec::new() };
        (len != 0).then_some(Region { start, len, mappable })
    }

    /// Configuration space.
    pub(crate) fn config(&self) -> Option<Region> {
        self.region(VFIO_PCI_CONFIG_REGION_INDEX)
    }

    /// Reads a register through the kernel, zero-extended.
    pub(crate) fn read(&self, region: &Region, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let at = region.place(offset, width)?;
        let mut bytes = [0; 8];
        let len =
            rustix::io::pread(self.fd(), &mut bytes[..width as usize], at).map_err(|error| unreachable("read", offset, error.into()))?;
        if len != width as usize {
            return Err(unreachable("read", offset, io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a register through the kernel.
    pub(crate) fn write(&self, region: &Region, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        let at = region.place(offset, width)?;
        let len = rustix::io::pwrite(self.fd(), &value.to_le_bytes()[..width as usize], at)
            .map_err(|error| unreachable("written", offset, error.into()))?;
        if len != width as usize {
            return Err(unreachable("written", offset, io::ErrorKind::WriteZero.into()));
        }
        Ok(())
    }
}

fn unreachable(what: &str, offset: u64, error: io::Error) -> RegisterError {
    RegisterError::Unreachable(format!("register {offset:#x} cannot be {what}: {error}"))
}

impl Region {
    fn place(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let bytes = width as u64;
        let inside = offset.is_multiple_of(bytes) && offset.checked_add(bytes).is_some_and(|end| end <= self.len);
        if inside { Ok(self.start + offset) } else { Err(RegisterError::OutOfRange { offset, bytes, len: self.len }) }
    }
}

/// What of a region of `len` bytes may be mapped, from the areas that the kernel names (all, when it names none): whole pages inside it.
fn mappable(len: u64, areas: Option<Vec<(u64, u64)>>) -> Vec<Range<u64>> {
    let page = PAGE as u64;
    let areas = areas.unwrap_or_else(|| vec![(0, len)]).into_iter();
    let mut areas: Vec<Range<u64>> = areas
        .filter(|(start, size)| *size != 0 && start.is_multiple_of(page) && start.checked_add(*size).is_some_and(|end| end <= len))
        .map(|(start, size)| start..start + size)
        .collect();
    areas.sort_by_key(|area| area.start);
    areas.dedup_by(|later, earlier| {
        let touching = later.start <= earlier.end;
        if touching {
            earlier.end = earlier.end.max(later.end);
        }
        touching
    });
    areas
}

/// The registers of a BAR: mapped where that is allowed for all of it, else by calls, which go to the mapped part where there is one.
pub(crate) fn registers(device: &Arc<OpenDevice>, region: Region) -> Registers {
    // What cannot be mapped in spite of what the kernel said is reached through the kernel.
    let areas: Vec<Area> = region.mappable.iter().filter_map(|range| Area::map(device, &region, range.clone()).ok()).collect();
    let len = region.len;
    match areas.as_slice() {
        [whole] if whole.range == (0..len) => {
            let base = whole.base;
            let owner = Arc::new(BarRegisters { device: Arc::clone(device), region, areas });
            // SAFETY: the area is mapped readable and writable for the whole region as long as `owner`, starts at a page, and no reference
            // to it exists.
            unsafe { Registers::mapped(base, len, owner) }
        }
        _ => Registers::remote(Arc::new(BarRegisters { device: Arc::clone(device), region, areas }), len),
    }
}

/// Whether registers made of this region are one mapping.
pub(crate) fn is_mappable(region: &Region) -> bool {
    matches!(region.mappable.as_slice(), [whole] if *whole == (0..region.len))
}

/// A mapped part of a BAR.
struct Area {
    range: Range<u64>,
    base: NonNull<u8>,
}

// SAFETY: the pointer is only used for volatile accesses inside the mapping, which any thread may make.
unsafe impl Send for Area {}
// SAFETY: as above; concurrent accesses to registers are the device's business.
unsafe impl Sync for Area {}

impl Area {
    fn map(device: &OpenDevice, region: &Region, range: Range<u64>) -> io::Result<Self> {
        let len = (range.end - range.start) as usize;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, device.fd(), region.start + range.start)?
        };
        Ok(Self { range, base: NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)? })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no reference to it exists.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), (self.range.end - self.range.start) as usize) };
    }
}

struct BarRegisters {
    /// First, so that they are unmapped before the device is closed: a mapping keeps its group busy.
    areas: Vec<Area>,
    region: Region,
    device: Arc<OpenDevice>,
}

impl BarRegisters {
    /// The register in a mapped area, when all of it lies in one.
    fn mapped(&self, offset: u64, width: Width) -> Result<Option<NonNull<u8>>, RegisterError> {
        self.region.place(offset, width)?;
        let area = self.areas.iter().find(|area| area.range.start <= offset && offset + width as u64 <= area.range.end);
        // SAFETY: inside the area's mapping.
        Ok(area.map(|area| unsafe { area.base.add((offset - area.range.start) as usize) }))
    }
}

impl RegisterIo for BarRegisters {
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let Some(word) = self.mapped(offset, width)? else { return self.device.read(&self.region, offset, width) };
        // SAFETY: `mapped` checked the range and the alignment, and the area is mapped as long as `self`.
        Ok(unsafe {
            match width {
                Width::Byte => VolatilePtr::new(word).read().into(),
                Width::Word => VolatilePtr::new(word.cast::<u16>()).read().into(),
                Width::Double => VolatilePtr::new(word.cast::<u32>()).read().into(),
                Width::Quad => VolatilePtr::new(word.cast::<u64>()).read(),
            }
        })
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        let Some(word) = self.mapped(offset, width)? else { return self.device.write(&self.region, offset, width, value) };
        // SAFETY: as in `read`.
        unsafe {
            match width {
                Width::Byte => VolatilePtr::new(word).write(value as u8),
                Width::Word => VolatilePtr::new(word.cast::<u16>()).write(value as u16),
                Width::Double => VolatilePtr::new(word.cast::<u32>()).write(value as u32),
                Width::Quad => VolatilePtr::new(word.cast::<u64>()).write(value),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(len: u64, named: Option<Vec<(u64, u64)>>) -> Vec<(u64, u64)> {
        mappable(len, named).into_iter().map(|area| (area.start, area.end)).collect()
    }

    #[test]
    fn a_region_without_areas_is_mappable_as_a_whole() {
        assert_eq!(areas(0x20000, None), [(0, 0x20000)]);
        assert_eq!(areas(0x40, None), [(0, 0x40)]);
    }

    #[test]
    fn the_page_of_the_msix_table_is_left_out() {
        assert_eq!(areas(0x4000, Some(vec![(0x2000, 0x2000), (0, 0x1000)])), [(0, 0x1000), (0x2000, 0x4000)]);
    }

    #[test]
    fn areas_that_touch_become_one_and_wrong_ones_are_ignored() {
        let named = vec![(0x1000, 0x1000), (0, 0x1000), (0x2000, u64::MAX), (0x2001, 0x1000), (0x3000, 0), (0x3000, 0x2000)];
        assert_eq!(areas(0x4000, Some(named)), [(0, 0x2000)]);
        assert!(mappable(0x4000, Some(Vec::new())).is_empty());
    }
}
