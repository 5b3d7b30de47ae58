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
