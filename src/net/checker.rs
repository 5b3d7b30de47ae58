//! Frames for tests, written and read by etherparse: an independent reading of the RFCs.

use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacket, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use hal::MacAddress;

use super::Interface;

/// The interface's Ethernet address.
pub const OWN: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Another station's.
pub const PEER: MacAddress = MacAddress([0x52, 0x55, 0x0a, 0, 2, 2]);
/// The interface's IPv4 address.
pub const OWN_V4: [u8; 4] = [10, 0, 2, 15];
/// The other station's.
pub const PEER_V4: [u8; 4] = [10, 0, 2, 2];
/// The interface's IPv6 address.
pub const OWN_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56];
/// The other station's.
pub const PEER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0xef];
/// All nodes of the link, and the solicited-node groups of both.
pub const ALL_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const OWN_GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56];
pub const PEER_GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xab, 0xcd, 0xef];
/// The Ethernet addresses of those groups.
pub const ALL_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);
pub const OWN_GROUP_MAC: MacAddress = MacAddress([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
pub const PEER_GROUP_MAC: MacAddress = MacAddress([0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);

/// The ICMPv6 types of RFC 4861 4.3 and 4.4.
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
/// The solicited and override flags of an advertisement.
pub const SOLICITED: u8 = 0x40;
pub const OVERRIDE: u8 = 0x20;

/// The IPv4 interface of the tests, with the gateway 10.0.2.1.
pub fn v4() -> Interface {
    Interface::new(OWN, "10.0.2.15/24".parse().unwrap(), Some("10.0.2.1".parse().unwrap()), 1500, None).unwrap()
}

/// The IPv6 interface of the tests.
pub fn v6() -> Interface {
    Interface::new(OWN, "2001:db8::12:3456/64".parse().unwrap(), None, 1500, None).unwrap()
}

/// An ARP packet in a frame from its sender to `destination`.
pub fn arp(destination: MacAddress, operation: ArpOperation, sender: (MacAddress, [u8; 4]), target: (MacAddress, [u8; 4])) -> Vec<u8> {
    let packet =
        ArpEthIpv4Packet { operation, sender_mac: sender.0.0, sender_ipv4: sender.1, target_mac: target.0.0, target_ipv4: target.1 };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(sender.0.0, destination.0).arp(ArpPacket::from(packet)).write(&mut frame).unwrap();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ICMPv4 echo request with identifier 77 and sequence number 5.
pub fn ping_v4(stations: [MacAddress; 2], addresses: [[u8; 4]; 2], data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(stations[0].0, stations[1].0).ipv4(addresses[0], addresses[1], 5);
    packet.icmpv4_echo_request(77, 5).write(&mut frame, data).unwrap();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ICMPv6 echo request with identifier 77 and sequence number 5.
pub fn ping_v6(stations: [MacAddress; 2], addresses: [[u8; 16]; 2], data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(stations[0].0, stations[1].0).ipv6(addresses[0], addresses[1], 5);
    packet.icmpv6_echo_request(77, 5).write(&mut frame, data).unwrap();
    frame
}

/// A neighbour discovery message about `target`, with a right checksum whatever the options are.
pub fn ndisc(
    kind: u8,
    flags: u8,
    hop_limit: u8,
    stations: [MacAddress; 2],
    addresses: [[u8; 16]; 2],
    target: [u8; 16],
    options: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(stations[0].0, stations[1].0).ipv6(addresses[0], addresses[1], hop_limit);
    packet.icmpv6_raw(kind, 0, [flags, 0, 0, 0]).write(&mut frame, &[&target, options].concat()).unwrap();
    frame
}

/// A link-layer address option: 1 is the source's, 2 the target's.
pub fn link_layer(kind: u8, station: MacAddress) -> Vec<u8> {
    [&[kind, 1], &station.0[..]].concat()
}

/// Asserts that a frame's lengths and checksums are right, and reads it.
pub fn check(frame: &[u8]) -> SlicedPacket<'_> {
    assert!(frame.len() >= 60, "a runt of {} bytes", frame.len());
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let len = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("no ICMPv4") };
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            header.total_len.into()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
            assert!(icmp.is_checksum_valid(header.source, header.destination));
            40 + usize::from(header.payload_length)
        }
        NetSlice::Arp(packet) => packet.slice().len(),
    };
    assert_eq!(frame.len(), (14 + len).max(60));
    packet
}

/// The stations of a frame: from and to.
pub fn stations(packet: &SlicedPacket<'_>) -> [MacAddress; 2] {
    let header = packet.link.as_ref().unwrap().to_header().unwrap().ethernet2().unwrap();
    [MacAddress(header.source), MacAddress(header.destination)]
}

/// The ARP packet of a frame.
pub fn arp_of(packet: &SlicedPacket<'_>) -> ArpEthIpv4Packet {
    let Some(NetSlice::Arp(arp)) = &packet.net else { panic!("no ARP") };
    arp.to_packet().try_eth_ipv4().unwrap()
}

/// The addresses and the hop limit of an IPv6 packet.
pub fn v6_of(packet: &SlicedPacket<'_>) -> ([[u8; 16]; 2], u8) {
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6") };
    ([ip.header().source(), ip.header().destination()], ip.header().hop_limit())
}

/// Type, first flags byte, and the bytes from the target on, of an ICMPv6 message.
pub fn icmpv6_of<'f>(packet: &SlicedPacket<'f>) -> (u8, u8, &'f [u8]) {
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
    assert_eq!(icmp.code_u8(), 0);
    (icmp.type_u8(), icmp.bytes5to8()[0], &icmp.slice()[8..])
}
