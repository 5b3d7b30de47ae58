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

/// What every model of a network device does, whatever the device is.
pub trait Model: Clone {
    /// Lets time pass. Returns the frames that were put on the wire since the last call, in order.
    fn step(&self) -> Vec<Vec<u8>>;

    /// A frame arrives from the wire.
    fn receive(&self, frame: &[u8]) -> Received;

    /// What the driver did that the manual forbids, each once, in order.
    fn violations(&self) -> Vec<String>;

    /// The accesses to memory (address, length) that nothing is mapped for, in order.
    fn faulted_accesses(&self) -> Vec<(u64, u64)>;

    /// How many mappings of memory and files there are now.
    fn mappings(&self) -> usize;
}

macro_rules! model {
    ($model:ty) => {
        impl Model for $model {
            fn step(&self) -> Vec<Vec<u8>> {
                self.step()
            }

            fn receive(&self, frame: &[u8]) -> Received {
                self.receive(frame)
            }

            fn violations(&self) -> Vec<String> {
                self.violations()
            }

            fn faulted_accesses(&self) -> Vec<(u64, u64)> {
                self.faulted_accesses()
            }

            fn mappings(&self) -> usize {
                self.mappings()
            }
        }
    };
}

model!(e1000::E1000Model);
model!(virtio::VirtioNetModel);
