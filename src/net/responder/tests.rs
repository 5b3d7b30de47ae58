//! What is answered, and what is not.

use etherparse::{ArpOperation, Icmpv4Type, NetSlice, PacketBuilder, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::net::checker::*;

const NOBODY: MacAddress = MacAddress([0; 6]);

fn answer(interface: &Interface, frame: &[u8]) -> Option<(Kind, Vec<u8>)> {
    // What was in the buffer before must not matter.
    let mut out = vec![0xee; 100];
    let kind = respond(interface, frame, &mut out);
    assert!(kind.is_some() || out == [0xee; 100], "touched without an answer");
    kind.map(|kind| (kind, out))
}

fn silent(interface: &Interface, what: &str, frame: &[u8]) {
    assert_eq!(answer(interface, frame), None, "{what}");
}

#[test]
fn an_arp_request_for_the_own_address_is_answered_to_its_sender() {
    for destination in [MacAddress::BROADCAST, OWN] {
        let request = arp(destination, ArpOperation::REQUEST, (PEER, PEER_V4), (NOBODY, OWN_V4));
        let (kind, reply) = answer(&v4(), &request).unwrap();
        assert_eq!(kind, Kind::Arp);
        let packet = check(&reply);
        assert_eq!(stations(&packet), [OWN, PEER]);
        let arp = arp_of(&packet);
        assert_eq!((arp.operation, arp.sender_mac, arp.sender_ipv4), (ArpOperation::REPLY, OWN.0, OWN_V4));
        assert_eq!((arp.target_mac, arp.target_ipv4), (PEER.0, PEER_V4));
    }
}

#[test]
fn a_probe_whether_the_own_address_is_free_is_answered() {
    let probe = arp(MacAddress::BROADCAST, ArpOperation::REQUEST, (PEER, [0; 4]), (NOBODY, OWN_V4));
    let (_, reply) = answer(&v4(), &probe).unwrap();
    assert_eq!((arp_of(&check(&reply)).sender_ipv4, arp_of(&check(&reply)).target_ipv4), (OWN_V4, [0; 4]));
}

#[test]
fn other_arp_is_not_answered() {
    let request = |destination, sender, target| arp(destination, ArpOperation::REQUEST, sender, (NOBODY, target));
    let all = MacAddress::BROADCAST;
    let mut group_inside = request(all, (PEER, PEER_V4), OWN_V4);
    group_inside[22] |= 1;
    let mut own_inside = request(all, (PEER, PEER_V4), OWN_V4);
    own_inside[22..28].copy_from_slice(&OWN.0);
    silent(&v4(), "for another address", &request(all, (PEER, PEER_V4), PEER_V4));
    silent(&v4(), "to another station", &request(PEER, (PEER, PEER_V4), OWN_V4));
    silent(&v4(), "to a group", &request(ALL_MAC, (PEER, PEER_V4), OWN_V4));
    silent(&v4(), "from the own station", &request(all, (OWN, PEER_V4), OWN_V4));
    silent(&v4(), "from a group", &request(all, (ALL_MAC, PEER_V4), OWN_V4));
    silent(&v4(), "naming a group as the sender", &group_inside);
    silent(&v4(), "naming the own station as the sender", &own_inside);
    silent(&v4(), "announcing the own address", &request(all, (PEER, OWN_V4), OWN_V4));
    silent(&v4(), "from a multicast address", &request(all, (PEER, [224, 0, 0, 1]), OWN_V4));
    silent(&v4(), "a reply", &arp(OWN, ArpOperation::REPLY, (PEER, PEER_V4), (OWN, OWN_V4)));
    silent(&v4(), "cut off", &request(all, (PEER, PEER_V4), OWN_V4)[..41]);
    silent(&v6(), "to an interface without IPv4", &request(all, (PEER, PEER_V4), OWN_V4));
}

#[test]
fn an_echo_returns_identifier_sequence_number_and_data() {
    for len in [0, 1, 56, 1471, 1472] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let (kind, reply) = answer(&v4(), &ping_v4([PEER, OWN], [PEER_V4, OWN_V4], &data)).unwrap();
        assert_eq!(kind, Kind::Icmpv4Echo);
        let packet = check(&reply);
        assert_eq!(stations(&packet), [OWN, PEER]);
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
        assert_eq!((ip.header().source(), ip.header().destination(), ip.header().ttl()), (OWN_V4, PEER_V4, 64));
        let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("no ICMP") };
        let Icmpv4Type::EchoReply(header) = icmp.icmp_type() else { panic!("no echo reply") };
        assert_eq!((header.id, header.seq, icmp.payload()), (77, 5, &data[..]));
    }
}

