//! Transfers through the real driver on the in-process model, with smoltcp as the peer.

mod acks;
mod bench;
mod change;
mod client;
mod full;
mod reset;
mod trouble;
mod vlan;

use e1000::E1000Config;
use hal::OffloadFlags;

use self::bench::{Bench, PEER, file, serve, shared};
use super::*;
use crate::send::{CopyReason, PortConfig, Stability};
use crate::tcp::{Piece, State};

#[test]
fn a_file_of_any_size_arrives_and_is_gathered_by_the_nic() {
    for len in [0, 1, 1460, 1461, 4097, 300_000, 3_000_000] {
        let (path, content) = file(len);
        let file = shared(&path, Stability::Auto);
        let mut bench = Bench::new();
        let (received, report) = bench.download(&mut serve(|stack, socket| {
            let mark = socket.sendfile(stack, &file, 0..len as u64).unwrap();
            assert_eq!(mark, len as u64);
        }));
        assert!(received == content, "{len} bytes, of which {} arrived", received.len());
        assert_eq!((report.bytes_gathered, report.bytes_copied, report.retransmitted), (len as u64, 0, 0));
        assert_eq!((report.accepted, report.dropped), (1, 0));
        bench.assert_clean();
    }
}

#[test]
fn what_is_longer_than_a_segment_is_cut_by_the_nic() {
    let (path, content) = file(3_000_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..3_000_000).unwrap();
    }));
    assert!(received == content);
    let segments = bench.segments().filter(|segment| !segment.payload.is_empty()).count() as u64;
    assert!(segments >= 3_000_000 / 1460 && report.frames < segments / 4, "{segments} segments of {} frames", report.frames);
}

#[test]
fn a_head_a_file_and_a_tail_are_one_stream() {
    let (path, content) = file(100_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        let pieces = [Piece::Bytes(b"head "), Piece::File(&file, 5..90_005), Piece::Bytes(b" tail "), Piece::File(&file, 0..10)];
        assert_eq!(socket.sendfilev(stack, &pieces).unwrap(), 90_021);
        assert_eq!(socket.send(stack, b".").unwrap(), 90_022);
    }));
    let expected = [b"head ", &content[5..90_005], b" tail ", &content[..10], b"."].concat();
    assert!(received == expected);
    assert_eq!((report.bytes_gathered, report.bytes_copied, report.bytes_program), (90_010, 0, 12));
    bench.assert_clean();
}

#[test]
fn what_the_nic_lacks_is_done_by_the_cpu_and_reported() {
    let (path, content) = file(200_000);
    let file = shared(&path, Stability::Auto);
    for (config, reason) in [
        (E1000Config { offloads: OffloadFlags::all() - OffloadFlags::SEGMENTATION, ..E1000Config::default() }, None),
        (E1000Config { offloads: OffloadFlags::empty(), ..E1000Config::default() }, Some(CopyReason::NoChecksumOffload)),
        (E1000Config { gather: false, ..E1000Config::default() }, Some(CopyReason::NoGather)),
    ] {
        let mut bench = Bench::with(config, PortConfig::default(), StackConfig::default(), "192.0.2.1/24", "192.0.2.2");
        let (received, report) = bench.download(&mut serve(|stack, socket| {
            socket.sendfilev(stack, &[Piece::Bytes(b"head"), Piece::File(&file, 0..200_000)]).unwrap();
        }));
        assert!(received == [b"head", &content[..]].concat());
        assert_eq!(report.bytes_program, 4);
        match reason {
            None => assert_eq!((report.bytes_gathered, report.bytes_copied), (200_000, 0)),
            Some(reason) => assert_eq!((report.bytes_gathered, report.copy_reasons[&reason]), (0, 200_000)),
        }
        bench.assert_clean();
    }
}

fn with_port(config: PortConfig) -> Bench {
    Bench::with(E1000Config::default(), config, StackConfig::default(), "192.0.2.1/24", "192.0.2.2")
}

#[test]
fn a_file_of_several_windows_streams_through_a_small_budget() {
    let (path, content) = file(9 << 20);
    let file = shared(&path, Stability::Auto);
    let mut bench = with_port(PortConfig { window_budget: 1 << 20, ..PortConfig::default() });
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..9 << 20).unwrap();
    }));
    assert!(received == content);
    assert_eq!((report.bytes_gathered, report.bytes_copied), (9 << 20, 0));
    assert_eq!((report.windows.mapped, report.windows.hits), (18, 0), "each window is mapped once");
    bench.assert_clean();
}

