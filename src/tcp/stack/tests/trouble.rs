//! Losses, closed ports, slow clients, small paths.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use e1000::E1000Config;
use etherparse::PacketBuilder;

use super::bench::{Bench, PEER, PORT, file, serve, shared};
use crate::send::{PortConfig, Stability};
use crate::tcp::{Event, SocketError, StackConfig, State, TcpError};

#[test]
fn what_is_lost_is_gathered_again() {
    let (path, content) = file(3_000_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (mut number, lost) = (0_u64, Rc::new(Cell::new(0_u64)));
    let count = Rc::clone(&lost);
    bench.loses = Box::new(move |segment| {
        number += u64::from(!segment.payload.is_empty());
        let loses = !segment.payload.is_empty() && number % 97 == 13;
        count.set(count.get() + u64::from(loses));
        loses
    });
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..3_000_000).unwrap();
    }));
    assert!(received == content);
    assert!(lost.get() >= 20);
    assert!(report.retransmitted >= lost.get() * 1400, "{} bytes for {} losses", report.retransmitted, lost.get());
    assert_eq!((report.bytes_gathered, report.bytes_copied), (3_000_000 + report.retransmitted, 0));
    bench.assert_clean();
}

#[test]
fn a_port_that_nobody_listens_at_refuses() {
    let mut bench = Bench::new();
    let client = bench.open_to(PORT + 1, 4096);
    bench.run_until(Duration::from_secs(2), &mut |_, _| (), |bench| !bench.peer_socket(client).is_open());
    assert!(bench.segments().any(|segment| segment.tcp.unwrap().rst));
    assert_eq!(bench.stack.report().connections, 0);
}

#[test]
fn a_server_that_refuses_and_a_station_that_is_not_there_are_told_apart() {
    let mut bench = Bench::new();
    let refused = bench.stack.connect("192.0.2.2:9".parse().unwrap(), bench.now).unwrap();
    let nobody = bench.stack.connect("192.0.2.99:9".parse().unwrap(), bench.now).unwrap();
    bench.run_until(Duration::from_secs(10), &mut |_, _| (), |bench| {
        refused.error(&bench.stack).is_some() && nobody.error(&bench.stack).is_some()
    });
    assert_eq!(refused.error(&bench.stack), Some(SocketError::Tcp(TcpError::Refused)));
    let error = nobody.error(&bench.stack).unwrap().to_string();
    assert!(error.contains("192.0.2.99 did not answer ARP"), "{error}");
    refused.close(&mut bench.stack);
    nobody.close(&mut bench.stack);
    bench.step(&mut |_, _| (), true);
    assert_eq!(bench.stack.report().connections, 0);
    assert_eq!(refused.error(&bench.stack), Some(SocketError::Gone));
}

#[test]
fn a_backlog_is_bounded_and_has_room_again_after_an_accept() {
    let mut bench = Bench::new();
    let listener = bench.stack.listen(80, 3).unwrap();
    assert_eq!(bench.stack.listen(80, 3).unwrap_err(), SocketError::PortInUse(80));
    let clients: Vec<_> = (0..5).map(|_| bench.open_to(80, 4096)).collect();
    for _ in 0..50 {
        bench.step(&mut |_, _| (), true);
    }
    let report = bench.stack.report();
    assert_eq!(report.connections, 3);
    assert!(report.dropped >= 2);
    let mut accepted: Vec<_> = std::iter::from_fn(|| listener.accept(&mut bench.stack)).collect();
    assert_eq!(accepted.len(), 3);
    bench.run_until(
        Duration::from_secs(20),
        &mut |stack, event| {
            assert!(!matches!(event, Event::Incoming(other) if other != listener));
            accepted.extend(std::iter::from_fn(|| listener.accept(stack)));
        },
        |bench| clients.iter().all(|client| bench.peer_socket(*client).may_send()) && bench.stack.report().accepted == 5,
    );
    assert_eq!(accepted.len(), 5);
}

