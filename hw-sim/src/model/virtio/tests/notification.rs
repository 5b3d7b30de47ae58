use std::time::Duration;

use super::*;

#[test]
fn a_device_that_sleeps_is_notified() {
    for mut bench in [Bench::new(), Bench::packed(), Bench::with(Features::USUAL), Bench::with(Features::USUAL | Features::RING_PACKED)] {
        bench.send(&frame(60));
        assert!(bench.model.step().is_empty(), "it sleeps");
        bench.violates("queue 1: buffers were made available without a notification that the device asked for");
        assert_eq!(bench.go(), [frame(60)]);
    }
}

#[test]
fn receive_buffers_are_notified_too() {
    let mut bench = Bench::new();
    let room = bench.room(2048);
    bench.post(RX, &[(room, 2048, true)]);
    assert_eq!(bench.model.receive(&incoming(60)), Received::Delivered);
    bench.violates("queue 0: buffers were made available without a notification");
}

#[test]
fn one_notification_is_enough_for_all_until_the_device_has_looked() {
    for features in [Features::USUAL, Features::USUAL | Features::RING_PACKED] {
        let mut bench = Bench::with(features);
        bench.send(&frame(60));
        bench.ring(TX);
        bench.send(&frame(61));
        assert_eq!(bench.model.step(), [frame(60), frame(61)]);
        bench.clean();
        bench.ring(TX);
        assert_eq!((bench.model.doorbells(TX), bench.model.superfluous_doorbells(TX)), (2, 1));
    }
}

#[test]
fn a_device_that_polls_asks_for_none() {
    for features in [Features::empty(), Features::EVENT_IDX, Features::RING_PACKED, Features::RING_PACKED | Features::EVENT_IDX] {
        let mut bench = Bench::with((Features::USUAL - Features::EVENT_IDX) | features);
        bench.model.set_notify(Notify::Never);
        for number in 0..40 {
            bench.send(&frame(60 + number));
            assert_eq!(bench.model.step(), [frame(60 + number)]);
        }
        bench.clean();
        match (bench.packed, features.contains(Features::EVENT_IDX)) {
            (false, false) => assert_eq!(bench.read_device(TX, 0), 1),
            (false, true) => assert_eq!((bench.read_device(TX, 0), bench.read_device(TX, 4 + 8 * 16)), (0, 39)),
            (true, _) => assert_eq!(bench.read_device(TX, 2), 1),
        }
        bench.send(&frame(60));
        bench.ring(TX);
        assert_eq!(bench.model.superfluous_doorbells(TX), 1);
    }
}

#[test]
fn the_device_publishes_where_it_wants_to_be_notified() {
    let mut bench = Bench::with(Features::USUAL);
    bench.send(&frame(60));
    bench.go();
    assert_eq!(bench.read_device(TX, 4 + 8 * 16), 1, "avail_event");
    bench.model.set_notify(Notify::After(2));
    for number in 0..3 {
        bench.send(&frame(60));
        assert!(number == 2 || bench.model.step().is_empty());
    }
    bench.clean();
    assert!(bench.model.step().is_empty());
    bench.violates("queue 1: buffers were made available without a notification");
    assert_eq!(bench.go().len(), 3);

    let mut bench = Bench::with(Features::USUAL | Features::RING_PACKED);
    for _ in 0..18 {
        bench.send(&frame(60));
        bench.go();
    }
    assert_eq!((bench.read_device(TX, 0), bench.read_device(TX, 2)), (2, 2), "offset 2, wrap counter 0");
    bench.model.set_notify(Notify::After(1));
    assert_eq!(bench.read_device(TX, 0), 3);
    bench.send(&frame(60));
    assert!(bench.model.step().is_empty());
    bench.clean();
    bench.send(&frame(60));
    bench.model.step();
    bench.violates("without a notification");
}

#[test]
fn interrupts_come_when_the_driver_wants_them() {
    let mut bench = Bench::new();
    let mut interrupt = bench.transport.interrupt(Some(TX)).unwrap();
    bench.write_driver(TX, 0, 1);
    bench.send(&frame(60));
    bench.go();
    assert!(!interrupt.wait(Duration::ZERO).unwrap());
    bench.write_driver(TX, 0, 0);
    bench.send(&frame(60));
    bench.go();
    assert!(interrupt.wait(Duration::ZERO).unwrap() && !interrupt.wait(Duration::ZERO).unwrap());
    assert!(bench.transport.interrupt(Some(9)).is_err());

    let mut bench = Bench::packed();
    bench.write_driver(TX, 2, 1);
    bench.send(&frame(60));
    bench.go();
    assert_eq!(bench.model.interrupts(TX), 0);
    bench.write_driver(TX, 2, 0);
    bench.send(&frame(60));
    bench.go();
    assert_eq!(bench.model.interrupts(TX), 1);
    bench.clean();
}

#[test]
fn with_event_indices_they_come_at_the_entry_that_was_asked_for() {
    // Split: used_event. The third entry is asked for.
    let mut bench = Bench::with(Features::USUAL);
    bench.write_driver(TX, 4 + 2 * 16, 2);
    for number in 0..5 {
        bench.send(&frame(60));
        bench.go();
        assert_eq!(bench.model.interrupts(TX), u64::from(number >= 2), "{number}");
    }
    bench.clean();
    // Packed: the first descriptor of the second lap, which has a wrap counter of 0.
    let mut bench = Bench::with(Features::USUAL | Features::RING_PACKED);
    bench.write_driver(TX, 0, 0);
    bench.write_driver(TX, 2, 2);
    for number in 0..20 {
        bench.send(&frame(60));
        bench.go();
        assert_eq!(bench.model.interrupts(TX), u64::from(number >= 16), "{number}");
    }
    bench.clean();
}
