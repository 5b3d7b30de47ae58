//! Which driver is for a device, and how a user's options reach it.

use e1000::{E1000, E1000Config};
use hal::virtio::VirtioTransport;
use hal::{BusDevice, MacAddress, Nic, NicError, OffloadFlags, PciIdentity, RxFilter};
use virtio_net::pci::PciTransport;
use virtio_net::{Packed, VirtioNet, VirtioNetConfig};

use super::OpenOptions;

/// What a driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverOptions {
    /// Transmit descriptors; the driver's default without.
    pub tx_ring: Option<u16>,
    /// Receive descriptors; the driver's default without.
    pub rx_ring: Option<u16>,
    /// Whether the NIC may compute checksums.
    pub checksum: bool,
    /// Whether the NIC may gather.
    pub gather: bool,
    /// Packed rings (virtio): only such, or none; whatever the device offers without.
    pub packed: Option<bool>,
    /// Queue pairs (virtio); one without.
    pub queues: Option<u16>,
    /// Another station address than the device's (virtio).
    pub mac: Option<MacAddress>,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self { tx_ring: None, rx_ring: None, checksum: true, gather: true, packed: None, queues: None, mac: None }
    }
}

/// The drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    E1000,
    VirtioNet,
}

/// For what there are drivers, in an error.
pub(super) const DRIVEN: &str = "the Intel 82540EM, 8086:100e, and virtio network cards, 1af4:1041 and 1af4:1000";

impl Driver {
    /// The driver of a device.
    pub(super) fn of(identity: PciIdentity) -> Option<Self> {
        if E1000::drives(identity) {
            Some(Self::E1000)
        } else if PciTransport::drives(identity) {
            Some(Self::VirtioNet)
        } else {
            None
        }
    }

    /// Whether the driver takes such options.
    ///
    /// # Errors
    /// [`NicError::Config`], with what it takes.
    pub(super) fn check(self, options: DriverOptions) -> Result<(), NicError> {
        let open = OpenOptions::default();
        match self {
            Self::E1000 => e1000_config(options, open)?.check(),
            Self::VirtioNet => virtio_config(options, open, false).check(),
        }
    }

    /// Starts a device. `iommu`: its addresses go through one.
    pub(super) fn start(
        self,
        device: Box<dyn BusDevice>,
        iommu: bool,
        driver: DriverOptions,
        options: OpenOptions,
    ) -> Result<Box<dyn Nic>, NicError> {
        Ok(match self {
            Self::E1000 => Box::new(E1000::start(device, e1000_config(driver, options)?)?),
            Self::VirtioNet => {
                let transport = PciTransport::new(device)?;
                Box::new(VirtioNet::start(Box::new(transport), virtio_config(driver, options, iommu))?)
            }
        })
    }
}

/// Starts a virtio device that is on no PCI bus, and so behind no IOMMU.
pub(super) fn start_virtio(
    transport: Box<dyn VirtioTransport>,
    driver: DriverOptions,
    options: OpenOptions,
) -> Result<Box<dyn Nic>, NicError> {
    Ok(Box::new(VirtioNet::start(transport, virtio_config(driver, options, false))?))
}

fn filter(options: OpenOptions) -> RxFilter {
    RxFilter { promiscuous: options.promiscuous, ..RxFilter::default() }
}

fn offloads(driver: DriverOptions) -> OffloadFlags {
    // Segmentation needs the checksum.
    if driver.checksum { OffloadFlags::all() } else { OffloadFlags::VLAN_TAG }
}

fn e1000_config(driver: DriverOptions, options: OpenOptions) -> Result<E1000Config, NicError> {
    if driver.mac.is_some() {
        return Err(NicError::Config("mac= sets the station address of a virtio card; the 82540EM has the one of its EEPROM".into()));
    }
    if driver.packed.is_some() || driver.queues.is_some() || options.queues != 1 {
        return Err(NicError::Config("packed= and queues= are options of virtio-net; the 82540EM has one queue pair".into()));
    }
    let default = E1000Config::default();
    Ok(E1000Config {
        mtu: options.mtu.unwrap_or(default.mtu),
        tx_descriptors: driver.tx_ring.unwrap_or(default.tx_descriptors),
        rx_descriptors: driver.rx_ring.unwrap_or(default.rx_descriptors),
        offloads: offloads(driver),
        gather: driver.gather,
        vlan: !options.promiscuous,
        filter: filter(options),
    })
}

fn virtio_config(driver: DriverOptions, options: OpenOptions, iommu: bool) -> VirtioNetConfig {
    let default = VirtioNetConfig::default();
    VirtioNetConfig {
        mtu: options.mtu,
        rx_buffer: options.rx_buffer,
        mac: driver.mac,
        iommu,
        tx_descriptors: driver.tx_ring.unwrap_or(default.tx_descriptors),
        rx_descriptors: driver.rx_ring.unwrap_or(default.rx_descriptors),
        // A program that asks for several means that; otherwise the address says.
        queue_pairs: if options.queues > 1 { options.queues } else { driver.queues.unwrap_or(default.queue_pairs) },
        packed: match driver.packed {
            None => Packed::Auto,
            Some(true) => Packed::On,
            Some(false) => Packed::Off,
        },
        offloads: offloads(driver),
        rx_checksum: driver.checksum,
        gather: driver.gather,
        filter: filter(options),
        ..default
    }
}
