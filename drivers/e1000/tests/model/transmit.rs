use hal::{Buffer, Burst, Mapping, Nic, NicError, Offload, Pool, PoolConfig};
use hw_sim::model::e1000::Fault;
use pagewire_e1000::E1000Config;

use crate::bench::{BUFFERS, Bench, Window, cut};
use crate::headers::{PEER, content, plain, udp4};

const NONE: Offload = Offload::NONE;

#[test]
fn a_frame_of_one_segment_leaves_as_it_is() {
    let mut bench = Bench::new();
    for len in [60, 61, 64, 1000, 1514, 1518] {
        assert_eq!(bench.send_bytes(&plain(PEER, 1, len), NONE), [plain(PEER, 1, len)]);
    }
    let counters = bench.nic.tx(0).counters();
    assert_eq!((counters.frames, counters.descriptors, counters.doorbells), (6, 6, 6));
    bench.finish();
}

#[test]
fn a_header_and_file_segments_at_odd_offsets_are_gathered() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 20_000);
    let mut burst = Burst::default();
    burst.push(bench.buffer(&plain(PEER, 7, 21)), NONE);
    let pieces = [(4095, 2), (1, 333), (19_999, 1), (8191, 700)];
    pieces.iter().for_each(|(offset, len)| burst.gather(window.segment(*offset, *len)));
    burst.gather_buffer(bench.buffer(b"the end"));
    let mut expected = plain(PEER, 7, 21);
    pieces.iter().for_each(|(offset, len)| expected.extend(&window.content[*offset..offset + len]));
    expected.extend(b"the end");
    assert_eq!(bench.send(burst), [expected]);
    assert_eq!(bench.nic.tx(0).counters().descriptors, 6);
    drop(window);
    bench.finish();
}

#[test]
fn a_segment_of_more_than_4096_bytes_takes_several_descriptors() {
    let mut bench = Bench::with(E1000Config { mtu: 16_110, ..E1000Config::default() });
    let window = Window::new(bench.nic.space(), 40_000);
    let mut posted = 0;
    for (len, descriptors) in [(4096, 1), (4097, 2), (8192, 2), (8193, 3), (16_110, 4)] {
        let mut burst = Burst::default();
        burst.push(bench.buffer(&plain(PEER, 7, 18)), NONE);
        burst.gather(window.segment(3, len));
        assert_eq!(bench.send(burst), [[&plain(PEER, 7, 18), &window.content[3..3 + len]].concat()]);
        posted += 1 + descriptors;
        assert_eq!(bench.nic.tx(0).counters().descriptors, posted, "{len} bytes");
    }
    drop(window);
    bench.finish();
}

#[test]
fn a_frame_may_fill_the_whole_ring() {
    let mut bench = Bench::with(E1000Config { tx_descriptors: 80, ..E1000Config::default() });
    let most = usize::from(bench.nic.capabilities().max_segments);
    assert_eq!(most, 77);
    let window = Window::new(bench.nic.space(), 4096);
    // Once from each place of the ring, wherever it wraps.
    for round in 0..80 {
        let mut burst = Burst::default();
        let (header, offload) = udp4((most - 1) * 11);
        burst.push(bench.buffer(&header), offload);
        (1..most).for_each(|number| burst.gather(window.segment(number * 13, 11)));
        let sent = bench.send(burst);
        assert_eq!(sent.len(), 1);
        let payload: Vec<u8> = (1..most).flat_map(|number| &window.content[number * 13..number * 13 + 11]).copied().collect();
        assert_eq!(&sent[0][42..], payload, "round {round}");
        bench.send_bytes(&plain(PEER, round, 60), NONE);
    }
    let mut burst = Burst::default();
    burst.push(bench.buffer(&plain(PEER, 1, 60)), NONE);
    (0..80).for_each(|number| burst.gather(window.segment(number, 1)));
    assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::FrameTooLong { segments: 81, max_segments: 77, .. })));
    drop(burst);
    drop(window);
    bench.finish();
}

