//! Received frames, as far as this station understands them. smoltcp checks lengths, versions and checksums, from the outside in.

use hal::MacAddress;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

/// An IPv4 header without options has this many bytes.
const IPV4_HEADER_LEN: u8 = 20;

/// A frame from a station (never from a group).
pub(super) struct Parsed<'f> {
    pub source: MacAddress,
    pub destination: MacAddress,
    pub content: Content<'f>,
}

/// What is in it.
pub(super) enum Content<'f> {
    /// ARP for Ethernet and IPv4.
    Arp(ArpRepr),
    /// An ICMPv4 echo request in one piece, without IPv4 options.
    Icmpv4(Ipv4Repr, Icmpv4Repr<'f>),
    /// An ICMPv6 echo request, or a neighbour solicitation or advertisement, without extension headers.
    Icmpv6(Ipv6Repr, Icmpv6Repr<'f>),
}

/// Reads a frame without a tag; `None` for everything that is malformed, fragmented or not listed in [`Content`].
pub(super) fn parse(frame: &[u8]) -> Option<Parsed<'_>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let source = MacAddress(frame.src_addr().0);
    if !source.is_valid_unicast() {
        return None;
    }
    let content = match frame.ethertype() {
        EthernetProtocol::Arp => Content::Arp(ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?),
        EthernetProtocol::Ipv4 => icmpv4(frame.payload())?,
        EthernetProtocol::Ipv6 => icmpv6(frame.payload())?,
        _ => return None,
    };
    Some(Parsed { source, destination: MacAddress(frame.dst_addr().0), content })
}

fn icmpv4(packet: &[u8]) -> Option<Content<'_>> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let header = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
    // smoltcp refuses fragments only when it is built without reassembly, which another crate of a build can change.
    let fragment = packet.more_frags() || packet.frag_offset() != 0;
    if fragment || packet.header_len() != IPV4_HEADER_LEN || header.next_header != IpProtocol::Icmp {
        return None;
    }
    let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    if message.msg_type() != Icmpv4Message::EchoRequest {
        return None;
    }
    Some(Content::Icmpv4(header, Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).ok()?))
}

fn icmpv6(packet: &[u8]) -> Option<Content<'_>> {
    let packet = Ipv6Packet::new_checked(packet).ok()?;
    let header = Ipv6Repr::parse(&packet).ok()?;
    if header.next_header != IpProtocol::Icmpv6 {
        return None;
    }
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    if !matches!(message.msg_type(), Icmpv6Message::EchoRequest | Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert) {
        return None;
    }
    let message = Icmpv6Repr::parse(&header.src_addr, &header.dst_addr, &message, &ChecksumCapabilities::default()).ok()?;
    Some(Content::Icmpv6(header, message))
}
