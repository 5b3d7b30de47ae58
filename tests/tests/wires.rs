//! A datagram wire to a station of the test's own, which has nothing of pagewire in it: ARP, gateways, VLANs, groups, ping.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use etherparse::ArpOperation;
use hw_sim::wire::check::Protocol;
use pagewire_tests::command::{run, send, start};
use pagewire_tests::content;
use pagewire_tests::peer::{Heard, Peer, Stations, arp, ping};

/// The NIC's address, with its prefix behind.
const NIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);
const IP: &str = "--ip 192.0.2.15/24";
const NIC_MAC: &str = "52:54:00:12:34:56";
const NIC_MAC_BYTES: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

const PEER: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(192, 0, 2, 2), [0x52, 0x54, 0, 0, 0, 2]);
const GATEWAY: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(192, 0, 2, 1), [0x52, 0x54, 0, 0, 0, 1]);
const STATIONS: Stations = &[PEER, GATEWAY];
const NOBODY: Stations = &[];

const BROADCAST: [u8; 6] = [0xff; 6];

/// Whose frames are looked at: what they have in common is the sender, not the driver.
const MODELS: [&str; 3] = ["e1000", "virtio-net", "virtio-net,packed=on"];

fn nic(peer: &Peer, model: &str) -> String {
    format!("{},mac={NIC_MAC}", peer.nic(model))
}

/// Sends a file to `target` with a peer that plays `stations`. All that the peer heard.
fn heard(directory: &Path, file: &Path, stations: Stations, target: &str, options: &str) -> Vec<Heard> {
    heard_from("e1000", directory, file, stations, target, options)
}

/// As [`heard`], from another NIC.
fn heard_from(model: &str, directory: &Path, file: &Path, stations: Stations, target: &str, options: &str) -> Vec<Heard> {
    let peer = Peer::start(directory, stations);
    let figures = run(send(file, &nic(&peer, model), target, &format!("{IP} {options}"))).sent();
    figures.add_up();
    let heard = peer.end();
    assert_eq!(datagrams(&heard).len() as u64, figures.number("frames"));
    heard
}

fn datagrams(heard: &[Heard]) -> Vec<&Heard> {
    heard.iter().filter(|one| one.checked.protocol == Protocol::Udp).collect()
}

fn payload(heard: &[Heard]) -> Vec<u8> {
    datagrams(heard).into_iter().flat_map(Heard::payload).copied().collect()
}

/// Whose addresses were asked for, in order and without repetition.
fn asked_for(heard: &[Heard]) -> Vec<Ipv4Addr> {
    let requests = heard.iter().filter_map(Heard::arp).filter(|arp| arp.operation == ArpOperation::REQUEST);
    let mut asked: Vec<Ipv4Addr> = requests.map(|arp| <[u8; 4]>::try_from(arp.target_protocol_addr()).expect("4 bytes").into()).collect();
    asked.dedup();
    asked
}

#[test]
fn a_station_that_answers_arp_gets_the_file_in_frames_to_its_address() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 3_000_001);
    for model in MODELS {
        let heard = heard_from(model, directory.path(), &path, STATIONS, "udp://192.0.2.2:9000", "");
        assert_eq!(asked_for(&heard), [PEER.0], "{model}");
        content::assert_same(&payload(&heard), &sent);
        for one in datagrams(&heard) {
            let checked = &one.checked;
            assert_eq!((checked.source_mac.0, checked.destination_mac.0), (NIC_MAC_BYTES, PEER.1));
            assert_eq!((checked.source, checked.destination), (Some(NIC.into()), Some(PEER.0.into())));
            assert_eq!((checked.source_port, checked.destination_port, checked.vlan), (49152, 9000, None));
        }
    }
}