#[test]
fn a_burst_larger_than_the_ring_is_posted_in_parts_and_in_order() {
    let mut bench = Bench::with(E1000Config { tx_descriptors: 80, ..E1000Config::default() });
    let frames: Vec<_> = (0..300).map(|number| (plain(PEER, number, 60 + number as usize), NONE)).collect();
    let mut burst = bench.burst(&frames);
    let mut sent = Vec::new();
    let mut parts = 0;
    while !burst.is_empty() {
        let before = burst.len();
        let posted = bench.nic.tx(0).post(&mut burst).unwrap();
        assert_eq!(burst.len(), before - posted);
        // The ring is full: what is not posted stays, and nothing is rung.
        let doorbells = bench.doorbells();
        assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), 0);
        assert_eq!(bench.doorbells(), doorbells);
        sent.extend(bench.model.step());
        assert_eq!(bench.nic.tx(0).reap().unwrap(), posted);
        parts += 1;
    }
    assert_eq!(sent, frames.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>());
    assert_eq!(bench.doorbells(), parts);
    bench.finish();
}

#[test]
fn the_ring_wraps_around_without_an_end() {
    let mut bench = Bench::with(E1000Config { tx_descriptors: 80, ..E1000Config::default() });
    let mut number = 0;
    for round in 0..400 {
        let frames: Vec<_> = (0..1 + round % 31).map(|at| (plain(PEER, number + at, 64), NONE)).collect();
        number += 1 + round % 31;
        let burst = bench.burst(&frames);
        assert_eq!(bench.send(burst), frames.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), "round {round}");
    }
    assert_eq!(bench.nic.tx(0).progress().completed(), u64::from(number));
    bench.finish();
}

#[test]
fn a_burst_has_one_doorbell() {
    let mut bench = Bench::new();
    let frames: Vec<_> = (0..32).map(|number| (plain(PEER, number, 60), NONE)).collect();
    for doorbells in 1..=10 {
        let mut burst = bench.burst(&frames);
        bench.nic.tx(0).post(&mut burst).unwrap();
        assert_eq!(bench.doorbells(), doorbells);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 0, "nothing is done before time passes");
        bench.model.step();
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 32);
    }
    let mut nothing = Burst::default();
    assert_eq!(bench.nic.tx(0).post(&mut nothing).unwrap(), 0);
    assert_eq!((bench.doorbells(), bench.nic.tx(0).counters().doorbells), (10, 10));
    bench.finish();
}

#[test]
fn only_the_last_descriptor_of_a_burst_reports() {
    for processed in [0, 1, 16, 31] {
        let mut bench = Bench::new();
        let frames: Vec<_> = (0..32).map(|number| (plain(PEER, number, 60), NONE)).collect();
        let mut burst = bench.burst(&frames);
        bench.nic.tx(0).post(&mut burst).unwrap();
        bench.model.set_fault(Fault::TransmitHangAfter(processed));
        assert_eq!(bench.model.step().len() as u64, processed);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
        bench.model.clear_fault();
        assert_eq!(bench.model.step().len() as u64, 32 - processed);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 32);
        bench.finish();
    }
}

#[test]
fn a_short_frame_is_padded_with_zeros_to_60_bytes() {
    let mut bench = Bench::new();
    for len in [14, 18, 47, 48, 59] {
        let mut padded = plain(PEER, 3, len);
        padded.resize(60, 0);
        assert_eq!(bench.send_bytes(&plain(PEER, 3, len), NONE), [padded], "{len} bytes");
    }
    bench.finish();
}

#[test]
fn several_bursts_in_flight_complete_in_order() {
    let mut bench = Bench::new();
    for number in 0..5 {
        let mut burst = bench.burst(&[(plain(PEER, number, 60), NONE), (plain(PEER, 100 + number, 60), NONE)]);
        bench.nic.tx(0).post(&mut burst).unwrap();
    }
    let progress = (bench.nic.tx(0).progress().posted(), bench.nic.tx(0).progress().completed());
    assert_eq!(progress, (10, 0));
    assert_eq!(bench.model.step().len(), 10);
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 10);
    assert_eq!(bench.nic.tx(0).progress().completed(), 10);
    bench.finish();
}

