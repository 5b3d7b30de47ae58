//! A server of the library on QEMU's user network, and ordinary clients of this host; and the example that does it.

mod served;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use pagewire_tests::command::{example, start};
use pagewire_tests::namespace::Namespace;
use pagewire_tests::server::{ask, free_port};
use pagewire_tests::{capture, content};
use served::{PORT, Served, request};

fn forward(port: u16) -> String {
    format!("hostfwd=tcp:127.0.0.1:{port}-:{PORT}")
}

#[test]
fn clients_take_from_one_byte_to_sixty_four_mebibytes() {
    let directory = content::directory();
    let (path, content) = content::file(directory.path(), 64 << 20);
    let port = free_port();
    let served = Served::start(format!("sim:e1000,{}", forward(port)), "10.0.2.15/24", &path);
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let mut total = 0;
    for range in [0..1, 5..1465, 4095..4097, 1_000_000..2_000_001, 0..64 << 20] {
        let received = ask(address, &request(range.clone()));
        content::assert_same(&received, &content[range.start as usize..range.end as usize]);
        total += range.end - range.start;
    }
    let report = served.end();
    assert_eq!((report.accepted, report.bytes_copied), (5, 0));
    assert_eq!((report.acknowledged, report.bytes_gathered), (total, total + report.retransmitted));
}

#[test]
fn a_sparse_file_is_sent_from_beyond_four_gibibytes() {
    let directory = content::directory();
    let path = directory.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((4 << 30) + (8 << 20)).unwrap();
    let marks = content::bytes(1 << 20, 9);
    std::os::unix::fs::FileExt::write_all_at(&file, &marks, (4 << 30) - (1 << 19)).unwrap();
    drop(file);
    let port = free_port();
    let served = Served::start(format!("sim:e1000,{}", forward(port)), "10.0.2.15/24", &path);
    let received = ask((Ipv4Addr::LOCALHOST, port).into(), &request((4 << 30) - (1 << 20)..(4 << 30) + (1 << 20)));
    let zeros = vec![0; 1 << 19];
    content::assert_same(&received, &[&zeros[..], &marks, &zeros].concat());
    assert_eq!(served.end().bytes_copied, 0);
}

#[test]
fn tshark_has_nothing_to_complain_of() {
    let directory = content::directory();
    let (path, content) = content::file(directory.path(), 1_000_001);
    let (port, pcap) = (free_port(), directory.path().join("served.pcap"));
    let served = Served::start(format!("sim:e1000,{},pcap={}", forward(port), pcap.display()), "10.0.2.15/24", &path);
    content::assert_same(&ask((Ipv4Addr::LOCALHOST, port).into(), &request(0..1_000_001)), &content);
    let report = served.end();
    assert_eq!(report.retransmitted, 0);
    let own = format!("tcp.srcport == {PORT}");
    let wrong = "tcp.checksum.status == 0 || ip.checksum.status == 0";
    assert_eq!(capture::tshark(&pcap, &[], wrong, &["frame.number"]), Vec::<String>::new());
    // Behind a payload of whole segments QEMU's model sends one more, which is empty, and so looks like an ACK that is repeated.
    let complaints = format!("{own} && tcp.analysis.flags && !(tcp.analysis.duplicate_ack && tcp.len == 0)");
    assert_eq!(capture::tshark(&pcap, &[], &complaints, &["frame.number", "_ws.expert.message"]), Vec::<String>::new());
    let lens = capture::tshark(&pcap, &[], &format!("{own} && tcp.len > 0"), &["tcp.len"]);
    assert_eq!(lens.iter().map(|len| len.parse::<u64>().unwrap()).sum::<u64>(), 1_000_001);
}

#[test]
fn the_example_sends_to_the_first_client_and_to_a_server() {
    let network = Namespace::new(&[]);
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 100_001);
    let gathered = sent.len() - sent.len() % 4096;
    let said = format!("100001 bytes arrived, of which the NIC gathered {gathered}\n");
    let program = example("sfl");
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            network.enter();
            let mut command = Command::new(&program);
            command.arg(&path);
            let server = start(command);
            content::assert_same(&ask((Ipv4Addr::LOCALHOST, PORT).into(), b""), &sent);
            assert_eq!(server.wait().with_code(0).stdout, said);

            let server = pagewire_tests::server::Server::start();
            let mut command = Command::new(&program);
            command.arg(&path).arg(format!("10.0.2.2:{}", server.port));
            assert_eq!(start(command).wait().with_code(0).stdout, said);
            content::assert_same(&server.received(), &sent);
        });
        inside.join().unwrap();
    });
}
