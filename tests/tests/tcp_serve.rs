//! A server of the library on QEMU's user network, and ordinary clients of this host; and the example that does it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use pagewire::device::{self, OpenOptions};
use pagewire::file::source::Available;
use pagewire::net::Interface;
use pagewire::send::{Port, PortConfig, Wait};
use pagewire::tcp::{Event, SharedFile, Stack, StackConfig, StackReport, run};
use pagewire_tests::command::{example, start};
use pagewire_tests::namespace::Namespace;
use pagewire_tests::server::{ask, free_port};
use pagewire_tests::{capture, content};

/// The port of the stack.
const PORT: u16 = 1033;

/// A stack of a thread of its own. Who asks with a range (two numbers of 8 bytes, big-endian) gets these bytes of the file, and the end.
struct Served {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<StackReport>,
}

impl Served {
    fn start(nic: String, own: &str, path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, own, file) = (Arc::clone(&stop), own.to_owned(), SharedFile::open(path).unwrap());
        let thread = std::thread::spawn(move || serve(&nic, &own, &file, &flag));
        Self { stop, thread }
    }

    fn end(self) -> StackReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn serve(nic: &str, own: &str, file: &SharedFile, stop: &AtomicBool) -> StackReport {
    let device = device::open(&nic.parse().unwrap(), OpenOptions::default()).unwrap();
    let interface = Interface::new(device.nic.mac(), own.parse().unwrap(), None, 1500, None).unwrap();
    let mut stack = Stack::new(Port::new(device.nic, interface, PortConfig::default()).unwrap(), StackConfig::default()).unwrap();
    stack.listen(PORT, 300).unwrap();
    let end = run::<()>(&mut stack, Wait::default(), stop, |stack, _| {
        while let Some(event) = stack.next_event() {
            match event {
                Event::Incoming(listener) => while listener.accept(stack).is_some() {},
                Event::Socket(socket) => {
                    let mut request = [0; 16];
                    if let Ok(Available::Bytes(16)) = socket.recv(stack, &mut request) {
                        let number = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().unwrap());
                        socket.sendfile(stack, file, number(0)..number(8)).unwrap();
                        socket.close(stack);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    });
    assert_eq!(end.unwrap(), None);
    stack.report()
}

fn request(range: Range<u64>) -> Vec<u8> {
    [range.start.to_be_bytes(), range.end.to_be_bytes()].concat()
}

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
fn the_kernel_takes_files_over_both_families_from_many_connections_at_once() {
    for (own, addresses, clients) in [("10.9.0.2/24", ["10.9.0.1/24"], 64), ("fd00:9::2/64", ["fd00:9::1/64"], 8)] {
        let network = Namespace::new(&addresses);
        let directory = content::directory();
        let (path, content) = content::file(directory.path(), 200_001);
        let address: SocketAddr = SocketAddr::new(own.split_once('/').unwrap().0.parse().unwrap(), PORT);
        let report = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                network.enter();
                let served = Served::start(format!("sim:e1000,wire=tap:{}", Namespace::TAP), own, &path);
                // Threads that are started here are in the network too.
                std::thread::scope(|scope| {
                    for number in 0..clients {
                        let (content, range) = (&content, number * 10..200_001_u64);
                        scope.spawn(move || {
                            content::assert_same(&ask(address, &request(range.clone())), &content[range.start as usize..]);
                        });
                    }
                });
                served.end()
            });
            inside.join().unwrap()
        });
        assert_eq!((report.accepted, report.dropped), (clients, 0), "{report:?}");
        // The partial last page, for each.
        assert_eq!(report.bytes_copied % (200_001 % 4096), 0);
        assert!(report.bytes_gathered >= clients * 190_000);
    }
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
