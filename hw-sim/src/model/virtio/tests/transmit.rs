use super::*;

#[test]
fn a_buffer_leaves_as_a_frame_and_comes_back() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let first = bench.send(&frame(100));
        bench.send(&frame(200));
        bench.ring(TX);
        assert!(!bench.is_used(TX, 0), "nothing happens before time passes");
        assert_eq!(bench.model.step(), [frame(100), frame(200)]);
        assert!(bench.is_used(TX, 0) && bench.is_used(TX, 1) && !bench.is_used(TX, 2));
        assert_eq!(bench.used(TX, 0), (first, 0));
        assert_eq!((bench.model.interrupts(TX), bench.model.doorbells(TX)), (1, 1));
        bench.clean();
    }
}

#[test]
fn header_and_frame_may_lie_in_any_elements() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let bytes = [vec![0; 12], frame(300)].concat();
        let address = bench.place(&bytes);
        let piece = |from: u64, to: u64| (address + from, (to - from) as u32, false);
        let pieces = [piece(0, 5), piece(5, 13), piece(13, 14), piece(14, 312)];
        bench.post(TX, &pieces);
        bench.post_indirect(TX, &pieces);
        assert_eq!(bench.go(), [frame(300), frame(300)]);
        let second = if bench.packed { 4 } else { 1 };
        assert!(bench.is_used(TX, 0) && bench.is_used(TX, second));
        bench.clean();
    }
}

#[test]
fn rings_wrap() {
    for mut bench in [Bench::new(), Bench::packed()] {
        for number in 0..50_u16 {
            let bytes = [vec![0; 12], frame(60 + usize::from(number))].concat();
            let address = bench.place(&bytes);
            bench.post(TX, &[(address, 12, false), (address + 12, bytes.len() as u32 - 12, false), (address, 1, false)]);
            let mut expected = frame(60 + usize::from(number));
            expected.push(0);
            assert_eq!(bench.go(), [expected]);
            let position = if bench.packed { number * 3 % (2 * SIZE) } else { number };
            assert!(bench.is_used(TX, position), "{number}");
        }
        bench.clean();
    }
}

#[test]
fn synchronous_transmits_inside_the_doorbell() {
    let mut bench = Bench::new();
    bench.model.set_synchronous(true);
    bench.send(&frame(100));
    bench.ring(TX);
    assert!(bench.is_used(TX, 0));
    assert_eq!(bench.model.frames(), [frame(100)]);
}

#[test]
fn buffers_may_come_back_in_another_order() {
    for mut bench in [Bench::new(), Bench::packed()] {
        bench.model.set_reversed(true);
        let first = bench.send(&frame(60));
        let second = bench.send(&frame(61));
        assert_eq!(bench.go(), [frame(60), frame(61)]);
        assert_eq!((bench.used(TX, 0).0, bench.used(TX, 1).0), (second, first));
        bench.clean();
    }
}

#[test]
fn in_order_one_entry_stands_for_a_batch() {
    for ring in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::with((Features::USUAL - Features::EVENT_IDX) | Features::IN_ORDER | ring);
        let bytes = [vec![0; 12], frame(60)].concat();
        let address = bench.place(&bytes);
        let elements = [(address, 12, false), (address + 12, 60, false)];
        let ids = [0; 3].map(|_| bench.post(TX, &elements));
        assert_eq!(bench.go().len(), 3);
        assert_eq!(bench.used(TX, 0), (ids[2], 0));
        if bench.packed {
            assert!(bench.is_used(TX, 0) && !bench.is_used(TX, 2) && !bench.is_used(TX, 4));
        } else {
            assert_eq!((bench.used_index(TX), bench.used(TX, 1)), (3, (0, 0)), "nothing was written there");
        }
        let id = bench.post(TX, &elements);
        assert_eq!(bench.go().len(), 1);
        let position = if bench.packed { 6 } else { 3 };
        assert!(bench.is_used(TX, position));
        assert_eq!(bench.used(TX, position), (id, 0));
        bench.clean();
    }
}

#[test]
fn payload_can_come_from_a_file() {
    use std::os::fd::AsFd;
    let mut bench = Bench::packed();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &frame(5000)).unwrap();
    let space = bench.transport.dma();
    let mapping = space.map_file(file.as_fd(), 0..5000).unwrap();
    let header = bench.place(&[vec![0; 12], frame(60)[..14].to_vec()].concat());
    bench.post_indirect(TX, &[(header, 26, false), (mapping.iova() + 4001, 999, false)]);
    let sent = bench.go().remove(0);
    assert_eq!(sent[14..], frame(5000)[4001..]);
    space.unmap(mapping).unwrap();
    bench.clean();
}

#[test]
fn each_pair_has_its_queue() {
    let config = ModelConfig { mac: MAC, features: Features::USUAL, queue_size: SIZE, pairs: 2, ..ModelConfig::default() };
    let mut bench = Bench::of(config);
    let bytes = [vec![0; 12], frame(60)].concat();
    let address = bench.place(&bytes);
    bench.post(3, &[(address, bytes.len() as u32, false)]);
    bench.ring(3);
    assert_eq!(bench.model.step_pairs(), [(1, frame(60))]);
    bench.violates("queue 3 was used before its pair was enabled");
}
