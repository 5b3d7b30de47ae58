//! The checker finds what is wrong, and nothing else. Good frames are made by etherparse's builder or byte by byte.

mod raw_e1000;

use etherparse::PacketBuilder;
use pagewire_hw_sim::wire::check::{CheckError, Protocol, Rules, check};
use raw_e1000::{DEVICE_MAC, GATEWAY_MAC, udp_frame};

const FROM: [u8; 4] = [10, 0, 2, 15];
const TO: [u8; 4] = [10, 0, 2, 2];

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).ipv4(FROM, TO, 64).tcp(1000, 80, 0xdead_beef, 4096).psh().ack(77);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).ipv6([1; 16], [2; 16], 64).tcp(1000, 80, 1, 4096).write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn a_tcp_segment_is_taken_apart() {
    let frame = tcp4(b"hello, this is long enough to need no padding");
    let checked = check(&frame).unwrap();
    assert_eq!((checked.source_mac.0, checked.destination_mac.0), (DEVICE_MAC, GATEWAY_MAC));
    assert_eq!((checked.source.unwrap(), checked.destination.unwrap()), (FROM.into(), TO.into()));
    assert_eq!((checked.protocol, checked.source_port, checked.destination_port, checked.vlan), (Protocol::Tcp, 1000, 80, None));
    let tcp = checked.tcp.unwrap();
    assert_eq!((tcp.sequence, tcp.acknowledgment, tcp.window), (0xdead_beef, 77, 4096));
    assert!(tcp.psh && tcp.ack && !tcp.syn && !tcp.fin && !tcp.rst);
    assert_eq!(&frame[checked.payload], b"hello, this is long enough to need no padding");
}

#[test]
fn every_protocol_with_right_checksums_passes() {
    let mut vlan = Vec::new();
    let id = 7.try_into().unwrap();
    let builder = PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).single_vlan(id).ipv6([1; 16], [2; 16], 64).udp(5, 6);
    builder.write(&mut vlan, &[3; 100]).unwrap();
    let checked = check(&vlan).unwrap();
    assert_eq!((checked.vlan, checked.protocol, checked.destination_port), (Some(7), Protocol::Udp, 6));
    assert_eq!(vlan[checked.payload], [3; 100]);

    let mut ping = Vec::new();
    PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).ipv4(FROM, TO, 64).icmpv4_echo_request(1, 2).write(&mut ping, &[9; 33]).unwrap();
    assert_eq!(check(&ping).unwrap().protocol, Protocol::Icmp);

    let mut ping6 = Vec::new();
    let builder = PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).ipv6([1; 16], [2; 16], 64).icmpv6_echo_request(1, 2);
    builder.write(&mut ping6, &[9; 33]).unwrap();
    assert_eq!(check(&ping6).unwrap().protocol, Protocol::Icmpv6);

    assert_eq!(check(&tcp6(&[1; 51])).unwrap().protocol, Protocol::Tcp);
    assert_eq!(check(&udp_frame(TO.into(), 53, &[4; 999])).unwrap().protocol, Protocol::Udp);

    let mut arp = [&GATEWAY_MAC[..], &DEVICE_MAC, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    assert_eq!(check(&arp).unwrap().protocol, Protocol::Arp);
    arp.resize(60, 0);
    assert_eq!(check(&arp).unwrap().payload, 14..42);

    let other = [&GATEWAY_MAC[..], &DEVICE_MAC, &[0x88, 0xb5], &[1; 300]].concat();
    assert_eq!(check(&other).unwrap().protocol, Protocol::Other(0x88b5));
}

#[test]
fn every_changed_bit_behind_the_link_header_is_found() {
    // Bits whose change makes another valid frame: none in TCP over IPv4 behind the addresses of the link; the version decides the parser.
    for frame in [tcp4(&[0x5a; 37]), tcp6(&[0x5a; 37]), udp_frame(TO.into(), 53, &[0x5a; 37])] {
        let ipv6 = frame[12] == 0x86;
        for bit in 14 * 8..frame.len() * 8 {
            // IPv6 has no checksum over class, flow label and hop limit.
            if ipv6 && ((14 * 8 + 4..18 * 8).contains(&bit) || bit / 8 == 21) {
                continue;
            }
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            // With another next header it is another protocol, not a wrong TCP segment.
            if let Ok(checked) = check(&damaged) {
                assert!(ipv6 && bit / 8 == 20 && checked.protocol != Protocol::Tcp, "bit {bit} of {frame:02x?}");
            }
        }
    }
}

#[test]
fn an_absent_udp_checksum_passes_only_where_it_is_allowed() {
    let mut frame = udp_frame(TO.into(), 53, &[1; 40]);
    frame[40..42].fill(0);
    assert_eq!(check(&frame), Err(CheckError::AbsentChecksum));
    assert!(Rules { absent_udp_checksum: true }.check(&frame).is_ok());
    frame[60] ^= 1;
    assert!(Rules { absent_udp_checksum: true }.check(&frame).is_ok());

    let mut frame = Vec::new();
    PacketBuilder::ethernet2(DEVICE_MAC, GATEWAY_MAC).ipv6([1; 16], [2; 16], 64).udp(5, 6).write(&mut frame, &[3; 100]).unwrap();
    frame[60..62].fill(0);
    assert_eq!(Rules { absent_udp_checksum: true }.check(&frame), Err(CheckError::AbsentChecksum));
}

#[test]
fn padding_passes_up_to_the_minimum_only() {
    let mut frame = tcp4(b"x");
    assert_eq!(frame.len(), 55);
    frame.resize(60, 0);
    assert_eq!(check(&frame).unwrap().payload, 54..55);
    frame.push(0);
    assert_eq!(check(&frame), Err(CheckError::Trailing(6)));
}

#[test]
fn lengths_that_disagree_are_found() {
    let whole = tcp4(&[7; 100]);
    for cut in 0..whole.len() {
        assert!(matches!(check(&whole[..cut]), Err(CheckError::Malformed(_))), "cut to {cut}");
    }
    // UDP that is shorter than its IP packet, with checksums to match.
    let mut frame = udp_frame(TO.into(), 53, &[0; 100]);
    frame[38..40].copy_from_slice(&100u16.to_be_bytes());
    assert_eq!(check(&frame), Err(CheckError::Length { layer: "UDP", said: 100, found: 108 }));
    let mut frame = tcp6(&[0; 100]);
    frame[18..20].fill(0);
    assert!(matches!(check(&frame), Err(CheckError::Length { layer: "IPv6 payload", .. })));
}

#[test]
fn a_fragment_is_told_as_one() {
    let mut frame = tcp4(&[7; 100]);
    frame[20] = 0x20; // MF, and no DF
    let header: Vec<u8> = [&frame[14..24], &[0, 0], &frame[26..34]].concat();
    frame[24..26].copy_from_slice(&(!raw_e1000::sum(&header)).to_be_bytes());
    let checked = check(&frame).unwrap();
    assert_eq!((checked.protocol, checked.payload), (Protocol::Fragment, 34..154));
}
