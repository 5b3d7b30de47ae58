//! Opening a device in VFIO's mode without an IOMMU, whose groups vfio-ioctls cannot open.
//!
//! The kernel gives the device to root alone (CAP_SYS_RAWIO), taints itself, and maps nothing: the device sees physical addresses
//! (see [`PhysicalSpace`](crate::physical::PhysicalSpace)).
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_NOIOMMU_IOMMU, VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, vfio_device_info, vfio_irq_info,
    vfio_region_info,
};

use crate::address::PciAddress;
use crate::container::request;
use crate::handle::RegionLayout;
use crate::info::{InfoError, u16_at, u32_at, u64_at};

const GET_API_VERSION: c_ulong = request(0);
const CHECK_EXTENSION: c_ulong = request(1);
const SET_IOMMU: c_ulong = request(2);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);
const DEVICE_GET_INFO: c_ulong = request(7);
const DEVICE_GET_REGION_INFO: c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: c_ulong = request(9);

/// More than the capabilities of any region: an answer that claims more is wrong.
const MOST_INFO: u32 = 1 << 16;
/// More regions, interrupts and capabilities than any PCI device has.
const MOST: u32 = 64;

/// A device without an IOMMU.
pub(crate) struct BareDevice {
    /// In this order: the device is closed before its group.
    pub(crate) fd: OwnedFd,
    pub(crate) regions: Vec<RegionLayout>,
    pub(crate) interrupts: Vec<u32>,
    _group: OwnedFd,
    _container: OwnedFd,
}

impl BareDevice {
    /// Opens the device at `address` of the group whose file is `group`.
    pub(crate) fn open(container: &Path, group: &Path, address: PciAddress) -> io::Result<Self> {
        let file = |path: &Path| Ok::<_, io::Error>(OwnedFd::from(OpenOptions::new().read(true).write(true).open(path)?));
        let (container, group) = (file(container)?, file(group)?);
        if ioctl(container.as_fd(), GET_API_VERSION, 0)? != VFIO_API_VERSION as c_int {
            return Err(io::Error::other("the kernel has another version of VFIO"));
        }
        if ioctl(container.as_fd(), CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU.into())? == 0 {
            return Err(io::Error::other("the mode without an IOMMU is switched off (enable_unsafe_noiommu_mode of the module vfio)"));
        }
        let number = container.as_raw_fd();
        ioctl(group.as_fd(), GROUP_SET_CONTAINER, &raw const number as c_ulong)?;
        ioctl(container.as_fd(), SET_IOMMU, VFIO_NOIOMMU_IOMMU.into())?;
        let name = CString::new(address.to_string())?;
        let fd = ioctl(group.as_fd(), GROUP_GET_DEVICE_FD, name.as_ptr() as c_ulong)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut info = vfio_device_info { argsz: size_of::<vfio_device_info>() as u32, ..Default::default() };
        ioctl(fd.as_fd(), DEVICE_GET_INFO, &raw mut info as c_ulong)?;
        let regions = (0..info.num_regions.min(MOST)).map(|index| region(fd.as_fd(), index)).collect::<io::Result<_>>()?;
        let interrupts = (0..info.num_irqs.min(MOST)).map(|index| interrupt(fd.as_fd(), index)).collect();
        Ok(Self { fd, regions, interrupts, _group: group, _container: container })
    }
}

/// A VFIO request whose argument is a number, or the address of a structure that lives during the call, names its own size, and is what the
/// request takes.
fn ioctl(fd: BorrowedFd<'_>, request: c_ulong, argument: c_ulong) -> io::Result<c_int> {
    // SAFETY: the callers, all in this file, pass what the request takes.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } {
        result @ 0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Region `index`. Like vfio-ioctls, what the kernel refuses to tell is a region that is not there: of a VGA card's, all others.
fn region(fd: BorrowedFd<'_>, index: u32) -> io::Result<RegionLayout> {
    const LEN: usize = size_of::<vfio_region_info>();
    let mut info = vfio_region_info { argsz: LEN as u32, index, ..Default::default() };
    if ioctl(fd, DEVICE_GET_REGION_INFO, &raw mut info as c_ulong).is_err() {
        return Ok(RegionLayout::default());
    }
    let mut layout = RegionLayout { start: info.offset, len: info.size, flags: info.flags, areas: None };
    if info.flags & VFIO_REGION_INFO_FLAG_CAPS != 0 && info.argsz as usize > LEN {
        let len = info.argsz.min(MOST_INFO);
        // Of 8-byte words, as the structure has 8-byte fields.
        let mut words = vec![0_u64; (len as usize).div_ceil(8)];
        words[0] = u64::from(len);
        words[1] = u64::from(index);
        // The fields of 32 bits are argsz, flags, index, cap_offset.
        if cfg!(target_endian = "big") {
            words[0] <<= 32;
            words[1] <<= 32;
        }
        ioctl(fd, DEVICE_GET_REGION_INFO, words.as_mut_ptr() as c_ulong)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(len as usize).collect();
        layout.areas = sparse_areas(&bytes).map_err(io::Error::other)?;
    }
    Ok(layout)
}

/// The areas that may be mapped, in the chain of capabilities behind `struct vfio_region_info`.
fn sparse_areas(bytes: &[u8]) -> Result<Option<Vec<(u64, u64)>>, InfoError> {
    let mut next = u32_at(bytes, 12)? as usize;
    for _ in 0..MOST {
        if next == 0 {
            return Ok(None);
        }
        let capability = bytes.get(next..).ok_or(InfoError("a capability starts after the end"))?;
        if u32::from(u16_at(capability, 0)?) == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
            // A header of 8 bytes, a count, 4 bytes of nothing, and pairs of offset and size.
            let count = u32_at(capability, 8)? as usize;
            let area = |index: usize| Ok((u64_at(capability, 16 + 16 * index)?, u64_at(capability, 24 + 16 * index)?));
            return (0..count).map(area).collect::<Result<_, _>>().map(Some);
        }
        next = u32_at(capability, 4)? as usize;
    }
    Err(InfoError("its capabilities have no end"))
}

/// How many interrupts of a kind there are; none of a kind that the kernel does not know.
fn interrupt(fd: BorrowedFd<'_>, index: u32) -> u32 {
    let mut info = vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..Default::default() };
    ioctl(fd, DEVICE_GET_IRQ_INFO, &raw mut info as c_ulong).map_or(0, |_| info.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(capabilities: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[12..16].copy_from_slice(&32_u32.to_ne_bytes());
        for (id, next, body) in capabilities {
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1_u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            bytes.extend(*body);
        }
        bytes
    }

    #[test]
    fn the_areas_that_may_be_mapped_are_found_behind_other_capabilities() {
        let mut body = [2_u32.to_ne_bytes(), [0; 4]].concat();
        body.extend([0_u64, 0x1000, 0x2000, 0x1000].iter().flat_map(|word| word.to_ne_bytes()));
        let bytes = answer(&[(3, 40, &[]), (1, 0, &body)]);
        assert_eq!(sparse_areas(&bytes), Ok(Some(vec![(0, 0x1000), (0x2000, 0x1000)])));
        assert_eq!(sparse_areas(&answer(&[(3, 0, &[])])), Ok(None));
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_refused() {
        let count = u32::MAX.to_ne_bytes();
        for bytes in [answer(&[(1, 0, &count)]), answer(&[(3, 32, &[])]), answer(&[(3, 4000, &[])]), answer(&[(1, 0, &[])]), vec![1; 8]] {
            assert!(sparse_areas(&bytes).is_err(), "{bytes:?}");
        }
    }
}