#[test]
fn a_client_that_does_not_read_holds_no_window_that_others_need() {
    let (path, content) = file(8 << 20);
    let file = shared(&path, Stability::Auto);
    // Two windows of half a mebibyte.
    let port = PortConfig { window_budget: 1 << 20, ..PortConfig::default() };
    let mut bench = Bench::with(E1000Config::default(), port, StackConfig::default(), "192.0.2.1/24", "192.0.2.2");
    let slow: Vec<_> = (0..2).map(|_| bench.open(4096)).collect();
    let mut offsets = [0, 4 << 20].into_iter();
    let mut program = serve(|stack, socket| {
        let offset = offsets.next().unwrap_or(2 << 20);
        socket.sendfile(stack, &file, offset..8 << 20).unwrap();
    });
    // They take what fits their buffers and no more. After a second their windows are let go.
    for _ in 0..4000 {
        bench.step(&mut program, false);
    }
    assert!(slow.iter().all(|client| bench.peer_socket(*client).recv_queue() == 4096));
    let before = bench.stack.report();
    let client = bench.open(65_536);
    for _ in 0..400_000 {
        if bench.received(client).len() == 6 << 20 {
            break;
        }
        bench.step(&mut program, false);
        let socket = bench.peer_socket(client);
        if socket.can_recv() {
            let mut bytes = Vec::new();
            socket.recv(|available| (available.len(), bytes.extend_from_slice(available))).unwrap();
            bench.take(client, &bytes);
        }
    }
    assert!(bench.received(client) == &content[2 << 20..]);
    let after = bench.stack.report();
    assert_eq!(after.bytes_copied, before.bytes_copied, "the windows were there to be had");
    bench.assert_clean();
}

#[test]
fn a_path_that_carries_less_is_heeded() {
    let (path, content) = file(500_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    // A router on the way drops what is longer than 1300 bytes, and says so once.
    let complaint = Rc::new(RefCell::new(None));
    let heard = Rc::clone(&complaint);
    bench.loses = Box::new(move |segment| {
        let too_long = segment.payload.end > 14 + 1300;
        if too_long {
            heard.borrow_mut().get_or_insert((segment.source_port, segment.destination_port, segment.tcp.unwrap().sequence));
        }
        too_long
    });
    let mut program = serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..500_000).unwrap();
    });
    let client = bench.open(65_536);
    let mut told = false;
    let deadline = bench.now + Duration::from_secs(30);
    while bench.received(client).len() < 500_000 {
        assert!(bench.now < deadline, "{:?}", bench.stack.report());
        bench.step(&mut program, true);
        if let Some((source, destination, sequence)) = complaint.borrow_mut().take()
            && !std::mem::replace(&mut told, true)
        {
            let (mut quoted, mut frame) = (Vec::new(), Vec::new());
            let packet = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(source, destination, sequence, 1000);
            packet.write(&mut quoted, &[0; 1460]).unwrap();
            let packet = PacketBuilder::ethernet2(PEER.0, [0x52, 0x54, 0, 0, 0, 1]).ipv4([192, 0, 2, 9], [192, 0, 2, 1], 64);
            packet.icmpv4_raw(3, 4, [0, 0, 0x05, 0x14]).write(&mut frame, &quoted[..28]).unwrap();
            bench.inject(&frame);
        }
    }
    assert!(bench.received(client) == content && told);
    let long = bench.segments().filter(|segment| segment.payload.end > 14 + 1300).count();
    assert!(long < 60, "{long} segments that are too long for the path");
    bench.assert_clean();
}

#[test]
fn an_abort_resets_and_what_is_queued_is_not_sent() {
    let (path, _) = file(3_000_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let client = bench.open(65_536);
    let mut sockets = Vec::new();
    let mut program = |stack: &mut super::Stack, event: Event| {
        if let Event::Incoming(listener) = event {
            let socket = listener.accept(stack).unwrap();
            socket.sendfile(stack, &file, 0..3_000_000).unwrap();
            sockets.push(socket);
        }
    };
    bench.run_until(Duration::from_secs(5), &mut program, |bench| bench.received(client).len() > 500_000);
    let socket = sockets[0];
    socket.abort(&mut bench.stack).unwrap();
    bench.run_until(Duration::from_secs(5), &mut |_, _| (), |bench| !bench.peer_socket(client).is_open());
    assert!(bench.received(client).len() < 3_000_000);
    assert_eq!(socket.state(&bench.stack), Ok(State::Closed));
    assert_eq!(socket.send(&mut bench.stack, b"more").unwrap_err(), SocketError::Tcp(TcpError::Aborted));
}
