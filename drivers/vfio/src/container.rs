//! The container: one table of the IOMMU.
//!
//! vfio-ioctls opens the container, the group and the device. What it does not do is here: its map is always writable for the device,
//! which the kernel refuses for page-cache pages (and which would let a device write into files), and it cannot ask what the IOMMU is able
//! to do.
#![allow(unsafe_code)]

use std::ffi::c_ulong;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use hal::Access;
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_TYPE, vfio_iommu_type1_dma_map, vfio_iommu_type1_dma_unmap,
};
use vfio_ioctls::VfioContainer;

use crate::info::{INFO_LEN, IommuInfo};

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`: VFIO's numbers carry neither size nor direction (linux/vfio.h).
pub(crate) const fn request(number: u32) -> c_ulong {
    ((VFIO_TYPE as c_ulong) << 8) | (VFIO_BASE + number) as c_ulong
}

const IOMMU_GET_INFO: c_ulong = request(12);
const IOMMU_MAP_DMA: c_ulong = request(13);
const IOMMU_UNMAP_DMA: c_ulong = request(14);

/// More than the capabilities of any IOMMU: an answer that claims more is wrong.
const MOST_INFO: usize = 1 << 20;

/// A container whose IOMMU is set. It belongs to its devices, and is closed with the last of them.
#[derive(Clone)]
pub(crate) struct Container(pub(crate) Weak<VfioContainer>);

impl Container {
    fn open(&self) -> io::Result<Arc<VfioContainer>> {
        self.0.upgrade().ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// What the IOMMU can do, and how many maps are left.
    pub(crate) fn info(&self) -> io::Result<IommuInfo> {
        let container = self.open()?;
        let mut len = INFO_LEN;
        // Twice: the first answer says how long it wants to be. It may grow once more in between.
        for _ in 0..4 {
            // Of 8-byte words, as the structure has 8-byte fields.
            let mut words = vec![0_u64; len.div_ceil(8)];
            words[0] = u64::from_ne_bytes({
                let mut first = [0; 8];
                first[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                first
            });
            // SAFETY: `words` has the `argsz` bytes that its first field names, and the kernel writes no more.
            if unsafe { libc::ioctl(container.as_raw_fd(), IOMMU_GET_INFO, words.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect();
            let wanted = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            if wanted <= len {
                return IommuInfo::parse(&bytes).map_err(io::Error::other);
            }
            len = wanted.min(MOST_INFO);
        }
        Err(io::Error::other("the answer to VFIO_IOMMU_GET_INFO grows with each question"))
    }

    /// Maps `len` bytes of this process' memory for the device and pins their pages.
    ///
    /// # Safety
    /// `memory` is mapped for `len` bytes, and with [`Access::ReadWrite`] no Rust reference to it exists until it is unmapped: the device
    /// writes to it.
    pub(crate) unsafe fn map(&self, iova: u64, memory: NonNull<u8>, len: u64, access: Access) -> io::Result<()> {
        let map = vfio_iommu_type1_dma_map {
            argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
            flags: match access {
                Access::Read => VFIO_DMA_MAP_FLAG_READ,
                Access::ReadWrite => VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            },
            vaddr: memory.as_ptr() as u64,
            iova,
            size: len,
        };
        // SAFETY: a whole structure of the size that it names; the caller answers for the memory.
        match unsafe { libc::ioctl(self.open()?.as_raw_fd(), IOMMU_MAP_DMA, &map) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes a map back. The kernel says how much it unmapped; anything but all of it is an error.
    pub(crate) fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
        let mut unmap = vfio_iommu_type1_dma_unmap {
            argsz: size_of::<vfio_iommu_type1_dma_unmap>() as u32,
            flags: 0,
            iova,
            size: len,
            ..Default::default()
        };
        // SAFETY: a whole structure of the size that it names; without flags nothing is written behind it.
        if unsafe { libc::ioctl(self.open()?.as_raw_fd(), IOMMU_UNMAP_DMA, &mut unmap) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if unmap.size != len {
            return Err(io::Error::other(format!("{:#x} of {len:#x} bytes were mapped there", unmap.size)));
        }
        Ok(())
    }
}
