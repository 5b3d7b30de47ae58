//! A driver for virtio network devices, over any virtio transport.
//!
//! It follows the OASIS *Virtual I/O Device (VIRTIO) Version 1.3*; comments name its sections.
//!
//! | room | holds |
//! |---|---|
//! | `features`, `config` | what is negotiated, and why |
//! | `ring` | split and packed rings behind one trait |
//! | `header` | checksum and segmentation requests, both ways |
//! | `tx`, `rx`, `queue` | the queues, generic over the ring |
//! | `control`, `filter`, `steering` | commands: which packets are received, and where |
//! | `device`, `nic` | status and configuration; the whole NIC |
//! | `pci` | the PCI transport |
//!
//! The driver knows no transport but by hal's trait. Nothing that the device writes is used before it was checked, and descriptors are never
//! read back.

#![forbid(unsafe_code)]

mod config;
mod control;
mod device;
mod features;
mod filter;
mod header;
mod nic;
pub mod pci;
mod queue;
mod ring;
mod rx;
mod steering;
#[cfg(test)]
mod testing;
mod tx;

pub use config::{Coalescing, Packed, Rss, VirtioNetConfig};
pub use features::{Features, Negotiated};
pub use nic::VirtioNet;
