use hal::{Burst, Nic, NicError, Offload, Pool, PoolConfig};
use hw_sim::model::virtio::{Features, ModelConfig};
use virtio_net::VirtioNetConfig;

use crate::bench::{BUFFERS, Bench, Window, each};
use crate::headers::{PEER, plain};

const NONE: Offload = Offload::NONE;

fn frames(first: u32, count: u32) -> Vec<(Vec<u8>, Offload)> {
    (first..first + count).map(|number| (plain(PEER, number, 60 + number as usize % 1400), NONE)).collect()
}

fn bytes(frames: &[(Vec<u8>, Offload)]) -> Vec<Vec<u8>> {
    frames.iter().map(|(bytes, _)| bytes.clone()).collect()
}

#[test]
fn frames_leave_as_they_are_and_in_order_around_many_laps() {
    each(|features| {
        let mut bench = Bench::new(features);
        for round in 0..50 {
            let wanted = frames(round * 40, 1 + round * 3 % 40);
            let burst = bench.burst(&wanted);
            assert!(bench.send(burst) == bytes(&wanted), "round {round}");
            assert_eq!(bench.free_buffers(), BUFFERS as usize);
        }
        bench.finish();
    });
}

#[test]
fn a_burst_has_one_doorbell_and_a_full_ring_takes_what_fits() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { tx_descriptors: 40, ..VirtioNetConfig::default() });
        let before = bench.model.doorbells(1);
        let wanted = frames(0, 50);
        let mut burst = bench.burst(&wanted);
        assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), 32, "a power of two that is not larger");
        assert_eq!(burst.len(), 18);
        assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), 0);
        assert_eq!(bench.model.doorbells(1) - before, 1);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 0, "nothing left yet");
        let mut sent = bench.model.step();
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 32);
        assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), 18);
        sent.extend(bench.model.step());
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 18);
        assert!(sent == bytes(&wanted));
        let counters = bench.nic.tx(0).counters();
        assert_eq!((counters.frames, counters.descriptors, counters.doorbells), (50, 50, 2));
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (50, wanted.iter().map(|(bytes, _)| bytes.len() as u64).sum()));
        bench.finish();
    });
}

#[test]
fn pieces_are_gathered_whatever_their_number() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { mtu: Some(1500), ..VirtioNetConfig::default() });
        let window = Window::new(bench.nic.space(), 20_000);
        let most = usize::from(bench.nic.capabilities().max_segments);
        assert_eq!(most, 128);
        for pieces in [1, 2, 3, 14, 15, 16, 17, 40, most - 1] {
            let mut burst = Burst::default();
            let mut wanted = Vec::new();
            for number in 0..2 {
                let header = plain(PEER, number, 60);
                burst.push(bench.buffer(&header), NONE);
                let mut frame = header;
                for piece in 0..pieces {
                    let (offset, len) = (piece * 137 + number as usize, 1 + piece % 11);
                    burst.gather(window.segment(offset, len));
                    frame.extend(&window.content[offset..offset + len]);
                }
                wanted.push(frame);
            }
            assert!(bench.send(burst) == wanted, "{pieces} pieces");
        }
        let expected = if features.contains(Features::INDIRECT_DESC) {
            // One piece behind the header is a second descriptor; up to 15 lie in a table.
            2 * (2 + 4 + 17 + 18 + 41 + 128)
        } else {
            2 * (2 + 3 + 4 + 15 + 16 + 17 + 18 + 41 + 128)
        };
        assert_eq!(bench.nic.tx(0).counters().descriptors, expected);
        drop(window);
        bench.finish();
    });
}

#[test]
fn a_frame_has_no_more_pieces_than_the_ring_has_places() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { tx_descriptors: 8, ..VirtioNetConfig::default() });
        let good = plain(PEER, 1, 60);
        let gathering = |bench: &mut Bench, pieces: usize| {
            let mut burst = bench.burst(&[(good.clone(), NONE)]);
            (1..pieces).for_each(|_| burst.gather_buffer(bench.buffer(b"x")));
            burst
        };
        let burst = gathering(&mut bench, 8);
        assert_eq!(bench.send(burst), [[&good[..], b"xxxxxxx"].concat()]);
        let mut burst = gathering(&mut bench, 9);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::FrameTooLong { segments: 9, .. })));
        assert_eq!(burst.len(), 1);
        burst.clear();
        bench.finish();
    });
}

