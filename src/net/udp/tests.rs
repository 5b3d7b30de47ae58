//! What the header blocks are, read by etherparse.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, VlanSlice};
use proptest::prelude::*;

use super::*;
use crate::net::finish_in_software;

const OWN: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const PEER: MacAddress = MacAddress([0x52, 0x55, 0x0a, 0, 2, 2]);

fn interface(address: &str, mtu: u16, vlan: Option<u16>) -> Interface {
    Interface::new(OWN, address.parse().unwrap(), None, mtu, vlan).unwrap()
}

fn v4(prefix_len: usize) -> UdpFlow {
    UdpFlow::new(&interface("10.0.2.15/24", 1500, None), PEER, 4000, "10.0.2.2:9000".parse().unwrap(), prefix_len).unwrap()
}

fn v6(prefix_len: usize) -> UdpFlow {
    UdpFlow::new(&interface("2001:db8::15/64", 1500, None), PEER, 4000, "[2001:db8::7]:9000".parse().unwrap(), prefix_len).unwrap()
}

/// A whole frame as it is gathered, before the NIC does its part.
fn frame(flow: &UdpFlow, prefix: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut header = flow.header(payload.len());
    flow.write_prefix(&mut header, prefix);
    [&header[..flow.header_len()], payload].concat()
}

/// Asserts that a finished frame is right in every field.
fn check(frame: &[u8], prefix: &[u8], payload: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let ethernet = packet.link.unwrap().to_header().unwrap().ethernet2().unwrap();
    assert_eq!((ethernet.source, ethernet.destination), (OWN.0, PEER.0));
    let Some(TransportSlice::Udp(datagram)) = &packet.transport else { panic!("no UDP") };
    assert_eq!((datagram.source_port(), datagram.destination_port()), (4000, 9000));
    let content = [prefix, payload].concat();
    assert_eq!(datagram.payload(), content);
    let udp = datagram.to_header();
    assert_ne!(udp.checksum, 0);
    let expected = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.identification, header.dont_fragment, header.more_fragments, header.time_to_live), (0, true, false, 64));
            assert_eq!((header.source, header.destination), ([10, 0, 2, 15], [10, 0, 2, 2]));
            udp.calc_checksum_ipv4(&header, &content).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!((header.flow_label.value(), header.traffic_class, header.hop_limit), (0, 0, 64));
            udp.calc_checksum_ipv6(&header, &content).unwrap()
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    assert_eq!(udp.checksum, expected);
}

#[test]
fn a_full_datagram_fills_the_mtu() {
    for (flow, headers) in [(v4(0), 42), (v4(8), 50), (v6(0), 62), (v6(30), 92)] {
        assert_eq!(flow.header_len(), headers);
        assert_eq!(flow.header_len() + flow.payload(), 1514);
        assert_eq!(flow.full(), &flow.header(flow.payload()));
    }
}

#[test]
fn the_nic_is_asked_for_what_the_family_has() {
    let offload = v4(8).offload();
    assert_eq!(offload.flags, OffloadFlags::IPV4_CHECKSUM | OffloadFlags::UDP_CHECKSUM);
    assert_eq!((offload.ip_start, offload.l4_start), (14, 34));
    let offload = v6(8).offload();
    assert_eq!(offload.flags, OffloadFlags::UDP_CHECKSUM);
    assert_eq!((offload.ip_start, offload.l4_start), (14, 54));
}

#[test]
fn a_vlan_is_a_tag_that_the_nic_inserts() {
    let interface = interface("10.0.2.15/24", 1500, Some(0x6064));
    let flow = UdpFlow::new(&interface, PEER, 4000, "10.0.2.2:9000".parse().unwrap(), 0).unwrap();
    assert!(flow.offload().flags.contains(OffloadFlags::VLAN_TAG));
    assert_eq!((flow.offload().vlan_tag, flow.header_len()), (0x6064, 42));
    assert!(flow.offered(OffloadFlags::UDP_CHECKSUM).unwrap_err().to_string().contains("VLAN 100"));
}

#[test]
fn a_tag_that_the_nic_does_not_insert_stands_in_the_headers() {
    for (own, to, ip_len) in [("10.0.2.15/24", "10.0.2.2:9000", 20), ("2001:db8::15/64", "[2001:db8::7]:9000", 40)] {
        let interface = interface(own, 1500, Some(0x6064)).offered(OffloadFlags::UDP_CHECKSUM);
        let flow = UdpFlow::new(&interface, PEER, 4000, to.parse().unwrap(), MAX_PREFIX).unwrap();
        let flow = flow.offered(OffloadFlags::UDP_CHECKSUM).unwrap();
        assert_eq!(flow.offload().flags, OffloadFlags::UDP_CHECKSUM);
        assert_eq!(usize::from(flow.offload().l4_start), 18 + ip_len);
        assert_eq!(flow.header_len() + flow.payload(), 1518);
        for payload in [0, 1, flow.payload()] {
            let (prefix, payload) = ([7; MAX_PREFIX], vec![9; payload]);
            let mut frame = frame(&flow, &prefix, &payload);
            finish_in_software(&mut frame, &flow.offload());
            check(&frame, &prefix, &payload);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(VlanSlice::SingleVlan(tag)) = packet.vlan() else { panic!("no tag, or two") };
            let tag = tag.to_header();
            assert_eq!((tag.pcp.value(), tag.drop_eligible_indicator, tag.vlan_id.value()), (3, false, 100));
        }
    }
}

