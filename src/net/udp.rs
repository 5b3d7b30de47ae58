//! The headers of a UDP flow, computed once.

use std::net::SocketAddr;
use std::ops::Range;

use hal::{MacAddress, Offload, OffloadFlags};
use smoltcp::wire::{IPV4_HEADER_LEN, IpProtocol, UDP_HEADER_LEN, UdpPacket, checksum};

use super::ip::{self, Written};
use super::{Interface, NetError};

/// The bytes of a header block. A fixed size makes the copy for each datagram a few vector moves; [`UdpFlow::header_len`] of them count.
pub const HEADER_ROOM: usize = 96;

/// The most bytes between UDP header and file data: Ethernet header with a tag, IPv6 and UDP headers leave so many of [`HEADER_ROOM`].
pub const MAX_PREFIX: usize = 30;

/// One UDP flow: its headers for a datagram of the usual size, ready to be copied.
///
/// IPv4 packets are atomic (DF set, identification 0: RFC 6864 4.1), IPv6 packets have flow label 0. The UDP checksum field holds the
/// pseudo-header sum that [`OffloadFlags::UDP_CHECKSUM`] wants, and the IPv4 header checksum is 0 for [`OffloadFlags::IPV4_CHECKSUM`].
/// A NIC that does not do both is told by [`offered`](Self::offered).
///
/// For each datagram: copy [`full`](Self::full) (the last datagram of a file: [`header`](Self::header)), write the prefix at
/// [`prefix`](Self::prefix), and gather [`payload`](Self::payload) file bytes behind the first [`header_len`](Self::header_len) bytes.
/// Frames below 60 bytes are left to the NIC to pad.
#[derive(Debug, Clone)]
pub struct UdpFlow {
    full: [u8; HEADER_ROOM],
    /// The folded pseudo-header sum without the length.
    pseudo: u16,
    ip_start: usize,
    ip_len: usize,
    prefix_len: usize,
    /// The file bytes of a datagram of the usual size: as many as the MTU allows.
    payload: usize,
    offload: Offload,
    /// What was wanted and the NIC does not offer.
    missing: OffloadFlags,
}

impl UdpFlow {
    /// The flow from `source_port` of `interface` to `destination`, whose frames go to the station `destination_mac`, with datagrams as
    /// large as the MTU allows.
    ///
    /// `prefix_len` (0..=30) is how many bytes of the header block stand between the UDP header and the file data, such as an offset; they
    /// belong to the datagram and count in its length.
    ///
    /// # Errors
    /// [`NetError::OtherFamily`], [`NetError::Port`] for a port of 0, [`NetError::Destination`], [`NetError::Prefix`].
    pub fn new(
        interface: &Interface,
        destination_mac: MacAddress,
        source_port: u16,
        destination: SocketAddr,
        prefix_len: usize,
    ) -> Result<Self, NetError> {
        ip::check_ports(source_port, destination)?;
        if prefix_len > MAX_PREFIX {
            return Err(NetError::Prefix(prefix_len));
        }

        let mut full = [0; HEADER_ROOM];
        // Lengths and checksums are filled below, for the datagram's size.
        let Written { ip_start, ip_len, pseudo } =
            ip::write_headers(interface, destination_mac, destination.ip(), IpProtocol::Udp, &mut full)?;
        let packet = &mut full[ip_start..];
        let mut datagram = UdpPacket::new_unchecked(&mut packet[ip_len..]);
        datagram.set_src_port(source_port);
        datagram.set_dst_port(destination.port());

        let mut flags = OffloadFlags::UDP_CHECKSUM;
        flags.set(OffloadFlags::IPV4_CHECKSUM, ip_len == IPV4_HEADER_LEN);
        let tag = interface.offload();
        flags |= tag.flags;
        let l4_start = ip_start + ip_len;
        let offload = Offload {
            flags,
            ip_start: ip_start as u8,
            l4_start: l4_start as u8,
            payload_start: (l4_start + UDP_HEADER_LEN) as u8,
            mss: 0,
            vlan_tag: tag.vlan_tag,
        };
        // No MTU of an interface is too small: the least, 68, leaves 8 bytes behind the longest prefix.
        let payload = usize::from(interface.mtu()) - ip_len - UDP_HEADER_LEN - prefix_len;
        let missing = OffloadFlags::empty();
        let mut flow = Self { full, pseudo, ip_start, ip_len, prefix_len, payload, offload, missing };
        flow.full = flow.header(payload);
        Ok(flow)
    }