#[test]
fn a_target_in_another_network_goes_to_the_gateway() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 20_000);
    let heard = heard(directory.path(), &path, STATIONS, "udp://198.51.100.7:9000", "--gateway 192.0.2.1");
    assert_eq!(asked_for(&heard), [GATEWAY.0], "nobody else is asked for");
    content::assert_same(&payload(&heard), &sent);
    for one in datagrams(&heard) {
        assert_eq!(one.checked.destination_mac.0, GATEWAY.1);
        assert_eq!(one.checked.destination, Some(IpAddr::from([198, 51, 100, 7])));
    }
}

#[test]
fn a_given_station_is_not_asked() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 20_000);
    let heard = heard(directory.path(), &path, NOBODY, "udp://192.0.2.2:9000", "--station 02:00:00:00:00:77");
    assert_eq!(asked_for(&heard), [Ipv4Addr::UNSPECIFIED; 0]);
    content::assert_same(&payload(&heard), &sent);
    assert!(datagrams(&heard).iter().all(|one| one.checked.destination_mac.0 == [2, 0, 0, 0, 0, 0x77]));
}

#[test]
fn groups_and_broadcasts_need_no_arp() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 5000);
    for (target, mac) in [
        ("udp://239.129.2.3:9000", [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]),
        ("udp://255.255.255.255:9000", BROADCAST),
        ("udp://192.0.2.255:9000", BROADCAST),
    ] {
        let heard = heard(directory.path(), &path, NOBODY, target, "");
        assert_eq!(asked_for(&heard), [Ipv4Addr::UNSPECIFIED; 0], "{target}");
        content::assert_same(&payload(&heard), &sent);
        assert!(datagrams(&heard).iter().all(|one| one.checked.destination_mac.0 == mac), "{target}");
    }
}

#[test]
fn frames_of_a_vlan_carry_its_tag_and_arp_goes_on_in_it() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    // The peer answers a tagged request with a tagged reply, and that is the one way to its address.
    let heard = heard(directory.path(), &path, STATIONS, "udp://192.0.2.2:9000", "--vlan 100");
    assert_eq!(asked_for(&heard), [PEER.0]);
    content::assert_same(&payload(&heard), &sent);
    assert!(heard.iter().all(|one| one.checked.vlan == Some(100)), "requests too");
}

#[test]
fn a_tag_that_the_nic_does_not_insert_is_written_into_the_headers_and_told() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    for (target, station) in [("udp://192.0.2.2:9000", ""), ("udp://192.0.2.2:9000", " --framing offset --burst 1")] {
        let peer = Peer::start(directory.path(), STATIONS);
        // The longest frames there are: 1500 bytes behind an Ethernet header with a tag.
        let options = format!("{IP} --vlan 100{station}");
        let figures = run(send(&path, &nic(&peer, "virtio-net"), target, &options)).sent();
        let heard = peer.end();
        assert_eq!(asked_for(&heard), [PEER.0]);
        assert!(heard.iter().all(|one| one.checked.vlan == Some(100)), "requests too");
        assert_eq!(heard.iter().map(|one| one.frame.len()).max(), Some(1518));
        let skipped = if station.is_empty() { 0 } else { 8 };
        let content: Vec<u8> = datagrams(&heard).iter().flat_map(|one| one.payload()[skipped..].to_vec()).collect();
        content::assert_same(&content, &sent);
        assert_eq!(figures.number("tags_written"), figures.number("frames"));
    }
}

#[test]
fn pings_and_arp_requests_are_answered_during_a_send() {
    for model in MODELS {
        answers_during_a_send(model);
    }
}