#[test]
fn a_device_that_transmits_inside_the_doorbell_is_reaped_at_once() {
    let mut bench = Bench::new();
    bench.model.set_synchronous(true);
    for number in 0..600 {
        let mut burst = bench.burst(&[(plain(PEER, number, 60), NONE)]);
        bench.nic.tx(0).post(&mut burst).unwrap();
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 1);
    }
    assert_eq!(bench.model.step().len(), 600);
    bench.finish();
}

/// The second of three frames cannot be posted: the first is sent, the others stay in the burst.
fn refuses_the_second(bench: &mut Bench, mut burst: Burst<'_>, expected: fn(&NicError) -> bool) {
    let error = bench.nic.tx(0).post(&mut burst).unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert_eq!(burst.len(), 2);
    let error = bench.nic.tx(0).post(&mut burst).unwrap_err();
    assert!(expected(&error), "again: {error:?}");
    assert_eq!((burst.len(), bench.doorbells()), (2, 1));
    assert_eq!(bench.model.step(), [plain(PEER, 1, 60)]);
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 1);
    burst.clear();
    // A checksum context that was written into the ring and taken back is written again.
    let (header, offload) = udp4(0);
    assert_eq!(bench.send_bytes(&header, offload).len(), 1);
    assert_eq!(bench.send_bytes(&plain(PEER, 4, 60), NONE), [plain(PEER, 4, 60)]);
}

#[test]
fn a_segment_of_another_space_is_refused_and_the_frames_before_it_leave() {
    let mut bench = Bench::new();
    let other = Bench::new();
    let window = Window::new(other.nic.space(), 4096);
    let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
    let (header, offload) = udp4(100);
    burst.push(bench.buffer(&header), offload);
    burst.gather(window.segment(0, 100));
    burst.push(bench.buffer(&plain(PEER, 3, 60)), NONE);
    refuses_the_second(&mut bench, burst, |error| matches!(error, NicError::UnmappedSegment));
    let (header, offload) = udp4(0);
    let sent = bench.send_bytes(&header, offload);
    hw_sim::wire::check(&sent[0]).unwrap();
    drop(window);
    bench.finish();
    other.finish();
}

#[test]
fn a_buffer_of_a_pool_that_is_not_attached_is_refused() {
    let mut bench = Bench::new();
    let mut stranger = Pool::new(PoolConfig { buffers: 4, ..PoolConfig::default() }).unwrap();
    let mut foreign = stranger.take().unwrap();
    foreign.set(&plain(PEER, 2, 60));
    let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
    burst.push(foreign, NONE);
    burst.push(bench.buffer(&plain(PEER, 3, 60)), NONE);
    refuses_the_second(&mut bench, burst, |error| matches!(error, NicError::UnmappedSegment));
    assert_eq!(std::iter::from_fn(|| stranger.take()).collect::<Vec<Buffer>>().len(), 4);
    bench.nic.attach_pool(stranger.attach(&bench.nic.space()).unwrap()).unwrap();
    let mut burst = Burst::default();
    let mut own = stranger.take().unwrap();
    own.set(&plain(PEER, 5, 60));
    burst.push(own, NONE);
    assert_eq!(bench.send(burst), [plain(PEER, 5, 60)]);
    bench.finish();
}

#[test]
fn a_pool_that_takes_the_place_of_another_is_not_taken_for_it() {
    let mut bench = Bench::new();
    // The pool that was attached first is dropped. Whether another gets its place is the allocator's choice.
    bench.pool = Pool::new(PoolConfig { buffers: BUFFERS, ..PoolConfig::default() }).unwrap();
    let mut others = Vec::new();
    for number in 0..20 {
        let mut other = Pool::new(PoolConfig { buffers: 4, ..PoolConfig::default() }).unwrap();
        let mut fresh = || {
            let mut buffer = other.take().unwrap();
            buffer.set(&plain(PEER, number, 60));
            let mut burst = Burst::default();
            burst.push(buffer, NONE);
            burst
        };
        let posted = bench.nic.tx(0).post(&mut fresh());
        assert!(matches!(posted, Err(NicError::UnmappedSegment)), "pool {number}: {posted:?}");
        let burst = fresh();
        bench.nic.attach_pool(other.attach(&bench.nic.space()).unwrap()).unwrap();
        assert_eq!(bench.send(burst), [plain(PEER, number, 60)]);
        others.push(other);
    }
    bench.finish();
}

