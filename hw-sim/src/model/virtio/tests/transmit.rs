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
