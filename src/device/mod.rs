//! From an address, as users write it, to a started NIC.

mod address;

use e1000::{E1000, E1000Config};
use hal::{BusDevice, Nic, NicError, OffloadFlags, RxFilter};
use hw_sim::rig::{Rig, RigError};
use vfio::{PciDevice, Sysfs, VfioError};

pub use address::{BusAddress, DeviceAddress, DriverOptions, ParseDeviceError, PciNic, SimulatedAddress, SimulatedNic};

/// An opened NIC.
pub struct Device {
    /// The NIC, started.
    pub nic: Box<dyn Nic>,
    /// What simulates it. Its `drain` waits until what the NIC has sent is through the simulated wire.
    pub rig: Option<Rig>,
}

/// How a NIC is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The largest IP packet in bytes. Default 1500.
    pub mtu: u16,
    /// Pairs of a transmit and a receive queue. Default 1.
    pub queues: u16,
    /// Whether it receives what is for others too. Default false.
    pub promiscuous: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1, promiscuous: false }
    }
}

/// A NIC that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The simulator.
    #[error("{0}")]
    Rig(#[from] RigError),
    /// The kernel's VFIO.
    #[error("{0}")]
    Vfio(#[from] VfioError),
    /// The driver.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// No driver is for such a device.
    #[error("{address} is a {identity}, for which there is no driver yet (there is one for the Intel 82540EM, 8086:100e)")]
    NoDriver {
        /// the device's address
        address: String,
        /// its vendor and device numbers
        identity: hal::PciIdentity,
    },
    /// It does not have so many queues.
    #[error("{wanted} queues; {address} has {most}: ask for no more, or use a NIC with more")]
    Queues {
        /// the device's address
        address: String,
        /// the pairs that were asked for
        wanted: u16,
        /// the pairs that it has
        most: u16,
    },
}

/// Opens and starts the NIC at `address`.
///
/// # Errors
/// [`OpenError`].
///
/// ```no_run
/// let device = pagewire::device::open(&"sim:e1000".parse()?, Default::default())?;
/// println!("{} {}", device.nic.model(), device.nic.mac());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(address: &DeviceAddress, options: OpenOptions) -> Result<Device, OpenError> {
    match &address.bus {
        BusAddress::Simulated(simulated) => {
            let rig = Rig::start(simulated.rig())?;
            Ok(Device { nic: start(rig.device()?, address.driver, options)?, rig: Some(rig) })
        }
        BusAddress::Pci(PciNic { address: on_bus, no_iommu }) => {
            let how = vfio::OpenOptions { no_iommu: *no_iommu, ..vfio::OpenOptions::default() };
            let device = PciDevice::open_with(*on_bus, &Sysfs::default(), &how)?;
            if device.space().is_none() {
                tracing::warn!(
                    "{address} is used without an IOMMU: it can read and write all of this machine's memory, whatever an error of its driver or \
                     its own tells it to; nothing pins a file's pages, so every byte is copied. Switch the IOMMU on where there is one"
                );
            }
            Ok(Device { nic: start(Box::new(device), address.driver, options)?, rig: None })
        }
    }
}

/// Whether there is a driver for such a device.
pub fn has_driver(identity: hal::PciIdentity) -> bool {
    E1000::drives(identity)
}

/// Starts a device with the driver that is for it.
///
/// # Errors
/// [`OpenError`].
pub fn start(device: Box<dyn BusDevice>, driver: DriverOptions, options: OpenOptions) -> Result<Box<dyn Nic>, OpenError> {
    let identity = device.identity();
    if !has_driver(identity) {
        return Err(OpenError::NoDriver { address: device.address().to_owned(), identity });
    }
    if options.queues != 1 {
        return Err(OpenError::Queues { address: device.address().to_owned(), wanted: options.queues, most: 1 });
    }
    let mut offloads = OffloadFlags::all();
    if !driver.checksum {
        // Segmentation needs the checksum.
        offloads &= OffloadFlags::VLAN_TAG;
    }
    let default = E1000Config::default();
    let config = E1000Config {
        mtu: options.mtu,
        tx_descriptors: driver.tx_ring.unwrap_or(default.tx_descriptors),
        rx_descriptors: driver.rx_ring.unwrap_or(default.rx_descriptors),
        offloads,
        gather: driver.gather,
        filter: RxFilter { promiscuous: options.promiscuous, ..RxFilter::default() },
        ..default
    };
    Ok(Box::new(E1000::start(device, config)?))
}
