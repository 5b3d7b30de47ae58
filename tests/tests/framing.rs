//! What a datagram holds, how long it is, how many go with one doorbell, and how they fit the rings.

use etherparse::SlicedPacket;
use pagewire_tests::command::{Figures, SLIRP, run, send};
use pagewire_tests::receiver::Receiver;
use pagewire_tests::{capture, content};

const ETHERNET: usize = 14;
const IPV4_AND_UDP: usize = 28;
const PREFIX: usize = 8;

/// Sends `len` bytes over QEMU's user network to `pagewire receive`, and checks what arrives. The figures, and the capture's directory.
fn sent(len: usize, nic_options: &str, options: &str, receiver_options: &str) -> (Figures, tempfile::TempDir, Vec<u8>) {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), len);
    let receiver = Receiver::start(directory.path(), &format!("--size {len} --idle 10 {receiver_options}"));
    let nic = format!("sim:e1000,pcap={}{nic_options}", directory.path().join("pcap").display());
    let figures = run(send(&path, &nic, &receiver.target(), &format!("{SLIRP} {options}"))).sent();
    figures.add_up();
    content::assert_same(&receiver.whole().1, &sent);
    (figures, directory, sent)
}

#[test]
fn offset_framing_puts_each_datagrams_place_in_front_of_it_and_still_gathers() {
    let (figures, directory, sent) = sent(1_000_000, "", "--framing offset", "--framing offset");
    let mut position = 0;
    for (checked, frame) in capture::datagrams(&directory.path().join("pcap")) {
        let (offset, data) = frame[checked.payload].split_first_chunk::<PREFIX>().expect("an offset");
        assert_eq!(u64::from_be_bytes(*offset), position as u64);
        assert_eq!(data, &sent[position..position + data.len()]);
        position += data.len();
    }
    assert_eq!(position, sent.len());
    assert_eq!(figures.copied_because(), [("partial-last-page".to_owned(), sent.len() as u64 % 4096)]);
    let frames = figures.number("frames");
    assert_eq!(frames, sent.len().div_ceil(1500 - IPV4_AND_UDP - PREFIX) as u64);
    // A header and the file's bytes; besides, what tells the NIC where the checksum goes, and the last page in pieces.
    assert!((2 * frames..=2 * frames + 4).contains(&figures.number("descriptors")), "{}", figures.0);
}

#[test]
fn offset_framing_of_a_part_counts_from_the_start_of_the_file() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_000);
    let receiver = Receiver::start(directory.path(), "--size 50000 --idle 10 --framing offset --offset 12345");
    let options = format!("{SLIRP} --framing offset --offset 12345 --length 50000");
    run(send(&path, "sim:e1000", &receiver.target(), &options)).sent();
    content::assert_same(&receiver.whole().1, &sent[12_345..62_345]);
}

#[test]
fn raw_frames_have_a_header_and_the_files_bytes_and_nothing_else() {
    let (figures, directory, sent) = sent(200_000, "", "", "");
    content::assert_same(&capture::payload(&directory.path().join("pcap")), &sent);
    let frames = figures.number("frames");
    assert!((2 * frames..=2 * frames + 4).contains(&figures.number("descriptors")), "{}", figures.0);
}

fn mtu(mtu: usize) {
    let (figures, directory, _) = sent(300_000, "", &format!("--mtu {mtu}"), "");
    assert_eq!(figures.number("frames"), 300_000_usize.div_ceil(mtu - IPV4_AND_UDP) as u64);
    let frames = capture::frames(&directory.path().join("pcap"));
    assert_eq!(frames.iter().map(Vec::len).max(), Some(mtu + ETHERNET), "the MTU is used to the full, and not exceeded");
    for frame in frames {
        let parsed = SlicedPacket::from_ethernet(&frame).expect("a frame");
        assert!(!parsed.is_ip_payload_fragmented());
    }
}

#[test]
fn an_mtu_of_576_is_kept() {
    mtu(576);
}

#[test]
fn an_mtu_of_9000_is_kept() {
    mtu(9000);
}

#[test]
fn a_paced_send_arrives_whole() {
    sent(2_000_000, "", "--rate 200Mbit", "");
}

#[test]
fn the_smallest_ring_is_enough() {
    let (figures, ..) = sent(1_000_000, ",tx-ring=80,rx-ring=80", "--rate 400Mbit", "");
    assert_eq!(figures.number("bytes_copied"), 1_000_000 % 4096);
}

#[test]
fn the_largest_transmit_ring_is_used_no_differently() {
    let (figures, ..) = sent(1_000_000, ",tx-ring=4096", "--rate 400Mbit", "");
    assert_eq!(figures.number("bytes_copied"), 1_000_000 % 4096);
}

#[test]
fn the_largest_receive_ring_leaves_buffers_to_send_from() {
    let (figures, ..) = sent(1_000_000, ",rx-ring=4096", "--rate 400Mbit", "");
    assert_eq!(figures.number("bytes_copied"), 1_000_000 % 4096);
}

#[test]
fn a_burst_of_one_frame_rings_for_each_and_one_of_all_rings_once() {
    let (figures, ..) = sent(20 * 1472, ",tx-ring=4096", "--burst 1", "");
    assert_eq!((figures.number("frames"), figures.number("doorbells")), (20, 20));
    let (figures, ..) = sent(200 * 1472, ",tx-ring=4096", "--burst 256", "");
    assert_eq!((figures.number("frames"), figures.number("doorbells")), (200, 1));
    let (figures, ..) = sent(70 * 1472, "", "", "");
    assert_eq!((figures.number("frames"), figures.number("doorbells")), (70, 3), "32 frames a doorbell");
}

#[test]
fn the_source_port_and_the_ethernet_address_are_the_ones_that_were_given() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 5000);
    let pcap = directory.path().join("pcap");
    let receiver = Receiver::start(directory.path(), "--size 5000 --idle 10");
    let nic = format!("sim:e1000,mac=52:54:00:ab:cd:ef,pcap={}", pcap.display());
    run(send(&path, &nic, &receiver.target(), &format!("{SLIRP} --source-port 4711"))).sent();
    receiver.whole();
    for (checked, _) in capture::datagrams(&pcap) {
        assert_eq!((checked.source_port, checked.source_mac.0), (4711, [0x52, 0x54, 0, 0xab, 0xcd, 0xef]));
        assert_eq!(checked.source, Some([10, 0, 2, 15].into()));
    }
}
