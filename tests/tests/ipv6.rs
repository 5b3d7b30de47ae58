//! IPv6, with neighbour discovery.

use std::net::Ipv6Addr;

use hw_sim::wire::check::Protocol;
use pagewire_tests::command::{run, send};
use pagewire_tests::receiver::Receiver;
use pagewire_tests::{capture, content};

#[test]
fn a_file_goes_over_ipv6_to_a_host_that_neighbour_discovery_finds() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 300_001);
    let pcap = directory.path().join("pcap");
    // QEMU's user network shows this host's ::1 as fec0::2.
    let receiver = Receiver::start_at(Ipv6Addr::LOCALHOST.into(), directory.path(), &format!("--size {} --idle 10", sent.len()));
    let port = receiver.port;
    let nic = format!("sim:e1000,pcap={}", pcap.display());
    let figures = run(send(&path, &nic, &format!("udp://[fec0::2]:{port}"), "--ip fec0::15/64")).sent();
    figures.add_up();
    content::assert_same(&receiver.whole().1, &sent);
    assert_eq!(figures.number("bytes_copied"), sent.len() as u64 % 4096, "the NIC sums IPv6 up as well");

    let frames = capture::frames(&pcap);
    let checked: Vec<_> = frames.iter().map(|frame| hw_sim::wire::check(frame).expect("a frame that is right")).collect();
    assert!(
        checked.iter().any(|one| one.protocol == Protocol::Icmpv6 && one.destination_mac.0[..3] == [0x33, 0x33, 0xff]),
        "a solicitation"
    );
    let datagrams = checked.iter().filter(|one| one.protocol == Protocol::Udp).count();
    assert_eq!(datagrams as u64, figures.number("frames"));
    assert!(frames.iter().all(|frame| frame.len() <= 1514));
    let filter = "udp.checksum.status == 1 && ipv6 && !_ws.malformed && !_ws.expert";
    assert_eq!(capture::tshark(&pcap, &[49152, port], filter, &["frame.number"]).len(), datagrams);
}

#[test]
fn an_ipv6_neighbour_that_does_not_answer_is_named() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 10);
    let ended = run(send(&path, "sim:e1000", "udp://[fec0::99]:9000", "--ip fec0::15/64"));
    ended.stopped(1);
    ended.complains_of(&["fec0::99 did not answer neighbour discovery"]);
}