fn answers_during_a_send(model: &str) {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 4_000_000);
    let peer = Peer::start(directory.path(), STATIONS);
    // 2 s and more, during which all of the following happens.
    let mut running = start(send(&path, &nic(&peer, model), "udp://192.0.2.2:9000", &format!("{IP} --rate 16Mbit")));
    peer.wait_under_way();

    for (sequence, len) in [(1, 0), (2, 56), (3, 1472)] {
        let data = content::bytes(len, 99);
        peer.send(&ping(PEER, (NIC, NIC_MAC_BYTES), 4711, sequence, &data));
        let reply = peer.wait("a reply to the ping", |heard| {
            heard.iter().find(|one| one.echo_reply().is_some_and(|(_, got, _)| got == sequence)).cloned()
        });
        assert_eq!(reply.echo_reply(), Some((4711, sequence, data)));
        assert_eq!((reply.checked.source_mac.0, reply.checked.destination_mac.0), (NIC_MAC_BYTES, PEER.1));
        assert_eq!((reply.checked.source, reply.checked.destination), (Some(NIC.into()), Some(PEER.0.into())));
    }

    peer.send(&arp(ArpOperation::REQUEST, GATEWAY, (NIC, [0; 6]), BROADCAST, None));
    let answer = peer.wait("an answer to the ARP request", |heard| {
        heard.iter().find(|one| one.arp().is_some_and(|arp| arp.operation == ArpOperation::REPLY)).cloned()
    });
    assert_eq!((answer.checked.source_mac.0, answer.checked.destination_mac.0), (NIC_MAC_BYTES, GATEWAY.1));
    let said = answer.arp().expect("found by it");
    assert_eq!((said.sender_hw_addr(), said.sender_protocol_addr()), (&NIC_MAC_BYTES[..], &NIC.octets()[..]));
    assert_eq!((said.target_hw_addr(), said.target_protocol_addr()), (&GATEWAY.1[..], &GATEWAY.0.octets()[..]));

    assert!(!running.has_ended(), "all of that was during the send");
    let figures = running.wait().sent();
    let heard = peer.end();
    content::assert_same(&payload(&heard), &sent);
    assert_eq!(figures.number("frames"), datagrams(&heard).len() as u64, "answers are no frames of the file");
}

#[test]
fn a_vlan_answers_what_is_tagged_and_ignores_what_is_not_its_own() {
    for model in MODELS {
        answers_in_a_vlan(model);
    }
}

fn answers_in_a_vlan(model: &str) {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 2_000_000);
    let peer = Peer::start(directory.path(), STATIONS);
    let mut running = start(send(&path, &nic(&peer, model), "udp://192.0.2.2:9000", &format!("{IP} --vlan 100 --rate 10Mbit")));
    peer.wait_under_way();
    // Asked in another VLAN, then in this one. Answers keep the order, so when the second one's is there, the first one's does not come.
    peer.send(&arp(ArpOperation::REQUEST, (Ipv4Addr::new(192, 0, 2, 7), [2, 0, 0, 0, 0, 7]), (NIC, [0; 6]), BROADCAST, Some(101)));
    peer.send(&arp(ArpOperation::REQUEST, GATEWAY, (NIC, [0; 6]), BROADCAST, Some(100)));
    let answers = peer.wait("an answer in the VLAN", |heard| {
        let replies = heard.iter().filter(|one| one.arp().is_some_and(|arp| arp.operation == ArpOperation::REPLY));
        Some(replies.cloned().collect::<Vec<_>>()).filter(|answers| !answers.is_empty())
    });
    let answered: Vec<_> = answers.iter().map(|one| (one.checked.destination_mac.0, one.checked.vlan)).collect();
    assert_eq!(answered, [(GATEWAY.1, Some(100))], "the other VLAN's station is answered, in this one");
    assert!(!running.has_ended(), "all of that was during the send");
    running.wait().sent();
}

#[test]
fn the_nic_hears_while_it_waits_for_arp_and_may_be_answered_late() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 10_000);
    let peer = Peer::start(directory.path(), NOBODY);
    let running = start(send(&path, &nic(&peer, "e1000"), "udp://192.0.2.2:9000", IP));
    // Nobody answers the first request; the second one's answer is as good.
    let request = peer.wait("a second request", |heard| {
        let mut requests = heard.iter().filter_map(Heard::arp);
        requests.next()?;
        requests.next()
    });
    assert_eq!(request.sender_hw_addr(), NIC_MAC_BYTES);
    peer.send(&arp(ArpOperation::REPLY, PEER, (NIC, NIC_MAC_BYTES), NIC_MAC_BYTES, None));
    running.wait().sent();
    content::assert_same(&payload(&peer.end()), &sent);
}
