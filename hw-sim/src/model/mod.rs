//! Devices in this process, stepped on the caller's thread, that misbehave on demand.
//!
//! A model is an independent reading of a device's manual: it has its own definitions of registers and descriptors and knows no driver. It has
//! three uses: it shows what a device does with what a driver wrote, it makes every failure that a driver has to survive happen at a chosen
//! moment, and it keeps a list of what the driver did that the manual forbids, which a test expects to be empty.

pub mod e1000;
pub mod idle;
pub mod virtio;

mod checksum;
mod layers;
mod segmentation;
mod space;
mod violations;

/// What became of a frame that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is in the buffers of the ring.
    Delivered,
    /// It is not for this station, or too long or too short.
    Filtered,
    /// There were not enough descriptors, or the device could not reach memory.
    Missed,
    /// The receiver is not enabled, the link is down, or the device is gone.
    Off,
}