#[test]
fn the_fields_for_the_nic_hold_zero_and_the_folded_pseudo_header_sum() {
    let header = v4(8).header(100);
    assert_eq!(header[24..26], [0, 0]);
    // 0a00 + 020f + 0a00 + 0202 + 0011 + (8 + 8 + 100)
    assert_eq!(u16::from_be_bytes([header[40], header[41]]), 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 0x11 + 116);
}

#[test]
fn a_nic_without_the_header_checksum_gets_it_computed_and_needs_no_copy() {
    let flow = v4(8).offered(OffloadFlags::UDP_CHECKSUM).unwrap();
    assert_eq!((flow.offload().flags, flow.missing()), (OffloadFlags::UDP_CHECKSUM, None));
    for payload in [vec![7; 3], vec![7; flow.payload()]] {
        let mut frame = frame(&flow, &[1; 8], &payload);
        finish_in_software(&mut frame, &flow.offload());
        check(&frame, &[1; 8], &payload);
    }
    assert_eq!(flow.full()[24..26], flow.header(flow.payload())[24..26]);
}

#[test]
fn a_nic_that_does_nothing_leaves_the_datagram_s_checksum_missing() {
    let flow = v4(0).offered(OffloadFlags::empty()).unwrap();
    let missing = flow.missing().unwrap();
    assert_eq!((flow.offload().flags, missing.flags), (OffloadFlags::empty(), OffloadFlags::UDP_CHECKSUM));
    let mut frame = frame(&flow, &[], b"file");
    finish_in_software(&mut frame, &missing);
    check(&frame, &[], b"file");
    // A second NIC that does everything is asked for everything again.
    assert_eq!(flow.offered(OffloadFlags::all()).unwrap().full(), v4(0).full());
}

#[test]
fn a_computed_udp_checksum_of_zero_goes_out_as_ones() {
    let flow = v4(0);
    let mut complement = frame(&flow, &[], &[0, 0]);
    finish_in_software(&mut complement, &flow.offload());
    // The payload that equals the checksum makes the sum come out as zero.
    let payload = [complement[40], complement[41]];
    let mut frame = frame(&flow, &[], &payload);
    finish_in_software(&mut frame, &flow.offload());
    assert_eq!(frame[40..42], [0xff, 0xff]);
    check(&frame, &[], &payload);
}

#[test]
fn a_flow_that_cannot_be_says_what_to_give() {
    let (interface, to) = (interface("10.0.2.15/24", 1500, None), "10.0.2.2:9000".parse().unwrap());
    let other = "[2001:db8::7]:9000".parse().unwrap();
    for (flow, reason) in [
        (UdpFlow::new(&interface, MacAddress([0; 6]), 4000, to, 0), "resolve the next hop"),
        (UdpFlow::new(&interface, PEER, 0, to, 0), "source port"),
        (UdpFlow::new(&interface, PEER, 4000, "10.0.2.2:0".parse().unwrap(), 0), "destination port"),
        (UdpFlow::new(&interface, PEER, 4000, to, 31), "at most 30"),
        (UdpFlow::new(&interface, PEER, 4000, other, 0), "same family"),
    ] {
        let error = flow.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn the_smallest_mtus_leave_room_for_file_bytes() {
    let flow = UdpFlow::new(&interface("10.0.2.15/24", 68, None), PEER, 4000, "10.0.2.2:9000".parse().unwrap(), 30).unwrap();
    assert_eq!(flow.payload(), 10);
}

proptest! {
    #[test]
    fn every_datagram_is_right_once_the_checksums_are_filled(
        six: bool,
        prefix in proptest::collection::vec(any::<u8>(), 0..=MAX_PREFIX),
        payload in proptest::collection::vec(any::<u8>(), 0..=1406),
    ) {
        let flow = if six { v6(prefix.len()) } else { v4(prefix.len()) };
        let mut frame = frame(&flow, &prefix, &payload);
        finish_in_software(&mut frame, &flow.offload());
        check(&frame, &prefix, &payload);
    }

    #[test]
    fn the_sum_of_any_addresses_is_right(
        four: [[u8; 4]; 2],
        six: [[u8; 16]; 2],
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for [own, peer] in [four.map(IpAddr::from), six.map(IpAddr::from)] {
            let Ok(address) = crate::net::Cidr::new(own, 8) else { continue };
            let interface = Interface::new(OWN, address, None, 1500, None).unwrap();
            let flow = UdpFlow::new(&interface, PEER, 4000, SocketAddr::new(peer, 9000), 0).unwrap();
            let mut frame = frame(&flow, &[], &payload);
            finish_in_software(&mut frame, &flow.offload());
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Udp(datagram)) = &packet.transport else { panic!("no UDP") };
            let udp = datagram.to_header();
            let expected = match packet.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => udp.calc_checksum_ipv4(&ip.header().to_header(), &payload),
                NetSlice::Ipv6(ip) => udp.calc_checksum_ipv6(&ip.header().to_header(), &payload),
                NetSlice::Arp(_) => panic!("ARP"),
            };
            prop_assert_eq!(udp.checksum, expected.unwrap());
        }
    }
}
