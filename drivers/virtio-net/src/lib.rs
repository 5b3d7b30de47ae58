//! A driver for virtio network devices, over any virtio transport.
//!
//! It follows the OASIS *Virtual I/O Device (VIRTIO) Version 1.3*; comments name its sections.

#![forbid(unsafe_code)]

pub mod config;
pub mod features;

pub use config::{Coalescing, Packed, Rss, VirtioNetConfig};
pub use features::{Features, Negotiated};
