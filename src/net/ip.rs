//! Ethernet and IP headers of what this station sends, for any protocol above.

use std::net::{IpAddr, SocketAddr};

use hal::MacAddress;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, checksum,
};

use super::vlan::{TAG_LEN, tag_bytes};
use super::{Interface, NetError};

/// The hop limit of what is sent (RFC 1700's recommendation, and every host's default).
const HOP_LIMIT: u8 = 64;

/// The most bytes of Ethernet and IP headers.
pub(crate) const MAX_HEADERS: usize = ETHERNET_HEADER_LEN + TAG_LEN + IPV6_HEADER_LEN;

/// What [`write_headers`] wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Where the IP header starts: 14, or 18 behind a tag.
    pub ip_start: usize,
    /// The bytes of the IP header: 20 or 40.
    pub ip_len: usize,
    /// The folded pseudo-header sum without the length.
    pub pseudo: u16,
}

/// Writes the headers of packets from `interface` to `destination`, in frames to the station `destination_mac`, at the start of `frame`. Lengths
/// and checksums are left: [`set_length`].
///
/// IPv4 packets are atomic (DF set, identification 0: RFC 6864 4.1), IPv6 packets have flow label 0.
pub(crate) fn write_headers(
    interface: &Interface,
    destination_mac: MacAddress,
    destination: IpAddr,
    next_header: IpProtocol,
    frame: &mut [u8],
) -> Result<Written, NetError> {
    if destination_mac == MacAddress([0; 6]) {
        return Err(NetError::Destination(destination_mac));
    }
    let tag = interface.written_tag();
    let ip_start = ETHERNET_HEADER_LEN + if tag.is_some() { TAG_LEN } else { 0 };
    let (frame, packet) = frame.split_at_mut(ip_start);
    let (ethertype, ip_len, pseudo) = match (interface.address().address(), destination) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len: 0, hop_limit: HOP_LIMIT };
            header.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &ChecksumCapabilities::ignored());
            (EthernetProtocol::Ipv4, IPV4_HEADER_LEN, checksum::pseudo_header_v4(&src_addr, &dst_addr, next_header, 0))
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len: 0, hop_limit: HOP_LIMIT };
            header.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
            (EthernetProtocol::Ipv6, IPV6_HEADER_LEN, checksum::pseudo_header_v6(&src_addr, &dst_addr, next_header, 0))
        }
        (_, target) => {
            let address = interface.address();
            return Err(NetError::OtherFamily { target, interface: address.to_string(), family: address.family() });
        }
    };
    let (src_addr, dst_addr) = (EthernetAddress(interface.mac().0), EthernetAddress(destination_mac.0));
    EthernetRepr { src_addr, dst_addr, ethertype }.emit(&mut EthernetFrame::new_unchecked(&mut *frame));
    if let Some(tag) = tag {
        // The type moves behind the tag.
        let place = ETHERNET_HEADER_LEN - 2;
        frame.copy_within(place..ETHERNET_HEADER_LEN, place + TAG_LEN);
        frame[place..place + TAG_LEN].copy_from_slice(&tag_bytes(tag));
    }
    Ok(Written { ip_start, ip_len, pseudo })
}

/// Sets the IP header's length for `len` bytes behind it, or to 0 where the NIC sets it (`None`), and its checksum: computed, or 0 where the NIC
/// fills it.
#[inline]
pub(crate) fn set_length(packet: &mut [u8], ip_len: usize, len: Option<u16>, checksum: bool) {
    if ip_len == IPV4_HEADER_LEN {
        let mut packet = Ipv4Packet::new_unchecked(packet);
        packet.set_total_len(len.map_or(0, |len| IPV4_HEADER_LEN as u16 + len));
        if checksum {
            packet.fill_checksum();
        } else {
            packet.set_checksum(0);
        }
    } else {
        Ipv6Packet::new_unchecked(packet).set_payload_len(len.unwrap_or(0));
    }
}

/// That both ports are ports.
pub(crate) fn check_ports(source_port: u16, destination: SocketAddr) -> Result<(), NetError> {
    for (which, port) in [("source", source_port), ("destination", destination.port())] {
        if port == 0 {
            return Err(NetError::Port { which });
        }
    }
    Ok(())
}
