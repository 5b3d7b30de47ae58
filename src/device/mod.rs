//! From an address, as users write it, to a started NIC.

mod address;
mod driver;
mod grammar;

use hal::{BusDevice, Nic, NicError};
use hw_sim::rig::{Rig, RigError};
use vfio::{PciDevice, VfioError};

pub use address::{BusAddress, DeviceAddress, SimulatedAddress, SimulatedNic};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The largest IP packet in bytes. Default 1500.
    pub mtu: u16,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { mtu: 1500 }
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
        BusAddress::Pci(address_on_bus) => {
            Ok(Device { nic: start(Box::new(PciDevice::open(*address_on_bus)?), true, address.driver, options)?, rig: None })
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
