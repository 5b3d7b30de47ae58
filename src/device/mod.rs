//! From an address, as users write it, to a started NIC.

mod address;
mod driver;
mod grammar;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hal::{BusDevice, Nic, NicError};
use hw_sim::rig::{Rig, RigError};
use vfio::{PciDevice, Sysfs, VfioError};
use vhost_user::{Connector, VhostUser, VhostUserError};

pub use address::{BusAddress, DeviceAddress, PciNic, SimulatedAddress, SimulatedNic, VhostUserAddress};
pub use driver::DriverOptions;
use driver::{DRIVEN, Driver};
pub use grammar::ParseDeviceError;

/// An opened NIC.
pub struct Device {
    /// The NIC, started.
    pub nic: Box<dyn Nic>,
    /// What simulates it. Its `drain` waits until what the NIC has sent is through the simulated wire.
    pub rig: Option<Rig>,
}

/// How a NIC is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The largest IP packet in bytes. Default: what the device says, else 1500.
    pub mtu: Option<u16>,
    /// Pairs of a transmit and a receive queue. Default 1.
    pub queues: u16,
    /// What the receive buffers that the NIC will be given hold at least, in bytes. Default 2048.
    pub rx_buffer: u16,
    /// Whether it receives what is for others too, and all as it is, with its VLAN tags: so any other NIC can send it on. Default false.
    pub promiscuous: bool,
    /// Ends a wait for a device that is not there yet, or not any more, when it is set: by a signal handler perhaps. Default none.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mtu: None, queues: 1, rx_buffer: 2048, promiscuous: false, stop: None }
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
    /// A vhost-user back end.
    #[error("{0}")]
    VhostUser(#[from] VhostUserError),
    /// The driver.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// No driver is for such a device.
    #[error("{address} is a {identity}, for which there is no driver yet (there are for {DRIVEN})")]
    NoDriver {
        /// the device's address
        address: String,
        /// its vendor and device numbers
        identity: hal::PciIdentity,
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
            Ok(Device { nic: start(rig.device()?, false, address.driver, options)?, rig: Some(rig) })
        }
        BusAddress::Pci(PciNic { address: on_bus, no_iommu }) => {
            let how = vfio::OpenOptions { no_iommu: *no_iommu, ..vfio::OpenOptions::default() };
            let device = PciDevice::open_with(*on_bus, &Sysfs::default(), &how)?;
            let iommu = device.space().is_some();
            if !iommu {
                tracing::warn!(
                    "{address} is used without an IOMMU: it can read and write all of this machine's memory, whatever an error of its driver or \
                     its own tells it to; nothing pins a file's pages, so every byte is copied. Switch the IOMMU on where there is one"
                );
            }
            Ok(Device { nic: start(Box::new(device), iommu, address.driver, options)?, rig: None })
        }
        BusAddress::VhostUser(VhostUserAddress { path, server, files }) => {
            let connector = if *server { Connector::server(path)? } else { Connector::client(path) };
            let how = vhost_user::Options { files: *files, stop: options.stop.clone(), ..vhost_user::Options::default() };
            let transport = VhostUser::open(connector, how)?;
            Ok(Device { nic: driver::start_virtio(Box::new(transport), address.driver, options)?, rig: None })
        }
    }
}

/// Whether there is a driver for such a device.
pub fn has_driver(identity: hal::PciIdentity) -> bool {
    Driver::of(identity).is_some()
}

/// Starts a device with the driver that is for it. `iommu`: its addresses go through an IOMMU, as VFIO's do.
///
/// # Errors
/// [`OpenError`].
pub fn start(device: Box<dyn BusDevice>, iommu: bool, driver: DriverOptions, options: OpenOptions) -> Result<Box<dyn Nic>, OpenError> {
    let identity = device.identity();
    let found = Driver::of(identity).ok_or_else(|| OpenError::NoDriver { address: device.address().to_owned(), identity })?;
    Ok(found.start(device, iommu, driver, options)?)
}
