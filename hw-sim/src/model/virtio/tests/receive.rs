use super::*;

#[test]
fn a_frame_lies_behind_its_header_in_one_buffer() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let rooms = bench.refill(2, 2048);
        assert_eq!(bench.model.receive(&incoming(100)), Received::Delivered);
        assert_eq!(bench.used(RX, 0), (0, 112));
        assert!(bench.is_used(RX, 0) && !bench.is_used(RX, 1));
        assert_eq!(bench.bytes(rooms[0], 112), [vec![0; 10], vec![1, 0], incoming(100)].concat());
        assert_eq!(bench.bytes(rooms[0] + 112, 4), [0xaa; 4]);
        assert_eq!(bench.model.interrupts(RX), 1);
        bench.clean();
    }
}

#[test]
fn with_mergeable_buffers_a_frame_goes_over_as_many_as_it_needs() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let rooms = bench.refill(4, 64);
        assert_eq!(bench.model.receive(&incoming(150)), Received::Delivered);
        assert_eq!([0, 1, 2].map(|position| bench.used(RX, position).1), [64, 64, 34]);
        assert!(bench.is_used(RX, 2) && !bench.is_used(RX, 3));
        let bytes: Vec<u8> = rooms.iter().flat_map(|room| bench.bytes(*room, 64)).take(162).collect();
        assert_eq!((&bytes[10..12], &bytes[12..]), (&[3, 0][..], &incoming(150)[..]));
        assert_eq!(bench.model.receive(&incoming(60)), Received::Missed, "there is room for 64 bytes");
        bench.clean();
    }
}

use super::packets::*;
use crate::wire::check;

/// What lies in the first buffer.
fn received(bench: &Bench, room: u64) -> (Vec<u8>, Vec<u8>) {
    let len = bench.used(RX, 0).1 as usize;
    let bytes = bench.bytes(room, len);
    (bytes[..12].to_vec(), bytes[12..].to_vec())
}

#[test]
fn a_right_checksum_is_told() {
    for (packet, without, flags) in [
        (inbound(udp4(100)), Features::empty(), 2),
        (inbound(tcp6(100)), Features::empty(), 2),
        (inbound(partial(udp4(100))), Features::empty(), 0),
        (incoming(100), Features::empty(), 0),
        (inbound(udp4(100)), Features::GUEST_CSUM | Features::LARGE_RECEIVE, 0),
    ] {
        let mut bench = Bench::with(Features::USUAL - without);
        let room = bench.refill(1, 2048)[0];
        assert_eq!(bench.model.receive(&packet), Received::Delivered);
        assert_eq!(received(&bench, room), (header(flags, 0, [0, 0, 0, 0, 1]), packet));
        bench.clean();
    }
}

#[test]
fn a_partial_checksum_is_told_or_completed() {
    let whole = inbound(tcp4(100));
    let mut bench = Bench::new();
    let room = bench.refill(1, 2048)[0];
    bench.model.receive_partial(&partial(whole.clone()));
    assert_eq!(received(&bench, room), (header(1, 0, [0, 0, 34, 16, 1]), partial(whole.clone())));
    let mut bench = Bench::with(Features::USUAL - Features::GUEST_CSUM - Features::LARGE_RECEIVE);
    let room = bench.refill(1, 2048)[0];
    bench.model.receive_partial(&partial(whole.clone()));
    assert_eq!(received(&bench, room), (header(0, 0, [0, 0, 0, 0, 1]), whole));
}

#[test]
fn coalesced_segments_come_as_one_packet_or_are_cut() {
    for (packet, gso_type, hdr_len) in [(tcp4(5000), 1, 54), (tcp6(5000), 4, 74), (udp4(5000), 5, 42), (udp6(5000), 5, 62)] {
        let packet = inbound(packet);
        let (start, offset) = places(&packet);
        let mut bench = Bench::new();
        let room = bench.refill(1, 8192)[0];
        assert_eq!(bench.model.receive_coalesced(&packet, 1000), Received::Delivered);
        let expected = header(1, gso_type, [hdr_len, 1000, start as u16, offset as u16, 1]);
        assert_eq!(received(&bench, room), (expected, partial(packet.clone())));
        bench.clean();
        let mut bench = Bench::with(Features::USUAL - Features::LARGE_RECEIVE);
        let rooms = bench.refill(5, 2048);
        assert_eq!(bench.model.receive_coalesced(&packet, 1000), Received::Delivered);
        for (position, room) in rooms.into_iter().enumerate() {
            let len = bench.used(RX, position as u16).1 as usize;
            assert!(check(&bench.bytes(room, len)[12..]).is_ok());
        }
        bench.clean();
    }
}

#[test]
fn without_mergeable_buffers_one_has_to_be_enough() {
    let mut bench = Bench::with(Features::USUAL - Features::MRG_RXBUF - Features::LARGE_RECEIVE);
    bench.refill(2, 1526);
    assert_eq!(bench.model.receive(&incoming(1514)), Received::Delivered);
    assert_eq!(bench.model.receive(&incoming(1515)), Received::Missed);
    bench.clean();
    let mut bench = Bench::with(Features::USUAL - Features::MRG_RXBUF - Features::LARGE_RECEIVE);
    bench.refill(1, 1525);
    bench.model.receive(&incoming(60));
    bench.violates("queue 0: a receive buffer of 1525 bytes; 1526 are the least");
    let mut bench = Bench::with(Features::USUAL - Features::MRG_RXBUF);
    bench.refill(1, 65_561);
    bench.model.receive(&incoming(60));
    bench.violates("queue 0: a receive buffer of 65561 bytes; 65562 are the least");
}

#[test]
fn receive_buffers_are_for_the_device_to_write() {
    let mut bench = Bench::new();
    let room = bench.room(4096);
    bench.post(RX, &[(room, 10, false), (room + 10, 2048, true)]);
    bench.ring(RX);
    bench.model.receive(&incoming(60));
    bench.violates("queue 0: a receive buffer has a device-readable part");
    let mut bench = Bench::new();
    bench.post(RX, &[(room, 11, true)]);
    bench.ring(RX);
    bench.model.receive(&incoming(60));
    bench.violates("queue 0: a receive buffer of 11 bytes; 12 are the least");
}

#[test]
fn without_buffers_a_frame_is_missed() {
    let mut bench = Bench::new();
    assert_eq!(bench.model.receive(&incoming(60)), Received::Missed);
    bench.refill(1, 2048);
    assert_eq!(bench.model.receive_on(0, &incoming(60)), Received::Delivered);
    assert_eq!(bench.model.owned_buffers(RX), 0);
    bench.transport.set_status(hal::virtio::DeviceStatus::empty()).unwrap();
    assert_eq!(bench.model.receive(&incoming(60)), Received::Off);
}