    /// The flow for a NIC that does no more than `offered`. An IPv4 header checksum that it does not fill is computed here, once for the
    /// usual size; a UDP checksum that it does not fill is [`missing`](Self::missing).
    ///
    /// # Errors
    /// [`NetError::NoVlanTag`] when the interface has a VLAN, the NIC does not insert tags, and the interface was not told so
    /// ([`Interface::offered`]).
    pub fn offered(mut self, offered: OffloadFlags) -> Result<Self, NetError> {
        let wanted = self.offload.flags | self.missing;
        if wanted.contains(OffloadFlags::VLAN_TAG) && !offered.contains(OffloadFlags::VLAN_TAG) {
            return Err(NetError::NoVlanTag(self.offload.vlan_tag));
        }
        self.offload.flags = wanted & offered;
        self.missing = wanted - offered;
        self.full = self.header(self.payload);
        Ok(self)
    }

    /// The bytes in front of the file data: Ethernet 14 or, with a tag, 18, IPv4 20 or IPv6 40, UDP 8, and the prefix.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.prefix().end
    }

    /// Where the prefix is in the header block.
    #[inline]
    pub fn prefix(&self) -> Range<usize> {
        let start = self.ip_start + self.ip_len + UDP_HEADER_LEN;
        start..start + self.prefix_len
    }

    /// The file bytes of a datagram of the usual size: as many as the MTU allows, at least 8.
    #[inline]
    pub fn payload(&self) -> usize {
        self.payload
    }

    /// The header block of a datagram of the usual size; the prefix and what is behind [`header_len`](Self::header_len) are zero.
    #[inline]
    pub fn full(&self) -> &[u8; HEADER_ROOM] {
        &self.full
    }

    /// The header block of a datagram of `payload_len` file bytes, 0..=[`payload`](Self::payload).
    ///
    /// # Panics
    /// When the datagram would be larger than the MTU.
    #[inline]
    pub fn header(&self, payload_len: usize) -> [u8; HEADER_ROOM] {
        assert!(payload_len <= self.payload, "{payload_len} bytes of payload where {} fit", self.payload);
        let mut header = self.full;
        let udp_len = (UDP_HEADER_LEN + self.prefix_len + payload_len) as u16;
        let (_, packet) = header.split_at_mut(self.ip_start);
        ip::set_length(packet, self.ip_len, Some(udp_len), self.missing.contains(OffloadFlags::IPV4_CHECKSUM));
        let mut datagram = UdpPacket::new_unchecked(&mut packet[self.ip_len..]);
        datagram.set_len(udp_len);
        datagram.set_checksum(checksum::combine(&[self.pseudo, udp_len]));
        header
    }

    /// Writes the start of the prefix into a header block of this flow.
    ///
    /// # Panics
    /// When `prefix` is longer than the flow's.
    #[inline]
    pub fn write_prefix(&self, header: &mut [u8; HEADER_ROOM], prefix: &[u8]) {
        header[self.prefix()][..prefix.len()].copy_from_slice(prefix);
    }

    /// What to ask the NIC for with each frame.
    #[inline]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// What the NIC does not do, for [`finish_in_software`](super::finish_in_software) over a copy of the whole frame. `None` when frames
    /// need no copy: the IPv4 header is finished already.
    pub fn missing(&self) -> Option<Offload> {
        let flags = self.missing & OffloadFlags::UDP_CHECKSUM;
        (!flags.is_empty()).then_some(Offload { flags, ..self.offload })
    }
}

#[cfg(test)]
mod tests;