#[test]
fn buffers_of_several_pools_are_gathered() {
    each(|features| {
        let mut bench = Bench::new(features);
        let mut second = Pool::new(PoolConfig { buffers: 8, buffer_size: 256 }).unwrap();
        bench.nic.attach_pool(second.attach(&bench.nic.space()).unwrap()).unwrap();
        let mut burst = Burst::default();
        let mut header = second.take().unwrap();
        header.set(&plain(PEER, 1, 60));
        burst.push(header, NONE);
        burst.gather_buffer(bench.buffer(b"first"));
        let mut piece = second.take().unwrap();
        piece.set(b"second");
        burst.gather_buffer(piece);
        assert_eq!(bench.send(burst), [[plain(PEER, 1, 60), b"firstsecond".to_vec()].concat()]);
        assert_eq!(std::iter::from_fn(|| second.take()).collect::<Vec<_>>().len(), 8);
        drop(second);
        bench.finish();
    });
}

#[test]
fn what_comes_back_in_any_order_is_waited_for() {
    for packed in [Features::empty(), Features::RING_PACKED] {
        for missing in [Features::empty(), Features::INDIRECT_DESC] {
            let mut bench =
                Bench::with((Features::USUAL - missing) | packed, VirtioNetConfig { tx_descriptors: 32, ..VirtioNetConfig::default() });
            let window = Window::new(bench.nic.space(), 4096);
            bench.model.set_reversed(true);
            for round in 0..40 {
                let mut burst = Burst::default();
                for number in 0..9 {
                    burst.push(bench.buffer(&plain(PEER, number, 60)), NONE);
                    for piece in 0..number % 3 {
                        burst.gather(window.segment(piece as usize, 5));
                    }
                }
                let count = bench.nic.tx(0).post(&mut burst).unwrap();
                assert_eq!(count, 9, "round {round}");
                assert_eq!(bench.model.step().len(), 9);
                assert_eq!(bench.nic.tx(0).reap().unwrap(), 9);
            }
            drop(window);
            bench.finish();
        }
    }
}

#[test]
fn what_the_device_cannot_send_stays_in_the_burst() {
    each(|features| {
        let mut bench = Bench::new(features);
        let foreign = Window::new(Bench::new(features).nic.space(), 4096);
        let good = plain(PEER, 1, 60);
        let mut burst = bench.burst(&[(good.clone(), NONE), (good.clone(), NONE)]);
        burst.gather(foreign.segment(0, 10));
        burst.push(bench.buffer(&good), NONE);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnmappedSegment)));
        assert_eq!(burst.len(), 2, "the one before it was posted");
        burst.clear();
        let mut burst = bench.burst(&[(good.clone(), NONE), (plain(PEER, 1, 1519), NONE)]);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::FrameTooLong { bytes: 1519, max_bytes: 1518, .. })));
        assert_eq!(burst.len(), 1);
        burst.clear();
        let mut burst = bench.burst(&[(good.clone(), NONE)]);
        (0..128).for_each(|_| burst.gather_buffer(bench.buffer(b"x")));
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::FrameTooLong { segments: 129, .. })));
        burst.clear();
        assert_eq!(bench.model.step(), [good.clone(), good.clone()]);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 2);
        assert_eq!(bench.send_bytes(&good, NONE), [good]);
        drop(foreign);
        bench.finish();
    });
}

#[test]
fn rings_are_as_large_as_the_device_takes() {
    for features in [Features::USUAL, Features::USUAL | Features::RING_PACKED] {
        let device = ModelConfig { features, queue_size: 48, ..ModelConfig::default() };
        let mut bench = Bench::on(device, VirtioNetConfig::default());
        assert_eq!(bench.nic.rx(0).capacity(), 32);
        let wanted = frames(0, 32);
        let burst = bench.burst(&wanted);
        assert!(bench.send(burst) == bytes(&wanted));
        bench.finish();
    }
}
