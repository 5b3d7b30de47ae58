//! Where a NIC is.

use std::fmt;
use std::path::PathBuf;

use hal::MacAddress;
use hw_sim::rig::{Model, RigConfig, VirtioOptions};
use hw_sim::wire::HostWire;
use vfio::PciAddress;

use super::driver::{Driver, DriverOptions};

/// Where a NIC is, and what its driver is told: `sim:e1000`, `sim:e1000,wire=tap:tap0,pcap=out.pcap`, `pci:0000:00:03.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// Where it is.
    pub bus: BusAddress,
    /// What its driver is told.
    pub driver: DriverOptions,
}

/// Where a NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusAddress {
    /// On the rig.
    Simulated(SimulatedAddress),
    /// On this machine's PCI bus, through VFIO.
    Pci(PciNic),
    /// In another process, through vhost-user.
    VhostUser(VhostUserAddress),
}

/// A vhost-user back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserAddress {
    /// The socket.
    pub path: PathBuf,
    /// Whether the back end connects to us.
    pub server: bool,
    /// Whether it may map files, which it then can write to.
    pub files: bool,
}

/// A NIC of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciNic {
    /// Where it is.
    pub address: PciAddress,
    /// Also without an IOMMU: the NIC reaches all memory, and files are copied.
    pub no_iommu: bool,
}

/// A NIC of the rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedAddress {
    /// The model that the rig simulates.
    pub model: SimulatedNic,
    /// What it is plugged into.
    pub wire: HostWire,
    /// A file that gets every frame.
    pub pcap: Option<PathBuf>,
    /// The NIC's Ethernet address.
    pub mac: Option<MacAddress>,
    /// What it offers, if it is a virtio device.
    pub virtio: VirtioOptions,
    /// It interrupts by MSI-X, not INTx.
    pub msix: bool,
}

/// A NIC of the rig that there is a driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedNic {
    /// Intel 82540EM.
    E1000,
    /// A virtio network card.
    VirtioNet,
}

impl SimulatedNic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::E1000, Self::VirtioNet];

    /// As in an address.
    pub fn name(self) -> &'static str {
        self.model().name()
    }

    /// As on the box.
    pub fn product(self) -> &'static str {
        match self {
            Self::E1000 => "Intel 82540EM",
            Self::VirtioNet => "virtio network card",
        }
    }

    pub(super) fn driver(self) -> Driver {
        match self {
            Self::E1000 => Driver::E1000,
            Self::VirtioNet => Driver::VirtioNet,
        }
    }

    fn model(self) -> Model {
        match self {
            Self::E1000 => Model::E1000,
            Self::VirtioNet => Model::VirtioNet,
        }
    }
}

impl SimulatedAddress {
    /// A model with nothing else said.
    pub fn new(model: SimulatedNic) -> Self {
        Self { model, wire: HostWire::default(), pcap: None, mac: None, virtio: VirtioOptions::default(), msix: false }
    }

    /// What the rig has to be told.
    pub fn rig(&self) -> RigConfig {
        let (wire, virtio) = (self.wire.clone().into(), self.virtio.clone());
        RigConfig { virtio, wire, msix: self.msix, pcap: self.pcap.clone(), mac: self.mac, ..RigConfig::new(self.model.model()) }
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bus {
            BusAddress::Simulated(simulated) => write!(f, "sim:{}", simulated.model.name()),
            BusAddress::Pci(nic) => write!(f, "pci:{}", nic.address),
            BusAddress::VhostUser(back_end) => write!(f, "vhost-user:{}", back_end.path.display()),
        }
    }
}
