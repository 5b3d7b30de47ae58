use super::*;

/// A TX element with a whole small packet.
fn packet(bench: &mut Bench) -> Element {
    let bytes = [vec![0; 12], frame(60)].concat();
    (bench.place(&bytes), bytes.len() as u32, false)
}

/// Both ring formats, and what they violate after `act` and a step. The device stops where `stops`.
#[track_caller]
fn both(stops: bool, text: &str, act: impl Fn(&mut Bench)) {
    for mut bench in [Bench::new(), Bench::packed()] {
        act(&mut bench);
        bench.go();
        bench.violates(text);
        assert_eq!(bench.model.status() & 64 != 0, stops, "DEVICE_NEEDS_RESET");
    }
}

#[test]
fn chains_end() {
    let mut bench = Bench::new();
    let (address, len, _) = packet(&mut bench);
    bench.put(TX, 0, address, len, NEXT, 1);
    bench.put(TX, 1, address, len, NEXT, 0);
    bench.offer(TX, 0);
    assert!(bench.go().is_empty());
    bench.violates("queue 1: the chain of descriptor 0 has a loop");
    assert_ne!(bench.model.status() & 64, 0, "DEVICE_NEEDS_RESET");
    assert_eq!(bench.model.config_interrupts(), 1);

    let bench = Bench::packed();
    for slot in 0..SIZE {
        bench.put(TX, slot, address, len, NEXT | 1 << 7, 0);
    }
    assert!(bench.go().is_empty());
    bench.violates("a list of descriptors is longer than what is free of the queue of 16");

    let mut bench = Bench::new();
    let table = bench.place(&[descriptor(false, address, len, NEXT, 1), descriptor(false, address, len, NEXT, 0)].concat());
    bench.post_raw(TX, table, 32, INDIRECT, 0);
    bench.go();
    bench.violates("the chain in an indirect table has a loop");
}

#[test]
fn indirect_tables_are_alone_and_whole() {
    both(true, "INDIRECT and NEXT were set together", |bench| {
        let (address, ..) = packet(bench);
        bench.post_raw(TX, address, 16, INDIRECT | NEXT, 1);
    });
    both(true, "an indirect table has 17 bytes", |bench| {
        let (address, ..) = packet(bench);
        bench.post_raw(TX, address, 17, INDIRECT, 0);
    });
    both(true, "an indirect table has 0 bytes", |bench| {
        let (address, ..) = packet(bench);
        bench.post_raw(TX, address, 0, INDIRECT, 0);
    });
    both(true, "the indirect table of 32 bytes at 0x1000 is not in mapped memory", |bench| {
        bench.post_raw(TX, 0x1000, 32, INDIRECT, 0);
    });
    both(true, "INDIRECT was set inside an indirect table", |bench| {
        let (address, len, _) = packet(bench);
        let table = bench.place(&descriptor(bench.packed, address, len, INDIRECT, 0));
        bench.post_raw(TX, table, 16, INDIRECT, 0);
    });
    let mut bench = Bench::new();
    let (address, len, _) = packet(&mut bench);
    let table = bench.place(&descriptor(false, address, len, NEXT, 5));
    bench.post_raw(TX, table, 16, INDIRECT, 0);
    bench.go();
    bench.violates("an indirect table of 1 descriptors goes on at 5");
    let mut bench = Bench::packed();
    let table = bench.place(&descriptor(true, address, len, NEXT, 0));
    bench.post_raw(TX, table, 16, INDIRECT, 0);
    bench.go();
    bench.violates("flags other than WRITE are set inside an indirect table");
    for ring in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::with((Features::USUAL - Features::INDIRECT_DESC) | ring);
        let element = packet(&mut bench);
        bench.post_indirect(TX, &[element]);
        bench.go();
        bench.violates("INDIRECT was set without VIRTIO_F_INDIRECT_DESC");
    }
}

#[test]
fn in_a_split_ring_a_chain_may_end_in_a_table_in_a_packed_one_not() {
    let mut bench = Bench::new();
    let (address, len, _) = packet(&mut bench);
    let table = bench.place(&descriptor(false, address + 12, len - 12, 0, 0));
    bench.put(TX, 0, address, 12, NEXT, 1);
    bench.put(TX, 1, table, 16, INDIRECT, 0);
    bench.offer(TX, 0);
    assert_eq!(bench.go(), [frame(60)]);
    bench.clean();
    let mut bench = Bench::packed();
    let (address, len, _) = packet(&mut bench);
    let table = bench.place(&descriptor(true, address + 12, len - 12, 0, 0));
    bench.put(TX, 1, table, 16, INDIRECT | 1 << 7, 0);
    bench.put(TX, 0, address, 12, NEXT | 1 << 7, 0);
    bench.go();
    bench.violates("INDIRECT was set in a list of descriptors linked by NEXT");
}

