//! What a frame asks of the NIC.

use bitflags::bitflags;

bitflags! {
    /// Work that a NIC can do for a frame.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
    pub struct OffloadFlags: u8 {
        /// Fill the IPv4 header checksum. The frame's field is 0.
        const IPV4_CHECKSUM = 1 << 0;
        /// Fill the UDP checksum. The frame's field holds the folded pseudo-header sum with the length, not complemented.
        const UDP_CHECKSUM = 1 << 1;
        /// Fill the TCP checksum. The field as for UDP.
        const TCP_CHECKSUM = 1 << 2;
        /// Cut a TCP frame over IPv4 into segments of `mss` payload bytes. The IPv4 length and checksum are 0, the TCP field holds the
        /// pseudo-header sum *without* the length. Includes the checksums.
        const TCP4_SEGMENTATION = 1 << 3;
        /// The same over IPv6; the payload length is 0.
        const TCP6_SEGMENTATION = 1 << 4;
        /// Insert an 802.1Q tag.
        const VLAN_TAG = 1 << 5;
        /// Cut a UDP datagram, over IPv4 or IPv6, into datagrams of `mss` payload bytes. Where a NIC does this, frames carry
        /// [whole headers](crate::Capabilities::whole_headers). Includes the checksums.
        const UDP_SEGMENTATION = 1 << 6;
    }
}

impl OffloadFlags {
    /// Both kinds of TCP segmentation.
    pub const SEGMENTATION: Self = Self::TCP4_SEGMENTATION.union(Self::TCP6_SEGMENTATION);

    /// Everything that cuts a frame.
    pub const CUTTING: Self = Self::SEGMENTATION.union(Self::UDP_SEGMENTATION);

    /// The names, as `ethtool -k` users know them, for tables and messages.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Self::IPV4_CHECKSUM, "ipv4-checksum"),
            (Self::UDP_CHECKSUM, "udp-checksum"),
            (Self::TCP_CHECKSUM, "tcp-checksum"),
            (Self::TCP4_SEGMENTATION, "tso4"),
            (Self::TCP6_SEGMENTATION, "tso6"),
            (Self::VLAN_TAG, "vlan"),
            (Self::UDP_SEGMENTATION, "uso"),
        ]
        .into_iter()
        .filter(move |(flag, _)| self.contains(*flag))
        .map(|(_, name)| name)
    }
}

/// What one frame asks for, and where its headers are. Offsets in bytes from the start of the frame.
///
/// Eight bytes, so that a driver compares it with the last frame's by one instruction.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub struct Offload {
    /// The work.
    pub flags: OffloadFlags,
    /// Where the IP header starts: 14, or 18 behind a tag in the frame.
    pub ip_start: u8,
    /// Where the UDP or TCP header starts, at most 239 (the checksum's place has 8 bits in the 8254x).
    pub l4_start: u8,
    /// Where the payload starts, for segmentation.
    pub payload_start: u8,
    /// Payload bytes of a segment, for segmentation.
    pub mss: u16,
    /// The 802.1Q tag control information (priority, DEI, VLAN identifier), for [`OffloadFlags::VLAN_TAG`].
    pub vlan_tag: u16,
}

impl Offload {
    /// Nothing.
    pub const NONE: Self = Self { flags: OffloadFlags::empty(), ip_start: 0, l4_start: 0, payload_start: 0, mss: 0, vlan_tag: 0 };
}

impl Offload {
    #[inline(always)]
    fn word(&self) -> u64 {
        let [a, b] = self.mss.to_le_bytes();
        let [c, d] = self.vlan_tag.to_le_bytes();
        u64::from_le_bytes([self.flags.bits(), self.ip_start, self.l4_start, self.payload_start, a, b, c, d])
    }
}

impl PartialEq for Offload {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.word() == other.word()
    }
}

impl Eq for Offload {}
