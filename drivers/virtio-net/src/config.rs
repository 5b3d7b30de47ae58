//! How the driver is set up.

use std::time::Duration;

use hal::{MacAddress, NicError, OffloadFlags, RxFilter};

use crate::features::Features;

/// The largest IP packet where neither device nor configuration says.
pub(crate) const USUAL_MTU: u16 = 1500;
/// The least that IPv4 needs (RFC 791).
pub(crate) const LEAST_MTU: u16 = 68;
/// An Ethernet header, and a tag.
pub(crate) const ETHERNET: u32 = 18;

/// Descriptors of a queue where nobody says.
pub(crate) const DESCRIPTORS: u16 = 256;

/// Which layout the rings have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Packed {
    /// Packed where the device offers it.
    #[default]
    Auto,
    /// Packed, or an error.
    On,
    /// Split.
    Off,
}

/// Receive-side scaling: which packets go to which queue pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key, 1 to 255 bytes; 40 are usual.
    pub key: Vec<u8>,
    /// The queue pair for each value of the hash's low bits; a power of two of entries, 1 to 32,768.
    pub table: Vec<u16>,
}

/// Interrupt moderation: an interrupt comes when either is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// Microseconds since the first packet.
    pub usecs: u32,
    /// Packets.
    pub packets: u32,
}

/// How a [`VirtioNet`](crate::VirtioNet) is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioNetConfig {
    /// Transmit descriptors of a queue: 8 to 32,768; rounded down to a power of two and to the device's most. Default 256.
    pub tx_descriptors: u16,
    /// Receive descriptors of a queue, as above. Default 256.
    pub rx_descriptors: u16,
    /// Pairs of a transmit and a receive queue, 1 to 128. Default 1.
    pub queue_pairs: u16,
    /// The layout of the rings.
    pub packed: Packed,
    /// The largest IP packet in bytes, 68 to 65,535. Default: what the device says, else 1500.
    pub mtu: Option<u16>,
    /// The device reaches memory through an IOMMU (VFIO): it has to offer ACCESS_PLATFORM. Default false.
    pub iommu: bool,
    /// What the NIC offers to do for frames; less than all leaves the work to software. Default: all.
    pub offloads: OffloadFlags,
    /// Takes packets whose checksum the device has checked, or left out since they never were on a wire. Default true.
    pub rx_checksum: bool,
    /// Takes packets that the device has joined (large receive offload, the specification's GUEST_TSO and GUEST_USO). Default false.
    pub lro: bool,
    /// What a receive buffer of the pool holds at least, in bytes. Where every packet fits into one (of the MTU, the driver's and the device's, and not
    /// joined), the driver does without VIRTIO_NET_F_MRG_RXBUF: its count of buffers in each header is a word that the device writes with one value
    /// and that the driver has to write with another one to send the packet on. Without it DPDK's vhost leaves that word alone; a device that
    /// always writes it is no worse off. Default 0, not known: packets may lie in several buffers.
    pub rx_buffer: u16,
    /// Offers to gather a frame from several segments. Default true.
    pub gather: bool,
    /// What is received from the start. Default: the station address and broadcast.
    pub filter: RxFilter,
    /// Another station address than the device's.
    pub mac: Option<MacAddress>,
    /// Spreads packets over the queue pairs as this says, where the device can.
    pub rss: Option<Rss>,
    /// Asks for the hash of received packets. Default false.
    pub hash_report: bool,
    /// Moderates transmit interrupts.
    pub tx_coalescing: Option<Coalescing>,
    /// Moderates receive interrupts.
    pub rx_coalescing: Option<Coalescing>,
    /// Features not to accept, whatever the device offers: to compare, and to work around.
    pub refuse: Features,
    /// How long a command on the control queue may take. Default 1 s.
    pub patience: Duration,
}

impl Default for VirtioNetConfig {
    fn default() -> Self {
        Self {
            tx_descriptors: DESCRIPTORS,
            rx_descriptors: DESCRIPTORS,
            queue_pairs: 1,
            packed: Packed::Auto,
            mtu: None,
            iommu: false,
            offloads: OffloadFlags::all(),
            rx_checksum: true,
            lro: false,
            rx_buffer: 0,
            gather: true,
            filter: RxFilter::default(),
            mac: None,
            rss: None,
            hash_report: false,
            tx_coalescing: None,
            rx_coalescing: None,
            refuse: Features::empty(),
            patience: Duration::from_secs(1),
        }
    }
}

impl VirtioNetConfig {
    /// Whether a packet may need several receive buffers.
    pub(crate) fn merges(&self) -> bool {
        self.lro || u32::from(self.rx_buffer) < u32::from(self.mtu.unwrap_or(USUAL_MTU)) + ETHERNET
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`NicError::Config`], with what the driver takes.
    pub fn check(&self) -> Result<(), NicError> {
        let error = |text: String| Err(NicError::Config(text));
        for (ring, len) in [("transmit", self.tx_descriptors), ("receive", self.rx_descriptors)] {
            if !(8..=32_768).contains(&len) {
                return error(format!("a {ring} ring of {len} descriptors; virtio takes 8 to 32768"));
            }
        }
        if !(1..=128).contains(&self.queue_pairs) {
            return error(format!("{} queue pairs; this driver takes 1 to 128", self.queue_pairs));
        }
        if self.mtu.is_some_and(|mtu| mtu < LEAST_MTU) {
            return error(format!("an MTU of {}; IPv4 needs 68 bytes at least", self.mtu.unwrap_or(0)));
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_valid_unicast()) {
            return error(format!("{mac} is not a station address"));
        }
        if let Some(rss) = &self.rss {
            if rss.key.is_empty() || rss.key.len() > 255 {
                return error(format!("an RSS key of {} bytes; virtio takes 1 to 255 (40 are usual)", rss.key.len()));
            }
            if !rss.table.len().is_power_of_two() || rss.table.len() > 32_768 {
                return error(format!("an RSS table of {} entries; virtio takes a power of two up to 32768", rss.table.len()));
            }
            if let Some(pair) = rss.table.iter().find(|pair| **pair >= self.queue_pairs) {
                return error(format!("the RSS table names queue pair {pair} of {}", self.queue_pairs));
            }
        }
        self.filter.check()
    }
}