#[test]
fn buffers_of_several_pools_in_one_burst_return_each_to_its_own() {
    let mut bench = Bench::with(E1000Config { mtu: 9000, ..E1000Config::default() });
    // Headers of one descriptor and of two.
    let mut others = [2048, 8192].map(|buffer_size| Pool::new(PoolConfig { buffers: 40, buffer_size }).unwrap());
    for pool in &others {
        bench.nic.attach_pool(pool.attach(&bench.nic.space()).unwrap()).unwrap();
    }
    let lens = [60, 1400, 2048];
    for round in 0..30 {
        let mut burst = Burst::default();
        let mut expected = Vec::new();
        for number in 0..12 {
            let which = (number + round) % 4;
            let mut header = if which < 2 { others[which].take().unwrap() } else { bench.pool.take().unwrap() };
            let len = if which == 1 { 5000 } else { lens[number % 3] };
            let mut frame = plain(PEER, number as u32, len);
            header.set(&frame);
            burst.push(header, NONE);
            let mut second = others[number % 2].take().unwrap();
            second.set(&content(number as u32, 777));
            frame.extend(content(number as u32, 777));
            burst.gather_buffer(second);
            expected.push(frame);
        }
        assert!(bench.send(burst) == expected, "round {round}");
    }
    for pool in &mut others {
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<Buffer>>().len(), 40);
    }
    bench.finish();
}

#[test]
fn a_frame_beyond_the_mtu_is_refused() {
    let mut bench = Bench::new();
    let frames = [(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 1519), NONE), (plain(PEER, 3, 60), NONE)];
    let burst = bench.burst(&frames);
    refuses_the_second(&mut bench, burst, |error| matches!(error, NicError::FrameTooLong { bytes: 1519, max_bytes: 1518, .. }));
    // A segment size alone does not make it a frame to be segmented.
    let frames = [(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 2000), Offload { mss: 1448, ..NONE }), (plain(PEER, 3, 60), NONE)];
    let mut bench2 = Bench::new();
    let burst = bench2.burst(&frames);
    refuses_the_second(&mut bench2, burst, |error| matches!(error, NicError::FrameTooLong { bytes: 2000, max_bytes: 1518, .. }));
    bench.finish();
    bench2.finish();
}

#[test]
fn a_frame_that_is_too_long_with_what_it_gathers_is_refused() {
    let mut bench = Bench::new();
    // Never read.
    let window = Mapping::new(bench.nic.space().domain(), 1 << 20, 4096);
    let mut burst = hal::Burst::default();
    for (number, len) in [(1, 1000), (2, 1459), (3, 1000)] {
        burst.push(bench.buffer(&plain(PEER, number, 60)), NONE);
        burst.gather(window.segment(0, len).unwrap());
    }
    // The first one was usual when it was posted; so the second one is looked at as such.
    let posted = bench.nic.tx(0).post(&mut burst);
    assert!(matches!(posted, Err(NicError::FrameTooLong { bytes: 1519, max_bytes: 1518, .. })), "{posted:?}");
    assert_eq!(bench.nic.tx(0).counters().frames, 1);
}

#[test]
fn a_frame_of_many_gigabytes_is_refused_although_its_length_has_33_bits() {
    let mut bench = Bench::new();
    // Never read: as much of a space as a file of 2 GiB would fill.
    let window = Mapping::new(bench.nic.space().domain(), 1 << 40, 1 << 32);
    let half = window.segment(0, 1 << 31).unwrap();
    let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 60), NONE)]);
    burst.gather(half);
    burst.gather(half);
    burst.push(bench.buffer(&plain(PEER, 3, 60)), NONE);
    refuses_the_second(&mut bench, burst, |error| matches!(error, NicError::FrameTooLong { .. }));
    bench.finish();
}

#[test]
fn buffers_return_when_they_are_reaped_and_not_before() {
    let mut bench = Bench::new();
    let frames: Vec<_> = (0..100).map(|number| (plain(PEER, number, 60), NONE)).collect();
    let mut burst = bench.burst(&frames);
    bench.nic.tx(0).post(&mut burst).unwrap();
    assert!(burst.is_empty());
    assert_eq!(bench.free_buffers(), BUFFERS as usize - 100);
    bench.model.step();
    assert_eq!(bench.free_buffers(), BUFFERS as usize - 100);
    bench.nic.tx(0).reap().unwrap();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    bench.finish();
}

