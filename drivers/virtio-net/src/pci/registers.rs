//! `struct virtio_pci_common_cfg` (VIRTIO 1.3, 4.1.4.3).

use hal::RegisterError;
use hal::virtio::{DeviceStatus, QueueLayout};

use super::structure::Region;

/// Offsets in bytes.
mod offset {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_MSIX_VECTOR: u64 = 16;
    pub const NUM_QUEUES: u64 = 18;
    pub const DEVICE_STATUS: u64 = 20;
    pub const CONFIG_GENERATION: u64 = 21;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_MSIX_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const QUEUE_NOTIFY_OFF: u64 = 30;
    pub const QUEUE_DESC: u64 = 32;
    pub const QUEUE_DRIVER: u64 = 40;
    pub const QUEUE_DEVICE: u64 = 48;
    /// From VIRTIO 1.2 on.
    pub const QUEUE_RESET: u64 = 58;
}

/// What VIRTIO 1.0 has of it, in bytes.
pub(super) const LEN: u64 = 56;

/// Instead of a vector: none.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The registers.
pub(super) struct Common(pub(super) Region);

impl Common {
    pub(super) fn device_features(&self) -> Result<u64, RegisterError> {
        let mut features = 0;
        for word in 0..2_u32 {
            self.0.write(offset::DEVICE_FEATURE_SELECT, word)?;
            features |= u64::from(self.0.read::<u32>(offset::DEVICE_FEATURE)?) << (32 * word);
        }
        Ok(features)
    }

    /// What there is beyond 64 features stays as the reset left it: not accepted.
    pub(super) fn set_driver_features(&self, features: u64) -> Result<(), RegisterError> {
        for word in 0..2_u32 {
            self.0.write(offset::DRIVER_FEATURE_SELECT, word)?;
            self.0.write(offset::DRIVER_FEATURE, (features >> (32 * word)) as u32)?;
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Result<DeviceStatus, RegisterError> {
        Ok(DeviceStatus::from_bits_retain(self.0.read(offset::DEVICE_STATUS)?))
    }

    pub(super) fn set_status(&self, status: DeviceStatus) -> Result<(), RegisterError> {
        self.0.write(offset::DEVICE_STATUS, status.bits())
    }

    pub(super) fn generation(&self) -> Result<u8, RegisterError> {
        self.0.read(offset::CONFIG_GENERATION)
    }

    pub(super) fn queues(&self) -> Result<u16, RegisterError> {
        self.0.read(offset::NUM_QUEUES)
    }

    /// The queue that everything below is about.
    pub(super) fn select(&self, queue: u16) -> Result<(), RegisterError> {
        self.0.write(offset::QUEUE_SELECT, queue)
    }

    pub(super) fn queue_size(&self) -> Result<u16, RegisterError> {
        self.0.read(offset::QUEUE_SIZE)
    }

    pub(super) fn notify_offset(&self) -> Result<u16, RegisterError> {
        self.0.read(offset::QUEUE_NOTIFY_OFF)
    }

    pub(super) fn set_queue(&self, layout: QueueLayout) -> Result<(), RegisterError> {
        self.0.write(offset::QUEUE_SIZE, layout.size)?;
        self.0.write_wide(offset::QUEUE_DESC, layout.descriptors)?;
        self.0.write_wide(offset::QUEUE_DRIVER, layout.driver)?;
        self.0.write_wide(offset::QUEUE_DEVICE, layout.device)
    }

    pub(super) fn enable(&self) -> Result<(), RegisterError> {
        self.0.write(offset::QUEUE_ENABLE, 1_u16)
    }

    pub(super) fn is_enabled(&self) -> Result<bool, RegisterError> {
        Ok(self.0.read::<u16>(offset::QUEUE_ENABLE)? == 1)
    }

    /// Maps configuration changes to a vector. Whether the device could.
    pub(super) fn set_config_vector(&self, vector: u16) -> Result<bool, RegisterError> {
        self.set_vector(offset::CONFIG_MSIX_VECTOR, vector)
    }

    /// Maps the selected queue to a vector. Whether the device could.
    pub(super) fn set_queue_vector(&self, vector: u16) -> Result<bool, RegisterError> {
        self.set_vector(offset::QUEUE_MSIX_VECTOR, vector)
    }

    /// A device that lacks the resources answers with no vector (4.1.5.1.2.1).
    fn set_vector(&self, register: u64, vector: u16) -> Result<bool, RegisterError> {
        self.0.write(register, vector)?;
        Ok(self.0.read::<u16>(register)? == vector)
    }

    pub(super) fn has_queue_reset(&self) -> bool {
        self.0.len() >= offset::QUEUE_RESET + 2
    }

    pub(super) fn reset_queue(&self) -> Result<(), RegisterError> {
        self.0.write(offset::QUEUE_RESET, 1_u16)
    }

    pub(super) fn is_resetting(&self) -> Result<bool, RegisterError> {
        Ok(self.0.read::<u16>(offset::QUEUE_RESET)? != 0)
    }
}
