//! A virtio transport: how a driver reaches a virtio device (VIRTIO 1.3, section 4).
//!
//! PCI is one (in the virtio-net driver, on any [`BusDevice`](crate::BusDevice)), vhost-user another, which has no registers at all and
//! brings its own [`DmaSpace`].

use std::sync::Arc;

use bitflags::bitflags;

use crate::bus::BusError;
use crate::doorbell::Doorbell;
use crate::interrupt::Interrupt;
use crate::space::DmaSpace;

bitflags! {
    /// The device status field (VIRTIO 1.3, 2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceStatus: u8 {
        /// The driver has found the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is set up.
        const DRIVER_OK = 4;
        /// Feature negotiation is complete.
        const FEATURES_OK = 8;
        /// The device has an error from which only a reset recovers.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
        /// A device may use bits that are not defined yet.
        const _ = !0;
    }
}

/// Where the parts of a virtqueue are, as bus addresses (VIRTIO 1.3, 2.6 and 2.8; packed rings call them descriptor ring, driver event
/// suppression and device event suppression).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries; a power of two for split rings.
    pub size: u16,
    /// The descriptor area.
    pub descriptors: u64,
    /// The driver area.
    pub driver: u64,
    /// The device area.
    pub device: u64,
}

/// A way to a virtio device.
pub trait VirtioTransport: Send {
    /// The device type: 1 is a network card (VIRTIO 1.3, section 5).
    fn device_type(&self) -> u32;

    /// The features that the device offers.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn device_features(&mut self) -> Result<u64, BusError>;

    /// Features that the device has, and that cannot be offered this way: not among [those offered](Self::device_features).
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn withheld_features(&mut self) -> Result<u64, BusError> {
        Ok(0)
    }

    /// The features that the driver accepts.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_driver_features(&mut self, features: u64) -> Result<(), BusError>;

    /// The device status. Over vhost-user without the status feature the transport keeps it itself.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn status(&mut self) -> Result<DeviceStatus, BusError>;

    /// Sets the device status; empty resets the device, and the call returns when the reset is done.
    ///
    /// # Errors
    /// When the device cannot be reached, or a reset does not end.
    fn set_status(&mut self, status: DeviceStatus) -> Result<(), BusError>;

    /// How many queues the device has.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn queues(&mut self) -> Result<u16, BusError>;

    /// Pairs of queues that serve as soon as they are enabled, where no control queue has to be told their number (vhost-user); `None` elsewhere.
    fn implicit_pairs(&self) -> Option<u16> {
        None
    }

    /// The largest size of queue `index`; 0 when there is no such queue.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn max_queue_size(&mut self, index: u16) -> Result<u16, BusError>;

    /// Enables queue `index`, and returns its doorbell, which is rung with the queue's index. Before DRIVER_OK is set, or after the queue was
    /// [reset](Self::reset_queue).
    ///
    /// # Errors
    /// When the device cannot be reached or refuses.
    fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<Doorbell, BusError>;

    /// Stops queue `index` and returns when the device uses it no more (VIRTIO_F_RING_RESET).
    ///
    /// # Errors
    /// When the device cannot do this, cannot be reached, or does not end in time.
    fn reset_queue(&mut self, index: u16) -> Result<(), BusError>;

    /// The interrupt of queue `index`; `None` for configuration changes.
    ///
    /// # Errors
    /// [`BusError::NoInterrupt`] when the transport has none.
    fn interrupt(&mut self, index: Option<u16>) -> Result<Box<dyn Interrupt>, BusError>;

    /// Copies from the device's configuration, `offset` bytes in, all of one generation.
    ///
    /// # Errors
    /// When the device cannot be reached or its configuration is shorter.
    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), BusError>;

    /// Writes to the device's configuration.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BusError>;

    /// The space that queue and buffer addresses are in.
    fn dma(&self) -> Arc<dyn DmaSpace>;
}