#[test]
fn elements_have_a_length_an_order_and_memory() {
    both(false, "a descriptor has a length of 0", |bench| {
        let whole = packet(bench);
        bench.post(TX, &[whole, (whole.0, 0, false)]);
    });
    both(true, "a device-readable element follows a device-writable one", |bench| {
        let whole = packet(bench);
        bench.post(TX, &[(whole.0, 4, true), whole]);
    });
    both(true, "100 bytes at 0x1234 are not mapped [", |bench| {
        bench.post(TX, &[(0x1234, 100, false)]);
    });
    both(false, "a transmitted buffer has a device-writable part", |bench| {
        let whole = packet(bench);
        let room = bench.room(16);
        bench.post(TX, &[whole, (room, 16, true)]);
    });
    both(false, "reserved flags 0x10 of a descriptor are set", |bench| {
        let (address, len, _) = packet(bench);
        bench.post_raw(TX, address, len, 0x10, 0);
    });
    both(false, "a chain is longer than its queue of 16 descriptors", |bench| {
        let (address, len, _) = packet(bench);
        let pieces: Vec<Element> = (0..len).map(|byte| (address + u64::from(byte), 1, false)).collect();
        bench.post_indirect(TX, &pieces);
    });
}

#[test]
fn an_access_that_nothing_is_mapped_for_stops_the_device_until_a_reset() {
    let mut bench = Bench::new();
    bench.post(TX, &[(0x1234, 100, false)]);
    bench.send(&frame(60));
    assert!(bench.go().is_empty());
    assert_eq!(bench.model.faulted_accesses(), [(0x1234, 100)]);
    assert!(bench.model.step().is_empty());
    assert_eq!(bench.model.receive(&incoming(60)), Received::Off);
}

#[test]
fn memory_that_the_device_writes_is_mapped_for_that() {
    let mut bench = Bench::new();
    let memory = hal::SharedMemory::new("read-only", 4096).unwrap();
    let space = bench.transport.dma();
    let mapping = space.map_memory(&memory, hal::Access::Read).unwrap();
    bench.post(RX, &[(mapping.iova(), 2048, true)]);
    bench.ring(RX);
    bench.violates("are not mapped for writing");
    assert_eq!(bench.model.receive(&incoming(60)), Received::Missed);
    assert_eq!(bench.model.faulted_accesses(), [(mapping.iova(), 72)]);
    drop(bench);
    space.unmap(mapping).unwrap();
}

#[test]
fn the_available_index_stays_inside_the_queue() {
    let bench = Bench::new();
    bench.write_driver(TX, 2, SIZE + 1);
    bench.go();
    bench.violates("the available index went from 0 to 17, beyond what a queue of 16 has room for");
    let mut bench = Bench::new();
    let (address, len, _) = packet(&mut bench);
    bench.put(TX, 0, address, len, 0, 0);
    bench.offer(TX, SIZE);
    bench.go();
    bench.violates("descriptor 16 is beyond the queue of 16");
    let mut bench = Bench::new();
    bench.put(TX, 0, address, len, NEXT, 99);
    bench.offer(TX, 0);
    bench.go();
    bench.violates("descriptor 99 is beyond the queue");
}

#[test]
fn what_the_device_owns_is_not_posted_again() {
    let mut bench = Bench::new();
    let (address, len, _) = packet(&mut bench);
    bench.put(TX, 0, address, len, 0, 0);
    bench.offer(TX, 0);
    bench.offer(TX, 0);
    bench.go();
    bench.violates("descriptor 0 was made available again before it was used");
    let mut bench = Bench::new();
    bench.put(TX, 0, address, len, NEXT, 2);
    bench.put(TX, 1, address, len, NEXT, 2);
    bench.put(TX, 2, address, len, 0, 0);
    bench.offer(TX, 0);
    bench.offer(TX, 1);
    bench.go();
    bench.violates("is in two chains that the device owns");
    let bench = Bench::packed();
    bench.put(TX, 0, address, len, 1 << 7, 5);
    bench.put(TX, 1, address, len, 1 << 7, 5);
    bench.go();
    bench.violates("buffer 5 was made available again before it was used");
}

#[test]
fn descriptors_are_not_changed_while_the_device_owns_them() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let (address, len, _) = packet(&mut bench);
        bench.post(TX, &[(address, len, false)]);
        bench.ring(TX);
        let flags = if bench.packed { 1 << 7 } else { 0 };
        bench.put(TX, 0, address, len - 1, flags, 0);
        bench.model.step();
        bench.violates("queue 1: a descriptor was changed while the device owned it");
    }
}

