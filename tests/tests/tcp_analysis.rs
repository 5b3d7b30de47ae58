//! What tshark makes of a transfer to Linux' TCP over a cable without losses. A program of its own, as `tcp_kernel` is.

mod served;

use std::net::SocketAddr;

use pagewire_tests::namespace::Namespace;
use pagewire_tests::server::ask;
use pagewire_tests::{capture, content};
use served::{PORT, Served, request};

#[test]
fn tshark_finds_no_retransmission_no_wrong_checksum_and_no_window_exceeded() {
    let network = Namespace::new(&["10.9.0.1/24"]);
    network.enter();
    let directory = content::directory();
    let (path, content) = content::file(directory.path(), 3_000_001);
    let (address, pcap) = (SocketAddr::from(([10, 9, 0, 2], PORT)), directory.path().join("served.pcap"));
    let served = Served::start(format!("sim:e1000,wire=tap:{},pcap={}", Namespace::TAP, pcap.display()), "10.9.0.2/24", &path);
    content::assert_same(&ask(address, &request(0..3_000_001)), &content);
    assert_eq!(served.end().retransmitted, 0);

    let own = format!("tcp.srcport == {PORT}");
    let wrong = format!("{own} && (tcp.checksum.status != 1 || ip.checksum.status != 1)");
    assert_eq!(capture::tshark(&pcap, &[], &wrong, &["frame.number"]), [""; 0], "1 is good");
    let repeated = format!("{own} && (tcp.analysis.retransmission || tcp.analysis.out_of_order || tcp.analysis.lost_segment)");
    assert_eq!(capture::tshark(&pcap, &[], &repeated, &["frame.number", "_ws.expert.message"]), [""; 0]);
    // What the kernel allowed last, in order of the frames: where its window ends.
    let fields = ["tcp.srcport", "tcp.seq", "tcp.len", "tcp.ack", "tcp.window_size"];
    let (mut window_end, mut sent) = (0, 0);
    for line in capture::tshark(&pcap, &[], "tcp.flags.syn == 0", &fields) {
        let [port, seq, len, ack, window] = line.split('\t').map(|field| field.parse().expect("a number")).collect::<Vec<u64>>()[..] else {
            panic!("{line}")
        };
        if port == u64::from(PORT) {
            assert!(seq + len <= window_end.max(1), "{line} with a window to {window_end}");
            sent += len;
        } else {
            window_end = window_end.max(ack + window);
        }
    }
    assert_eq!(sent, 3_000_001);
}
