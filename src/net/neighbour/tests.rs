//! Resolution in virtual time.

use etherparse::ArpOperation;
use proptest::prelude::*;

use super::*;
use crate::net::checker::*;

const START: Duration = Duration::from_secs(1000);

fn ms(milliseconds: u64) -> Duration {
    START + Duration::from_millis(milliseconds)
}

fn of(interface: &Interface, target: &str) -> Resolution {
    Resolution::new(interface, target.parse().unwrap(), START).unwrap()
}

fn answer(resolution: &mut Resolution, frame: &[u8]) -> Option<MacAddress> {
    resolution.receive(frame);
    match resolution.poll(START, &mut Vec::new()) {
        Step::Resolved(station) => Some(station),
        _ => None,
    }
}

/// Who is resolved by one frame.
fn answer_v4(frame: &[u8]) -> Option<MacAddress> {
    answer(&mut of(&v4(), "10.0.2.2"), frame)
}

fn answer_v6(frame: &[u8]) -> Option<MacAddress> {
    answer(&mut of(&v6(), "2001:db8::ab:cdef"), frame)
}

#[test]
fn an_arp_request_asks_every_station_for_the_neighbour() {
    let mut out = vec![0xee; 2000];
    assert_eq!(of(&v4(), "10.0.2.2").poll(START, &mut out), Step::Send);
    let packet = check(&out);
    assert_eq!(stations(&packet), [OWN, MacAddress::BROADCAST]);
    let arp = arp_of(&packet);
    assert_eq!((arp.operation, arp.sender_mac, arp.sender_ipv4), (ArpOperation::REQUEST, OWN.0, OWN_V4));
    assert_eq!((arp.target_mac, arp.target_ipv4), ([0; 6], PEER_V4));
}

#[test]
fn a_solicitation_asks_the_neighbour_s_group_and_tells_the_own_address() {
    let mut out = vec![0xee; 2000];
    assert_eq!(of(&v6(), "2001:db8::ab:cdef").poll(START, &mut out), Step::Send);
    let packet = check(&out);
    assert_eq!(stations(&packet), [OWN, PEER_GROUP_MAC]);
    assert_eq!(v6_of(&packet), ([OWN_V6, PEER_GROUP], 255));
    assert_eq!(icmpv6_of(&packet), (SOLICITATION, 0, &[&PEER_V6[..], &link_layer(1, OWN)].concat()[..]));
}

#[test]
fn requests_are_repeated_after_half_a_second_and_then_every_second_for_five() {
    let (mut resolution, mut out) = (of(&v4(), "10.0.2.2"), Vec::new());
    let (mut now, mut sent) = (START, Vec::new());
    loop {
        match resolution.poll(now, &mut out) {
            Step::Send => sent.push((now - START).as_millis()),
            Step::Wait { until } => {
                assert!(until > now);
                assert_eq!(resolution.poll(until - Duration::from_nanos(1), &mut out), Step::Wait { until });
                now = until;
            }
            Step::TimedOut => break,
            Step::Resolved(_) => panic!("nobody answered"),
        }
    }
    assert_eq!(sent, [0, 500, 1500, 2500, 3500, 4500]);
    assert_eq!(now, ms(5000));
    let error = resolution.no_answer().to_string();
    assert!(error.contains("the station 10.0.2.2 did not answer ARP for 5s"), "{error}");
}

#[test]
fn a_late_poll_sends_one_request_and_not_those_that_were_missed() {
    let (mut resolution, mut out) = (of(&v4(), "10.0.2.2"), Vec::new());
    resolution.poll(START, &mut out);
    assert_eq!(resolution.poll(ms(3000), &mut out), Step::Send);
    assert_eq!(resolution.poll(ms(3000), &mut out), Step::Wait { until: ms(4000) });
}

#[test]
fn the_gateway_is_asked_for_a_target_in_another_network() {
    let (mut resolution, mut out) = (of(&v4(), "192.0.2.7"), Vec::new());
    resolution.poll(START, &mut out);
    assert_eq!(arp_of(&check(&out)).target_ipv4, [10, 0, 2, 1]);
    let error = resolution.no_answer().to_string();
    assert!(error.contains("the gateway 10.0.2.1 did not answer ARP"), "{error}");
}

#[test]
fn broadcasts_and_groups_are_resolved_without_a_request() {
    for (target, station) in [("10.0.2.255", MacAddress::BROADCAST), ("239.1.2.3", MacAddress([1, 0, 0x5e, 1, 2, 3]))] {
        assert_eq!(of(&v4(), target).poll(START, &mut Vec::new()), Step::Resolved(station));
    }
}

#[test]
fn a_reply_and_also_a_request_of_the_neighbour_tell_its_station() {
    let unknown = MacAddress([0; 6]);
    for frame in [
        arp(OWN, ArpOperation::REPLY, (PEER, PEER_V4), (OWN, OWN_V4)),
        arp(MacAddress::BROADCAST, ArpOperation::REQUEST, (PEER, PEER_V4), (unknown, OWN_V4)),
        arp(MacAddress::BROADCAST, ArpOperation::REQUEST, (PEER, PEER_V4), (unknown, PEER_V4)),
        arp(MacAddress::BROADCAST, ArpOperation::REPLY, (PEER, PEER_V4), (PEER, PEER_V4)),
    ] {
        assert_eq!(answer_v4(&frame), Some(PEER));
    }
}