#[test]
fn a_file_that_cannot_be_mapped_is_copied() {
    let (path, content) = file(100_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = with_port(PortConfig { window_budget: 0, ..PortConfig::default() });
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..100_000).unwrap();
    }));
    assert!(received == content);
    assert_eq!((report.bytes_gathered, report.copy_reasons[&CopyReason::NoWindow]), (0, 100_000));
}

#[test]
fn many_clients_are_served_at_once_from_the_same_windows() {
    let (path, content) = file(200_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..50).map(|_| bench.open(16_384)).collect();
    let mut program = serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..200_000).unwrap();
    });
    bench.run_until(Duration::from_secs(60), &mut program, |bench| {
        clients.iter().all(|client| bench.received(*client).len() == content.len())
    });
    assert!(clients.iter().all(|client| bench.received(*client) == content));
    let report = bench.stack.report();
    assert_eq!((report.accepted, report.windows.mapped, report.bytes_copied), (50, 1, 0));
    for client in clients {
        bench.peer_socket(client).close();
    }
    // TIME-WAIT is the peer's affair where it closes last, and ours where we closed first: 60 s.
    bench.run_until(Duration::from_secs(70), &mut program, |bench| bench.stack.report().connections == 0);
    bench.assert_clean();
}

#[test]
fn a_request_is_received_and_answered_on_a_connection_that_stays_open() {
    let (path, content) = file(10_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let client = bench.open(65_536);
    let mut program = |stack: &mut Stack, event: Event| match event {
        Event::Incoming(listener) => while listener.accept(stack).is_some() {},
        Event::Socket(socket) => {
            let mut request = [0; 16];
            if let Ok(crate::file::source::Available::Bytes(4)) = socket.recv(stack, &mut request) {
                let offset = u64::from(request[0]) * 1000;
                socket.sendfile(stack, &file, offset..offset + 1000).unwrap();
            }
        }
    };
    for number in [3_u8, 0, 9] {
        bench.run_until(Duration::from_secs(5), &mut program, |bench| bench.peer_socket(client).can_send());
        bench.peer_socket(client).send_slice(&[number, b'g', b'e', b't']).unwrap();
        let before = bench.received(client).len();
        bench.run_until(Duration::from_secs(5), &mut program, |bench| bench.received(client).len() >= before + 1000);
        let offset = usize::from(number) * 1000;
        assert!(bench.received(client)[before..] == content[offset..offset + 1000]);
    }
    assert_eq!(bench.stack.report().received, 12);
}

#[test]
fn a_connection_is_opened_after_the_neighbour_is_found() {
    let (path, content) = file(100_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let server = bench.wait_at(9000);
    let socket = bench.stack.connect("192.0.2.2:9000".parse().unwrap(), bench.now).unwrap();
    socket.sendfile(&mut bench.stack, &file, 0..100_000).unwrap();
    socket.shutdown(&mut bench.stack).unwrap();
    bench.run_until(Duration::from_secs(10), &mut |_, _| (), |bench| socket.delivered(&bench.stack).unwrap());
    assert!(bench.received(server) == content);
    assert_eq!(socket.acknowledged(&bench.stack), Ok(100_000));
    assert_eq!(bench.segments().next().unwrap().destination_mac, PEER);
    bench.peer_socket(server).close();
    bench.run_until(Duration::from_secs(10), &mut |_, _| (), |bench| socket.state(&bench.stack) == Ok(State::TimeWait));
    assert_eq!(bench.stack.report().opened, 1);
    bench.assert_clean();
}

#[test]
fn ipv6_works_as_ipv4_does_though_this_nic_does_not_cut_its_segments() {
    let (path, content) = file(300_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::with(E1000Config::default(), PortConfig::default(), StackConfig::default(), "2001:db8::1/64", "2001:db8::2");
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..300_000).unwrap();
    }));
    assert!(received == content);
    assert_eq!((report.bytes_gathered, report.bytes_copied), (300_000, 0));
    assert!(bench.segments().all(|segment| segment.payload.len() <= 1440));
    bench.assert_clean();
}

#[test]
fn a_connection_that_waits_takes_less_than_four_kibibytes() {
    let mut bench = Bench::new();
    let client = bench.open(65_536);
    let mut sockets = Vec::new();
    bench.run_until(
        Duration::from_secs(5),
        &mut |stack, event| {
            if let Event::Incoming(listener) = event {
                sockets.extend(listener.accept(stack));
            }
        },
        |bench| bench.peer_socket(client).may_send() && bench.stack.report().accepted == 1,
    );
    let link = bench.stack.connections.table.get(sockets[0].name).unwrap();
    // Its places in the tables: two words each in the index and the alarms, an entry in the queues.
    let memory = size_of_val(link) - size_of_val(&link.engine) + link.engine.memory() + 256;
    assert!(memory < 4096, "{memory} bytes");
}
