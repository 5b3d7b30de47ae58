//! What can go wrong with VFIO, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use hal::{BusError, DmaError, NicError};

use crate::address::{ParseAddressError, PciAddress};

/// A device that cannot be listed, bound or opened.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// The text is not an address.
    #[error(transparent)]
    WrongAddress(#[from] ParseAddressError),
    /// No such device.
    #[error("there is no PCI device {0}; `pagewire nics` lists the NICs that there are")]
    NoDevice(PciAddress),
    /// A device of another class.
    #[error("{address} is not a NIC, its class is {class:06x} ({name}); `pagewire nics` lists the NICs that there are")]
    NotANic {
        /// the device
        address: PciAddress,
        /// class, subclass and programming interface
        class: u32,
        /// the class in words
        name: String,
    },
    /// The device is in no IOMMU group.
    #[error("{address} is behind no IOMMU, so it cannot be isolated from this machine's memory; {remedy}")]
    NoIommu {
        /// the device
        address: PciAddress,
        /// which option is missing
        remedy: String,
    },
    /// Only the no-IOMMU mode of VFIO is there.
    #[error(
        "{0} is only there in VFIO's no-IOMMU mode, which neither pins pages nor keeps the device away from foreign memory; switch an IOMMU \
         on (in the firmware, or for a guest in its machine), or accept that with pci:{0},noiommu=on, as root, which copies every byte of a file"
    )]
    NoIommuMode(PciAddress),
    /// The device has another driver than vfio-pci.
    #[error("{address} is driven by {}; `pagewire bind {address}` hands it to vfio-pci", .driver.as_deref().unwrap_or("nothing"))]
    NotBound {
        /// the device
        address: PciAddress,
        /// its driver
        driver: Option<String>,
    },
    /// Other devices of the group are in the kernel's hands.
    #[error("{address} shares IOMMU group {group} with devices that the kernel drives, and none of them can be isolated from the \
     others: {}; {}", list(.members), remedy(.members))]
    NotViable {
        /// the device
        address: PciAddress,
        /// its group
        group: u32,
        /// the devices in the way, with their drivers
        members: Vec<(PciAddress, String)>,
    },
    /// The rights are missing.
    #[error("no permission for {}: {remedy}", .path.display())]
    NoPermission {
        /// the file
        path: PathBuf,
        /// how to get it
        remedy: String,
    },
    /// Somebody has opened the device, or another one of its group.
    #[error("{address} is in use{}; a device can be opened by one process at a time", .holders.clause())]
    Busy {
        /// the device
        address: PciAddress,
        /// who has it
        holders: Holders,
    },
    /// The NIC carries the machine's traffic.
    #[error("{address} is in use by the kernel: {}; take that away first, or `pagewire bind --force {address}`", .uses.join(", "))]
    InUse {
        /// the device
        address: PciAddress,
        /// what for
        uses: Vec<String>,
    },
    /// The kernel's VFIO is not there.
    #[error("the kernel's VFIO is not there: {missing}; {remedy}")]
    NoVfio {
        /// what was looked for
        missing: String,
        /// how to have it
        remedy: String,
    },
    /// The kernel has VFIO's new interface alone.
    #[error(
        "this kernel offers VFIO only through iommufd ({found}), which pagewire does not use yet: /dev/vfio/vfio is missing; \
         a kernel with CONFIG_VFIO_CONTAINER=y (or CONFIG_IOMMUFD_VFIO_CONTAINER=y) has it"
    )]
    IommufdOnly {
        /// what is there instead
        found: String,
    },
    /// The device is gone.
    #[error("{0} is gone: its configuration space reads all ones; unplugged, powered down, or its bus is")]
    Vanished(PciAddress),
    /// The kernel did not do what a bind or unbind asks for.
    #[error("{address} could not be {what}: {reason}")]
    Binding {
        /// the device
        address: PciAddress,
        /// what was to be done, as a participle
        what: &'static str,
        /// why
        reason: String,
    },
    /// Something else that the kernel said.
    #[error("{doing}: {error}")]
    System {
        /// what was tried
        doing: String,
        /// what the system said
        error: io::Error,
    },
}

impl VfioError {
    pub(crate) fn system(doing: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), error: error.into() }
    }
}

impl From<VfioError> for BusError {
    fn from(error: VfioError) -> Self {
        hal::RegisterError::Unreachable(error.to_string()).into()
    }
}

impl From<VfioError> for NicError {
    fn from(error: VfioError) -> Self {
        BusError::from(error).into()
    }
}

impl From<VfioError> for DmaError {
    fn from(error: VfioError) -> Self {
        Self::Unsupported(error.to_string())
    }
}

/// The processes that have a group open, as far as this process may see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders(pub Vec<(u32, String)>);

impl Holders {
    /// Whether nobody else has it open.
    pub(crate) fn are_this_process(&self) -> bool {
        self.0.iter().all(|(process, _)| *process == std::process::id())
    }

    fn clause(&self) -> String {
        if self.0.is_empty() {
            return " by another process (as root, pagewire would name it)".into();
        }
        let names: Vec<String> = self.0.iter().map(|(process, name)| format!("{name} (process {process})")).collect();
        format!(" by {}", names.join(", "))
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.clause().trim_start_matches(" by "))
    }
}

fn list(members: &[(PciAddress, String)]) -> String {
    members.iter().map(|(address, driver)| format!("{address} ({driver})")).collect::<Vec<_>>().join(", ")
}

fn remedy(members: &[(PciAddress, String)]) -> String {
    let commands: Vec<String> = members.iter().map(|(address, _)| format!("pagewire bind {address}")).collect();
    format!(
        "bind them too when they are NICs ({}), give other devices to vfio-pci or unbind them from their drivers when the machine can do \
         without, or move the NIC to a slot with a group of its own",
        commands.join("; ")
    )
}