#[test]
fn arp_of_others_for_others_or_of_no_single_station_is_ignored() {
    let reply = |station| arp(OWN, ArpOperation::REPLY, (station, PEER_V4), (OWN, OWN_V4));
    let mut group_inside = reply(PEER);
    group_inside[22] |= 1;
    let mut zero_inside = reply(PEER);
    zero_inside[22..28].fill(0);
    for frame in [
        arp(OWN, ArpOperation::REPLY, (PEER, [10, 0, 2, 3]), (OWN, OWN_V4)),
        arp(PEER, ArpOperation::REPLY, (PEER, PEER_V4), (OWN, OWN_V4)),
        arp(OWN, ArpOperation(8), (PEER, PEER_V4), (OWN, OWN_V4)),
        reply(MacAddress::BROADCAST),
        reply(MacAddress([0; 6])),
        reply(OWN),
        group_inside,
        zero_inside,
        reply(PEER)[..41].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(answer_v4(&frame), None);
    }
}

#[test]
fn the_first_answer_counts() {
    let mut resolution = of(&v4(), "10.0.2.2");
    let reply = |station| arp(OWN, ArpOperation::REPLY, (station, PEER_V4), (OWN, OWN_V4));
    assert_eq!(answer(&mut resolution, &reply(PEER)), Some(PEER));
    assert_eq!(answer(&mut resolution, &reply(MacAddress([2, 0, 0, 0, 0, 9]))), Some(PEER));
}

fn advertisement(hop_limit: u8, flags: u8, destination: (MacAddress, [u8; 16]), target: [u8; 16], options: &[u8]) -> Vec<u8> {
    ndisc(ADVERTISEMENT, flags, hop_limit, [PEER, destination.0], [PEER_V6, destination.1], target, options)
}

#[test]
fn advertisements_and_solicitations_of_the_neighbour_tell_its_station() {
    let (target, source) = (link_layer(2, PEER), link_layer(1, PEER));
    for frame in [
        advertisement(255, SOLICITED | OVERRIDE, (OWN, OWN_V6), PEER_V6, &target),
        advertisement(255, OVERRIDE, (ALL_MAC, ALL_V6), PEER_V6, &target),
        ndisc(SOLICITATION, 0, 255, [PEER, OWN_GROUP_MAC], [PEER_V6, OWN_GROUP], OWN_V6, &source),
        // An unknown option in front is skipped (RFC 4861 7.1.2).
        advertisement(255, SOLICITED, (OWN, OWN_V6), PEER_V6, &[&[14, 1, 0, 0, 0, 0, 0, 0], &target[..]].concat()),
    ] {
        assert_eq!(answer_v6(&frame), Some(PEER));
    }
}

#[test]
fn advertisements_that_are_not_valid_are_ignored() {
    let (option, ours) = (link_layer(2, PEER), (OWN, OWN_V6));
    let mut other_group = ALL_V6;
    other_group[15] = 2;
    let mut wrong_checksum = advertisement(255, SOLICITED, ours, PEER_V6, &option);
    wrong_checksum[56] ^= 1;
    for (what, frame) in [
        ("from behind a router", advertisement(254, SOLICITED, ours, PEER_V6, &option)),
        ("about another address", advertisement(255, SOLICITED, ours, OWN_V6, &option)),
        ("without an option", advertisement(255, SOLICITED, ours, PEER_V6, &[])),
        ("with an option of length 0", advertisement(255, SOLICITED, ours, PEER_V6, &[2, 0, 1, 2, 3, 4, 5, 6])),
        ("with a group's Ethernet address", advertisement(255, SOLICITED, ours, PEER_V6, &link_layer(2, ALL_MAC))),
        ("with no Ethernet address", advertisement(255, SOLICITED, ours, PEER_V6, &link_layer(2, MacAddress([0; 6])))),
        ("with the own Ethernet address", advertisement(255, SOLICITED, ours, PEER_V6, &link_layer(2, OWN))),
        ("solicited and to a group", advertisement(255, SOLICITED, (ALL_MAC, ALL_V6), PEER_V6, &option)),
        ("from a group", ndisc(ADVERTISEMENT, 0, 255, [PEER, OWN], [ALL_V6, OWN_V6], PEER_V6, &option)),
        ("from nobody", ndisc(ADVERTISEMENT, 0, 255, [PEER, OWN], [[0; 16], OWN_V6], PEER_V6, &option)),
        ("to another group", advertisement(255, 0, (OWN, other_group), PEER_V6, &option)),
        ("to another station", advertisement(255, SOLICITED, (PEER, OWN_V6), PEER_V6, &option)),
        ("with a wrong checksum", wrong_checksum),
    ] {
        assert_eq!(answer_v6(&frame), None, "{what}");
    }
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        answer_v4(&frame);
        answer_v6(&frame);
    }

    #[test]
    fn no_options_make_it_panic_or_resolve_to_a_group(options in proptest::collection::vec(any::<u8>(), 0..80), flags: u8) {
        let frame = advertisement(255, flags, (OWN, OWN_V6), PEER_V6, &options);
        prop_assert!(answer_v6(&frame).is_none_or(MacAddress::is_valid_unicast));
    }

    #[test]
    fn no_change_of_an_answer_makes_it_panic(at in proptest::collection::vec((0usize..100, any::<u8>()), 0..5), len in 0usize..100) {
        let answers = [
            arp(OWN, ArpOperation::REPLY, (PEER, PEER_V4), (OWN, OWN_V4)),
            advertisement(255, SOLICITED, (OWN, OWN_V6), PEER_V6, &link_layer(2, PEER)),
        ];
        for mut frame in answers {
            for &(at, value) in &at {
                let at = at % frame.len();
                frame[at] = value;
            }
            frame.truncate(len.max(frame.len().saturating_sub(20)));
            answer_v4(&frame);
            answer_v6(&frame);
        }
    }
}