#[test]
fn an_ipv6_echo_returns_identifier_sequence_number_and_data() {
    for len in [0, 56, 1452] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let (kind, reply) = answer(&v6(), &ping_v6([PEER, OWN], [PEER_V6, OWN_V6], &data)).unwrap();
        assert_eq!(kind, Kind::Icmpv6Echo);
        let packet = check(&reply);
        assert_eq!(stations(&packet), [OWN, PEER]);
        assert_eq!(v6_of(&packet), ([OWN_V6, PEER_V6], 64));
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMP") };
        assert_eq!((icmp.type_u8(), icmp.bytes5to8(), icmp.payload()), (129, [0, 77, 0, 5], &data[..]));
    }
}

#[test]
fn echoes_that_must_not_be_answered_are_not() {
    let ping = |stations, addresses| ping_v4(stations, addresses, b"data");
    let ours = [PEER_V4, OWN_V4];
    silent(&v4(), "in a broadcast frame", &ping([PEER, MacAddress::BROADCAST], ours));
    silent(&v4(), "for another station", &ping([PEER, PEER], ours));
    silent(&v4(), "from the own station", &ping([OWN, OWN], ours));
    silent(&v4(), "from a group's station", &ping([MacAddress::BROADCAST, OWN], ours));
    silent(&v4(), "to the broadcast", &ping([PEER, OWN], [PEER_V4, [10, 0, 2, 255]]));
    silent(&v4(), "to a group", &ping([PEER, OWN], [PEER_V4, [224, 0, 0, 1]]));
    silent(&v4(), "to another address", &ping([PEER, OWN], [PEER_V4, PEER_V4]));
    for address in [[10, 0, 2, 255], [255; 4], [224, 0, 0, 1], [0; 4], [127, 0, 0, 1], OWN_V4] {
        silent(&v4(), &format!("from {address:?}"), &ping([PEER, OWN], [address, OWN_V4]));
    }
    silent(&v4(), "longer than the MTU", &ping_v4([PEER, OWN], ours, &[0; 1473]));
    let icmp = etherparse::ip_number::ICMP;
    let plain = etherparse::Ipv4Header::new(0, 9, icmp, PEER_V4, OWN_V4).unwrap();
    for (options, answered) in [(vec![], true), (vec![1, 1, 1, 0], false)] {
        let header = etherparse::Ipv4Header { options: options.as_slice().try_into().unwrap(), ..plain.clone() };
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ip(etherparse::IpHeaders::Ipv4(header, Default::default()));
        packet.icmpv4_echo_request(1, 1).write(&mut frame, b"data").unwrap();
        assert_eq!(answer(&v4(), &frame).is_some(), answered, "options {options:?}");
    }

    let six = [PEER_V6, OWN_V6];
    silent(&v6(), "in a multicast frame", &ping_v6([PEER, ALL_MAC], six, b""));
    silent(&v6(), "to a group", &ping_v6([PEER, OWN], [PEER_V6, ALL_V6], b""));
    silent(&v6(), "from a group", &ping_v6([PEER, OWN], [ALL_V6, OWN_V6], b""));
    silent(&v6(), "from nobody", &ping_v6([PEER, OWN], [[0; 16], OWN_V6], b""));
    silent(&v6(), "from itself", &ping_v6([PEER, OWN], [OWN_V6, OWN_V6], b""));
    silent(&v6(), "longer than the MTU", &ping_v6([PEER, OWN], six, &[0; 1453]));
}

#[test]
fn fragments_and_damaged_packets_are_not_answered() {
    let whole = ping_v4([PEER, OWN], [PEER_V4, OWN_V4], b"some data to be echoed, and more");
    for (what, flags) in [("a first fragment", 0x2000u16), ("a later fragment", 0x0004)] {
        let mut frame = whole.clone();
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        crate::net::fill_ipv4_header(&mut frame, 14);
        silent(&v4(), what, &frame);
    }
    let six = ping_v6([PEER, OWN], [PEER_V6, OWN_V6], b"data");
    for bit in 0..8 {
        for at in 14..whole.len() {
            let mut frame = whole.clone();
            frame[at] ^= 1 << bit;
            silent(&v4(), &format!("bit {bit} of byte {at} is wrong"), &frame);
        }
        // The IPv6 header has no checksum of its own.
        for at in 54..six.len() {
            let mut frame = six.clone();
            frame[at] ^= 1 << bit;
            silent(&v6(), &format!("bit {bit} of byte {at} is wrong"), &frame);
        }
    }
    for len in 0..whole.len() {
        silent(&v4(), "cut off", &whole[..len]);
    }
    for len in 0..six.len() {
        silent(&v6(), "cut off", &six[..len]);
    }
}

#[test]
fn tagged_frames_are_left_to_the_nic() {
    let mut frame = ping_v4([PEER, OWN], [PEER_V4, OWN_V4], b"data");
    frame.splice(12..12, [0x81, 0x00, 0, 100]);
    silent(&v4(), "tagged", &frame);
}

fn solicit(stations: [MacAddress; 2], addresses: [[u8; 16]; 2], options: &[u8]) -> Vec<u8> {
    ndisc(SOLICITATION, 0, 255, stations, addresses, OWN_V6, options)
}

