//! What every pagewire driver and every bus agrees on.
//!
//! A *driver* (e1000, virtio-net) knows rings and registers and no bus by name; a *bus* (the kernel's VFIO, the QEMU rig, a
//! vhost-user socket) knows how to reach a device and no driver. They meet here:
//!
//! | room | holds |
//! |---|---|
//! | [`registers`], [`doorbell`] | device registers, mapped or by message, and the one write that starts a queue |
//! | [`space`], [`iova`] | what a device can address: mapping memory, and ranges of files read-only; which bus addresses are free |
//! | [`memory`] | memory shared with a device; values go in and out by copy |
//! | [`pool`] | packet buffers, which return to their pool when dropped, from any thread |
//! | [`segment`], [`offload`], [`frame`] | what is sent: gathered segments, requests to the NIC, bursts of frames |
//! | [`ring`], [`table`], [`address_map`] | what every queue is made of: descriptors, and from segments to bus addresses |
//! | [`receive`] | what arrives: packets over one or several buffers |
//! | [`progress`] | how far a queue is, and when a retired mapping may go |
//! | [`nic`] | the traits of a NIC and its queues |
//! | [`bus`], [`interrupt`] | the traits of a device on a PCI bus |
//! | [`cycles`] | the processor's clock, for measurements |
//! | [`virtio`] | the trait of a virtio transport, which needs no PCI and no registers |
//!
//! All unsafe code of rings and DMA memory is in this crate (`memory`, `table`, `registers`, `doorbell`, `pool` with `free_list`, `prefetch`, `cycles`, `barrier`); the drivers forbid it.

#![deny(unsafe_code)]

pub mod address_map;
pub mod barrier;
pub mod bus;
pub mod cycles;
pub mod doorbell;
pub mod frame;
pub mod interrupt;
pub mod iova;
pub mod mac;
pub mod memory;
pub mod nic;
pub mod offload;
pub mod pool;
mod prefetch;
pub mod progress;
pub mod receive;
pub mod registers;
pub mod ring;
pub mod segment;
pub mod space;
pub mod table;
pub mod virtio;

mod free_list;

pub use address_map::AddressMap;
pub use bus::{BusDevice, BusError, PciIdentity};
pub use doorbell::Doorbell;
pub use frame::{Burst, Frame};
pub use interrupt::Interrupt;
pub use mac::MacAddress;
pub use memory::{DmaMemory, SharedMemory};
pub use nic::{Capabilities, FeatureReport, Link, Nic, NicError, RxFilter, RxQueue, Statistics, TxQueue};
pub use offload::{Offload, OffloadFlags};
pub use pool::{Buffer, Pool, PoolConfig};
pub use progress::{Fence, Progress};
pub use receive::{Packet, RxBurst};
pub use registers::{RegisterError, Registers};
pub use ring::DescriptorRing;
pub use segment::Segment;
pub use space::{Access, DmaError, DmaLimits, DmaSpace, Mapping};
pub use table::Table;
