//! Devices that do nothing: registers and rings in ordinary memory.
//!
//! They answer what a driver asks when it starts, and otherwise only keep what was written. `complete` reports everything that was posted as
//! done. So whatever is counted between two calls is the driver's own: its instructions, its allocations, its doorbells. Nothing is checked:
//! that is for the models.

mod e1000;
mod space;
mod virtio;

pub use e1000::IdleDevice;
pub use virtio::IdleVirtio;