#[test]
fn buffers_return_when_the_nic_is_stopped_or_dropped() {
    let mut bench = Bench::new();
    let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 60), NONE)]);
    bench.nic.tx(0).post(&mut burst).unwrap();
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.nic.stop().unwrap();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    assert!(bench.model.step().is_empty(), "a stopped device sends nothing");
    bench.finish();

    let mut bench = Bench::new();
    let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
    bench.nic.tx(0).post(&mut burst).unwrap();
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.finish();
}

#[test]
fn a_window_that_is_retired_may_be_unmapped_when_its_frames_are_reaped() {
    let mut bench = Bench::new();
    let mut window = Window::new(bench.nic.space(), 4096);
    let mut burst = Burst::default();
    burst.push(bench.buffer(&plain(PEER, 1, 42)), NONE);
    burst.gather(window.segment(9, 100));
    bench.nic.tx(0).post(&mut burst).unwrap();
    let burst = burst.recycle();
    assert!(burst.is_empty());

    let space = bench.nic.space();
    let fence = space.queues().fence();
    // Frames that are posted later do not hold the window back.
    let mut later = bench.burst(&[(plain(PEER, 2, 60), NONE)]);
    assert!(!fence.passed());
    bench.model.step();
    assert!(!fence.passed(), "completion counts when it is reaped");
    bench.nic.tx(0).post(&mut later).unwrap();
    bench.nic.tx(0).reap().unwrap();
    assert!(fence.passed());
    space.unmap(window.mapping.take().unwrap()).unwrap();
    assert_eq!(bench.model.step(), [plain(PEER, 2, 60)]);
    bench.nic.tx(0).reap().unwrap();
    bench.finish();
}

#[test]
fn a_window_that_is_unmapped_too_early_is_noticed() {
    // The check that the test above relies on.
    let mut bench = Bench::new();
    let mut window = Window::new(bench.nic.space(), 4096);
    let mut burst = Burst::default();
    burst.push(bench.buffer(&plain(PEER, 1, 42)), NONE);
    burst.gather(window.segment(9, 100));
    bench.nic.tx(0).post(&mut burst).unwrap();
    drop(burst);
    bench.nic.space().unmap(window.mapping.take().unwrap()).unwrap();
    assert!(bench.model.violations()[0].contains("unmapped while"));
    bench.finish_broken("unmapped early");
}

#[test]
fn a_fence_passes_when_the_nic_is_reset_or_dropped() {
    for reset in [true, false] {
        let mut bench = Bench::new();
        let space = bench.nic.space();
        let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
        bench.nic.tx(0).post(&mut burst).unwrap();
        let fence = space.queues().fence();
        assert!(!fence.passed());
        if reset {
            bench.nic.reset().unwrap();
            assert!(fence.passed());
        }
        bench.finish();
        assert!(fence.passed());
    }
}

#[test]
fn frames_in_uneven_pieces_are_put_together_again() {
    let mut bench = Bench::with(E1000Config { mtu: 9000, ..E1000Config::default() });
    let frame = [plain(PEER, 9, 18), content(5, 8900)].concat();
    for lengths in [vec![1], vec![14, 1, 2047], vec![2048; 4], vec![7; 200]] {
        let pieces = cut(&frame, &lengths);
        let mut burst = Burst::default();
        let mut parts = pieces.iter().flat_map(|piece| piece.chunks(2048));
        burst.push(bench.buffer(parts.next().unwrap()), NONE);
        for part in parts {
            burst.gather_buffer(bench.buffer(part));
        }
        assert_eq!(bench.send(burst), std::slice::from_ref(&frame));
    }
    bench.finish();
}

#[test]
fn statistics_count_what_left() {
    let mut bench = Bench::new();
    let frames: Vec<_> = (0..10).map(|number| (plain(PEER, number, 100), NONE)).collect();
    for round in 1..=3 {
        let burst = bench.burst(&frames);
        bench.send(burst);
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (10 * round, 10 * round * 104), "read twice, counted once");
    }
    bench.finish();
}