#[test]
fn a_solicitation_is_answered_to_its_sender() {
    let option = link_layer(1, PEER);
    for (stations_asked, addresses, options) in [
        ([PEER, OWN_GROUP_MAC], [PEER_V6, OWN_GROUP], &option[..]),
        ([PEER, OWN], [PEER_V6, OWN_V6], &option[..]),
        ([PEER, OWN], [PEER_V6, OWN_V6], &[]),
    ] {
        let (kind, reply) = answer(&v6(), &solicit(stations_asked, addresses, options)).unwrap();
        assert_eq!(kind, Kind::NeighbourSolicitation);
        let packet = check(&reply);
        assert_eq!(stations(&packet), [OWN, PEER]);
        assert_eq!(v6_of(&packet), ([OWN_V6, PEER_V6], 255));
        assert_eq!(icmpv6_of(&packet), (ADVERTISEMENT, SOLICITED | OVERRIDE, &[&OWN_V6[..], &link_layer(2, OWN)].concat()[..]));
    }
}

#[test]
fn who_has_no_address_yet_is_answered_through_all_nodes() {
    let (_, reply) = answer(&v6(), &solicit([PEER, OWN_GROUP_MAC], [[0; 16], OWN_GROUP], &[])).unwrap();
    let packet = check(&reply);
    assert_eq!(stations(&packet), [OWN, ALL_MAC]);
    assert_eq!(v6_of(&packet), ([OWN_V6, ALL_V6], 255));
    assert_eq!(icmpv6_of(&packet), (ADVERTISEMENT, OVERRIDE, &[&OWN_V6[..], &link_layer(2, OWN)].concat()[..]));
}

#[test]
fn solicitations_that_are_not_valid_or_not_for_this_station_are_not_answered() {
    let (option, to_group, group) = (link_layer(1, PEER), [PEER, OWN_GROUP_MAC], [PEER_V6, OWN_GROUP]);
    silent(&v6(), "from behind a router", &ndisc(SOLICITATION, 0, 64, to_group, group, OWN_V6, &option));
    silent(&v6(), "of another address", &ndisc(SOLICITATION, 0, 255, to_group, group, PEER_V6, &option));
    silent(&v6(), "to another group", &solicit([PEER, OWN], [PEER_V6, PEER_GROUP], &option));
    silent(&v6(), "to another station", &solicit([PEER, PEER_GROUP_MAC], group, &option));
    silent(&v6(), "of the address in a group's frame", &solicit([PEER, OWN_GROUP_MAC], [PEER_V6, OWN_V6], &option));
    silent(&v6(), "of nobody with an option", &solicit(to_group, [[0; 16], OWN_GROUP], &option));
    silent(&v6(), "of nobody to the address", &solicit([PEER, OWN], [[0; 16], OWN_V6], &[]));
    silent(&v6(), "from a group", &solicit(to_group, [ALL_V6, OWN_GROUP], &option));
    silent(&v6(), "from the own address", &solicit(to_group, [OWN_V6, OWN_GROUP], &option));
    silent(&v6(), "with a group as its station", &solicit(to_group, group, &link_layer(1, ALL_MAC)));
    silent(&v6(), "with this as its station", &solicit(to_group, group, &link_layer(1, OWN)));
    silent(&v6(), "with an option of length 0", &solicit(to_group, group, &[1, 0, 0, 0, 0, 0, 0, 0]));
    silent(&v6(), "an advertisement", &ndisc(ADVERTISEMENT, 0, 255, [PEER, OWN], [PEER_V6, OWN_V6], OWN_V6, &link_layer(2, PEER)));
    silent(&v4(), "to an interface without IPv6", &solicit(to_group, group, &option));
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        answer(&v4(), &frame);
        answer(&v6(), &frame);
    }

    #[test]
    fn no_change_of_a_request_makes_it_panic_or_answer_wrongly(
        at in proptest::collection::vec((0usize..200, any::<u8>()), 0..5),
        cut in 0usize..30,
        options in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let requests = [
            arp(MacAddress::BROADCAST, ArpOperation::REQUEST, (PEER, PEER_V4), (NOBODY, OWN_V4)),
            ping_v4([PEER, OWN], [PEER_V4, OWN_V4], &options),
            ping_v6([PEER, OWN], [PEER_V6, OWN_V6], &options),
            solicit([PEER, OWN_GROUP_MAC], [PEER_V6, OWN_GROUP], &link_layer(1, PEER)),
            solicit([PEER, OWN_GROUP_MAC], [PEER_V6, OWN_GROUP], &options),
        ];
        for mut frame in requests {
            for &(at, value) in &at {
                let at = at % frame.len();
                frame[at] = value;
            }
            frame.truncate(frame.len() - cut);
            for interface in [v4(), v6()] {
                if let Some((_, reply)) = answer(&interface, &frame) {
                    let [source, destination] = stations(&check(&reply));
                    prop_assert!(source == OWN && (destination == ALL_MAC || destination.is_valid_unicast()));
                    prop_assert!(reply.len() <= 1514);
                }
            }
        }
    }
}