#[test]
fn marks_of_a_packed_ring_follow_its_wrap_counter() {
    let mut bench = Bench::packed();
    let (address, len, _) = packet(&mut bench);
    bench.put(TX, 0, address, len, 1 << 15, 0);
    assert!(bench.go().is_empty());
    bench.violates("queue 1: descriptor 0 was written, but is not marked available in this lap");
    let bench = Bench::packed();
    bench.put(TX, 0, address, len, 1 << 7 | 1 << 15, 0);
    assert!(bench.go().is_empty());
    bench.violates("queue 1: descriptor 0 was marked used by the driver");
    let bench = Bench::packed();
    bench.put(TX, 0, address, len, NEXT | 1 << 7, 0);
    assert!(bench.go().is_empty());
    bench.violates("descriptor 1 is in a list, but was not made available before the list's head");
}

#[test]
fn the_flags_for_interrupts_are_defined_ones() {
    for (ring, at, value, text) in [
        (Features::USUAL, 0, 1, "the flags of the available ring are not 0 with VIRTIO_F_EVENT_IDX"),
        (Features::USUAL - Features::EVENT_IDX, 0, 2, "the flags of the available ring are neither 0 nor 1"),
        ((Features::USUAL - Features::EVENT_IDX) | Features::RING_PACKED, 2, 2, "asks for a descriptor without VIRTIO_F_EVENT_IDX"),
        (Features::USUAL | Features::RING_PACKED, 2, 3, "event suppression has reserved flags set"),
    ] {
        let mut bench = Bench::with(ring);
        bench.write_driver(TX, at, value);
        bench.send(&frame(60));
        bench.go();
        bench.violates(text);
    }
    let mut bench = Bench::with(Features::USUAL | Features::RING_PACKED);
    bench.write_driver(TX, 0, SIZE | 1 << 15);
    bench.write_driver(TX, 2, 2);
    bench.send(&frame(60));
    bench.go();
    bench.violates("the offset of the driver's event suppression is beyond the ring");
}

#[test]
fn in_order_means_in_the_order_of_the_table() {
    let features = Features::USUAL | Features::IN_ORDER;
    let mut bench = Bench::with(features);
    let (address, len, _) = packet(&mut bench);
    bench.put(TX, 3, address, len, NEXT, 5);
    bench.put(TX, 5, address, 1, 0, 0);
    bench.offer(TX, 3);
    assert_eq!(bench.go().len(), 1);
    bench.violates("with VIRTIO_F_IN_ORDER descriptor 3 was made available before 0");
    bench.violates("with VIRTIO_F_IN_ORDER descriptor 3 goes on at 5");
    let mut bench = Bench::with(features);
    let table = [descriptor(false, address, len, NEXT, 2), [0; 16], descriptor(false, address, 1, 0, 0)].concat();
    let table = bench.place(&table);
    bench.post_raw(TX, table, 48, INDIRECT, 0);
    bench.go();
    bench.violates("with VIRTIO_F_IN_ORDER an indirect table is not in sequence");
}

#[test]
fn memory_stays_mapped_while_the_device_refers_to_it() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let space = bench.transport.dma();
        let other = hal::DmaMemory::new(&space, "other", 4096).unwrap();
        bench.post(TX, &[(other.iova() + 100, 100, false)]);
        drop(other);
        bench.violates("memory was unmapped while a buffer of queue 1 referred to it");
        let Bench { model, memory, transport: _transport, .. } = bench;
        drop(memory);
        assert!(model.violations().iter().any(|text| text.contains("queue 1 was unmapped while it was enabled")));
    }
}

/// Whatever a driver writes, the model neither panics nor runs for ever.
#[test]
fn a_wild_driver_does_no_harm() {
    let mut generator = fastrand::Rng::with_seed(1);
    let mut random = || generator.u32(..);
    for round in 0..200 {
        let ring = if round % 2 == 0 { Features::RING_PACKED } else { Features::empty() };
        let bench = Bench::with(Features::USUAL | ring);
        bench.model.set_synchronous(round % 3 == 0);
        for queue in 0..3 {
            for slot in 0..SIZE {
                let address = bench.memory.iova() + u64::from(random() % 0x2000);
                bench.put(queue, slot, address, random() % 100, random() as u16 & 0x8087, random() as u16 % 20);
            }
            bench.write_driver(queue, 2, random() as u16 % 20);
        }
        for _ in 0..20 {
            bench.ring((random() % 3) as u16);
            bench.model.receive(&incoming(100));
            bench.model.step();
            bench.write_driver(TX, random() as usize % 20 * 2, random() as u16 % 32);
        }
        assert!(!bench.model.violations().is_empty());
    }
}
