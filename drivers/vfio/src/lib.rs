//! The kernel's VFIO as a bus: PCI devices in a user's hands, behind an IOMMU, that read files from the page cache itself.
//!
//! | room | holds |
//! |---|---|
//! | [`Sysfs`] (`listing`, `binding`, `interface`) | which NICs there are, whether they can be opened or why not, and handing them to vfio-pci and back |
//! | [`PciDevice`] (`device`, `region`, `interrupt`, `withdrawal`) | a device: configuration space, BARs, interrupts, reset; the kernel asks for it back |
//! | [`VfioSpace`] (`space`, `container`, `group`, `info`, `memlock`) | what the devices of a group can address |
//! | `noiommu`, `physical` | devices without an IOMMU, for copied frames only |
//! | `file_pages`, `frames` | a file's pages, and the proof that they are its own |
//!
//! Files are mapped `MAP_SHARED` and read-only, and pinned with `VFIO_DMA_MAP_FLAG_READ` alone. That is what works on page-cache pages
//! (Linux refuses to pin them for writing since 6.5, and a private mapping is silently copied since 6.2), and it is what isolation wants:
//! the NIC cannot change a file.
//!
//! ```no_run
//! use hal::BusDevice;
//! let mut device = pagewire_vfio::PciDevice::open("0000:00:03.0".parse()?)?;
//! let file = std::fs::File::open("film.mkv")?;
//! let window = device.dma().map_file(std::os::fd::AsFd::as_fd(&file), 0..1 << 20)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs, unsafe_code)]

mod address;
mod binding;
mod container;
mod device;
mod error;
mod file_pages;
mod frames;
mod group;
mod handle;
mod info;
mod interface;
mod interrupt;
mod listing;
#[cfg(test)]
mod machine;
mod memlock;
mod noiommu;
mod physical;
mod region;
mod space;
mod sysfs;
mod withdrawal;

pub use address::{ParseAddressError, PciAddress};
pub use binding::Rebound;
pub use device::{OpenOptions, PciDevice};
pub use error::{Holders, VfioError};
pub use frames::{PageFrame, page_cache_frames};
pub use info::{InfoError, IommuInfo};
pub use interrupt::InterruptKind;
pub use listing::{Controller, Group, Member};
pub use memlock::Memlock;
pub use space::VfioSpace;
pub use sysfs::Sysfs;
