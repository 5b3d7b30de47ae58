//! A NIC without room: what becomes of frames that wait for it, when ACKs come and connections end meanwhile.

use std::time::Duration;

use etherparse::PacketBuilder;
use hw_sim::wire::check::Protocol;

use super::bench::{Bench, PEER, file, shared};
use super::client::{ADDRESS, OWN, STATION, connected, poll, segment, sent};
use super::*;
use crate::tcp::TcpConfig;

const MSS: usize = 1460;

/// Questions whose answers take so many packet buffers, until the NIC has sent them.
fn occupy(bench: &mut Bench, buffers: u16) {
    for number in 0..buffers {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2(PEER.0, STATION).ipv4(ADDRESS, OWN, 64);
        ip.icmpv4_echo_request(1, number).write(&mut frame, b"ping").unwrap();
        bench.inject(&frame);
    }
}

#[test]
fn what_waited_for_room_goes_out_without_what_was_acknowledged_meanwhile() {
    let content: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let (mut bench, socket, first) = connected(16, TcpConfig { pacing: false, ..TcpConfig::default() }, None);
    let acknowledge = |bench: &mut Bench, segments: usize| bench.inject(&segment(first + (segments * MSS) as u32, None, |_| ()));
    socket.send(&mut bench.stack, &content).unwrap();
    poll(&mut bench);
    assert_eq!(sent(&mut bench).len(), 10);
    // All of it was lost. The first segment goes out again, then two; for these there is no room.
    bench.now += Duration::from_secs(3);
    poll(&mut bench);
    assert_eq!(sent(&mut bench).len(), 1);
    occupy(&mut bench, 14);
    acknowledge(&mut bench, 1);
    poll(&mut bench);
    assert!(bench.stack.blocked && bench.stack.report().retransmitted == MSS as u64);
    acknowledge(&mut bench, 2);
    assert_eq!(sent(&mut bench).len(), 14);
    let mut again = 0;
    for _ in 0..4 {
        poll(&mut bench);
        for (checked, frame) in sent(&mut bench) {
            let (place, payload) = ((checked.tcp.unwrap().sequence - first) as usize, &frame[checked.payload]);
            assert!(payload == &content[place..place + payload.len()], "other bytes than those of {place}");
            assert!(place >= 2 * MSS, "{place} was acknowledged");
            again += usize::from(place == 2 * MSS);
        }
    }
    assert_eq!(again, 1);
    bench.assert_clean();
}

#[test]
fn a_connection_that_ends_while_its_frames_wait_for_room_ends_alone() {
    let (path, _) = file(100_000);
    let file = shared(&path, Stability::Auto);
    let idle_timeout = Some(Duration::from_secs(1));
    let (mut bench, socket, _) = connected(1, TcpConfig { idle_timeout, ..TcpConfig::default() }, None);
    socket.sendfile(&mut bench.stack, &file, 0..100_000).unwrap();
    socket.close(&mut bench.stack);
    occupy(&mut bench, 1);
    poll(&mut bench);
    assert!(bench.stack.blocked);
    assert_eq!(sent(&mut bench)[0].0.protocol, Protocol::Icmp);
    bench.now += Duration::from_secs(2);
    for _ in 0..3 {
        poll(&mut bench);
    }
    let [(reset, _)] = &sent(&mut bench)[..] else { panic!("a reset, and nothing else") };
    assert!(reset.tcp.unwrap().rst);
    assert_eq!(bench.stack.report().connections, 0);
    bench.assert_clean();
}

#[test]
fn what_a_connection_sends_after_a_pause_is_gathered_however_many_frames_it_takes() {
    let (path, content) = file(20 * MSS);
    let file = shared(&path, Stability::Auto);
    for frames in 1..=10 {
        let nic = E1000Config { offloads: OffloadFlags::all() - OffloadFlags::SEGMENTATION, ..E1000Config::default() };
        let mut bench = Bench::with(nic, PortConfig::default(), StackConfig::default(), "192.0.2.1/24", "192.0.2.2");
        let client = bench.open(65_536);
        let mut sockets = Vec::new();
        let mut program = |stack: &mut Stack, event: Event| {
            if let Event::Incoming(listener) = event {
                sockets.extend(listener.accept(stack));
            }
        };
        let start = bench.now;
        bench.run_until(Duration::from_secs(5), &mut program, |bench| bench.now > start + Duration::from_secs(2));
        let len = frames * 1440;
        sockets[0].sendfile(&mut bench.stack, &file, 0..len as u64).unwrap();
        bench.run_until(Duration::from_secs(5), &mut |_, _| (), |bench| bench.received(client).len() == len);
        assert!(bench.received(client) == &content[..len]);
        let report = bench.stack.report();
        assert_eq!((report.bytes_gathered, report.bytes_copied), (len as u64, 0), "{frames} frames");
        bench.assert_clean();
    }
}
