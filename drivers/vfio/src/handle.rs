//! A device's descriptor, and what the kernel says of its regions and interrupts.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};

use crate::noiommu::BareDevice;

/// A device that is open, by one way or the other.
///
/// vfio-ioctls opens devices behind an IOMMU and knows their regions. Its reads, writes, interrupts and reset are not used: they log errors
/// or drop the system's answer, and a driver has to know.
pub(crate) enum DeviceHandle {
    /// Behind an IOMMU.
    Isolated(VfioDevice),
    /// In the mode without one.
    Bare(BareDevice),
}

/// What the kernel says of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegionLayout {
    /// Where it starts in the descriptor.
    pub(crate) start: u64,
    /// Its length in bytes; 0 when the device does not have it.
    pub(crate) len: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub(crate) flags: u32,
    /// The areas (offset, length) that may be mapped, when not all of it may.
    pub(crate) areas: Option<Vec<(u64, u64)>>,
}

impl DeviceHandle {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: the descriptor is open as long as the device, which outlives the borrow.
            Self::Isolated(device) => unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) },
            Self::Bare(device) => device.fd.as_fd(),
        }
    }

    /// Region `index`.
    pub(crate) fn region(&self, index: u32) -> RegionLayout {
        match self {
            Self::Isolated(device) => RegionLayout {
                start: device.get_region_offset(index),
                len: device.get_region_size(index),
                flags: device.get_region_flags(index),
                areas: device.get_region_caps(index).into_iter().find_map(|capability| match capability {
                    VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas.iter().map(|area| (area.offset, area.size)).collect()),
                    _ => None,
                }),
            },
            Self::Bare(device) => device.regions.get(index as usize).cloned().unwrap_or_default(),
        }
    }

    /// How many interrupts of kind `index` (`VFIO_PCI_*_IRQ_INDEX`) the device has.
    pub(crate) fn interrupts(&self, index: u32) -> u32 {
        match self {
            Self::Isolated(device) => device.get_irq_info(index).map_or(0, |info| info.count),
            Self::Bare(device) => device.interrupts.get(index as usize).copied().unwrap_or(0),
        }
    }
}
