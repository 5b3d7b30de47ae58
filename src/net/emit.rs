//! Frames that this station sends by itself, checksums computed. All are written into a buffer that is used again.

use std::net::Ipv4Addr;

use hal::MacAddress;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Packet,
    Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

/// The shortest frame without its checksum (IEEE 802.3 4A.4.2). Frames are padded here, as not every NIC does it.
const LEAST_FRAME: usize = 60;

/// Which stations a frame goes between.
#[derive(Clone, Copy)]
pub(super) struct Stations {
    pub source: MacAddress,
    pub destination: MacAddress,
}

/// Makes `out` a frame with `len` zero bytes behind the Ethernet header, and returns those.
fn ethernet(out: &mut Vec<u8>, stations: Stations, ethertype: EthernetProtocol, len: usize) -> &mut [u8] {
    out.clear();
    out.resize((ETHERNET_HEADER_LEN + len).max(LEAST_FRAME), 0);
    let (src_addr, dst_addr) = (EthernetAddress(stations.source.0), EthernetAddress(stations.destination.0));
    EthernetRepr { src_addr, dst_addr, ethertype }.emit(&mut EthernetFrame::new_unchecked(&mut out[..]));
    &mut out[ETHERNET_HEADER_LEN..][..len]
}

/// Makes `out` an ARP frame.
pub(super) fn arp(out: &mut Vec<u8>, stations: Stations, packet: &ArpRepr) {
    packet.emit(&mut ArpPacket::new_unchecked(ethernet(out, stations, EthernetProtocol::Arp, packet.buffer_len())));
}

/// Makes `out` an ARP request to everybody on the link: who has `target`, says `own` at `source`. For `own` itself it is an announcement.
pub(super) fn arp_request(out: &mut Vec<u8>, source: MacAddress, own: Ipv4Addr, target: Ipv4Addr) {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(source.0),
        source_protocol_addr: own,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    arp(out, Stations { source, destination: MacAddress::BROADCAST }, &request);
}

/// Makes `out` a frame with an ICMPv4 message. The header's payload length is that of the message, at most what the MTU allows.
pub(super) fn icmpv4(out: &mut Vec<u8>, stations: Stations, header: &Ipv4Repr, message: &Icmpv4Repr<'_>) {
    let packet = ethernet(out, stations, EthernetProtocol::Ipv4, header.buffer_len() + header.payload_len);
    let checksums = ChecksumCapabilities::default();
    header.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &checksums);
    message.emit(&mut Icmpv4Packet::new_unchecked(&mut packet[header.buffer_len()..]), &checksums);
}

/// Makes `out` a frame with an ICMPv6 message. The header's payload length is that of the message, at most what the MTU allows.
pub(super) fn icmpv6(out: &mut Vec<u8>, stations: Stations, header: &Ipv6Repr, message: &Icmpv6Repr<'_>) {
    let packet = ethernet(out, stations, EthernetProtocol::Ipv6, header.buffer_len() + header.payload_len);
    header.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
    let mut content = Icmpv6Packet::new_unchecked(&mut packet[header.buffer_len()..]);
    message.emit(&header.src_addr, &header.dst_addr, &mut content, &ChecksumCapabilities::default());
}
