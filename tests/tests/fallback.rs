//! A NIC that lacks something: everything arrives all the same, and the report says what was copied and why.

use pagewire_tests::command::{Figures, SLIRP, run, send};
use pagewire_tests::receiver::Receiver;
use pagewire_tests::{capture, content};

fn arrives_copied(lacking: &str, options: &str) -> Figures {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 500_001);
    let pcap = directory.path().join("pcap");
    let offsets = if options.contains("offset") { "--framing offset" } else { "" };
    let receiver = Receiver::start(directory.path(), &format!("--size {} --idle 10 {offsets}", sent.len()));
    let nic = format!("sim:e1000,{lacking},pcap={}", pcap.display());
    let figures = run(send(&path, &nic, &receiver.target(), &format!("{SLIRP} {options}"))).sent();
    figures.add_up();
    content::assert_same(&receiver.whole().1, &sent);
    // Reading it checks every checksum on the wire.
    assert_eq!(capture::datagrams(&pcap).len() as u64, figures.number("frames"));
    assert_eq!((figures.number("bytes_gathered"), figures.number("bytes_copied")), (0, sent.len() as u64));
    figures
}

#[test]
fn a_nic_without_checksums_has_them_computed() {
    assert_eq!(arrives_copied("checksum=off", "").copied_because(), [("no-checksum-offload".to_owned(), 500_001)]);
}

#[test]
fn a_nic_that_does_not_gather_gets_whole_frames() {
    let figures = arrives_copied("gather=off", "");
    assert_eq!(figures.copied_because(), [("no-gather".to_owned(), 500_001)]);
    assert!(figures.number("descriptors") <= figures.number("frames") + 2, "one descriptor a frame: {}", figures.0);
}

#[test]
fn a_nic_that_can_do_nothing_gets_whole_frames_with_checksums() {
    arrives_copied("gather=off,checksum=off", "");
}

#[test]
fn offsets_and_a_large_mtu_do_not_disturb_the_fallbacks() {
    arrives_copied("gather=off", "--framing offset --mtu 9000");
    arrives_copied("checksum=off", "--framing offset --mtu 9000");
}
