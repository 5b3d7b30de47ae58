use hal::receive::RxFlags;
use hal::{Nic, NicError, Offload, OffloadFlags, Pool, PoolConfig, RxBurst};
use hw_sim::model::Received;
use hw_sim::model::virtio::{Features, ModelConfig};
use hw_sim::wire::check;
use virtio_net::{Rss, VirtioNetConfig};

use crate::bench::{Bench, bytes_of, each, start, whole};
use crate::headers::{PEER, STATION, content, plain, tcp4, tcp6, tso4, tso6, udp4};

/// Ready to be received: a peer's frame to the station, with these headers.
fn turned((mut header, offload): (Vec<u8>, Offload), payload: &[u8]) -> Vec<u8> {
    let (to, from) = header.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    let (mut frame, _) = whole((header, offload), payload.len());
    frame.extend(payload);
    frame
}

#[test]
fn packets_arrive_as_they_are_around_many_laps() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { rx_descriptors: 16, ..VirtioNetConfig::default() });
        for round in 0..60_u32 {
            let wanted: Vec<Vec<u8>> =
                (0..1 + round % 16).map(|number| plain(STATION, number, 60 + (round as usize * 31) % 1400)).collect();
            assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), if round == 0 { 16 } else { 1 + (round as usize - 1) % 16 });
            wanted.iter().for_each(|frame| assert_eq!(bench.model.receive(frame), Received::Delivered));
            assert!(bench.received() == wanted, "round {round}");
        }
        let counters = bench.nic.rx(0).counters();
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((counters.packets, counters.bytes), (statistics.rx_packets, statistics.rx_bytes));
        assert_eq!(counters.doorbells, bench.model.doorbells(0));
        bench.finish();
    });
}

#[test]
fn usual_packets_and_others_come_in_order_and_are_counted_once() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { rx_descriptors: 16, ..VirtioNetConfig::default() });
        let partial = turned(udp4(100), &content(1, 100));
        let mut packets = RxBurst::default();
        let mut bytes = 0;
        // Seven at a time, of which two or three are others: these come to lie at every place in the ring, its end included.
        for round in 0..48_u32 {
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            let is_other = |number: u32| (7 * round + number).is_multiple_of(3);
            let wanted: Vec<Vec<u8>> = (0..7)
                .map(|number| if is_other(number) { partial.clone() } else { plain(STATION, number, 60 + number as usize) })
                .collect();
            for (number, frame) in (0..).zip(&wanted) {
                let outcome = if is_other(number) { bench.model.receive_partial(frame) } else { bench.model.receive(frame) };
                assert_eq!(outcome, Received::Delivered);
                bytes += frame.len() as u64;
            }
            assert_eq!(bench.nic.rx(0).receive(&mut packets, 9).unwrap(), 7);
            assert!(bytes_of(&packets) == wanted, "round {round}");
            let others = packets.packets().map(|packet| !packet.flags.is_empty());
            assert!(others.eq((0..7).map(is_other)));
            let counters = bench.nic.rx(0).counters();
            assert_eq!((counters.packets, counters.bytes, counters.dropped), (u64::from(7 * (round + 1)), bytes, 0));
            // Sent on, they are still in order, and the others have their checksums.
            let mut burst = hal::Burst::default();
            packets.forward(&mut burst);
            assert!(packets.is_empty());
            let sent = bench.send(burst);
            assert_eq!(sent.len(), 7);
            for (number, (frame, wanted)) in (0..).zip(sent.iter().zip(&wanted)) {
                if is_other(number) {
                    assert_eq!(frame[check(frame).unwrap().payload], wanted[42..]);
                } else {
                    assert!(frame == wanted);
                }
            }
        }
        bench.finish();
    });
}

#[test]
fn a_limit_leaves_the_rest_for_later() {
    each(|features| {
        let mut bench = Bench::new(features);
        (0..10).for_each(|number| bench.deliver(&plain(STATION, number, 64)));
        let mut burst = RxBurst::default();
        for limit in [0, 3, 3, 3, 3] {
            bench.nic.rx(0).receive(&mut burst, limit).unwrap();
        }
        assert!(bytes_of(&burst) == (0..10).map(|number| plain(STATION, number, 64)).collect::<Vec<_>>());
        drop(burst);
        bench.finish();
    });
}

#[test]
fn a_packet_over_several_buffers_is_one() {
    each(|features| {
        let device = ModelConfig { features, mtu: 9000, ..ModelConfig::default() };
        let mut bench = Bench::on(device, VirtioNetConfig { rx_descriptors: 64, ..VirtioNetConfig::default() });
        let mut packets = RxBurst::default();
        for len in [2048, 2049, 2060, 2061, 4096, 4108, 4109, 9014, 60] {
            let frame = plain(STATION, len as u32, len);
            bench.deliver(&frame);
            assert_eq!(bench.nic.rx(0).receive(&mut packets, 9).unwrap(), 1);
            let packet = packets.packets().last().unwrap();
            // All but the first buffer have the place of the header for data, too.
            assert_eq!(packet.buffers.len(), 1 + (len - 2048.min(len)).div_ceil(2060), "{len}");
            assert!(bytes_of(&packets).pop() == Some(frame));
        }
        packets.clear();
        bench.finish();
    });
}

#[test]
fn what_was_received_in_pieces_can_be_sent_on() {
    each(|features| {
        let device = ModelConfig { features, mtu: 9000, ..ModelConfig::default() };
        let mut bench = Bench::on(device, VirtioNetConfig::default());
        let frame = plain(STATION, 7, 9000);
        let mut packets = RxBurst::default();
        for _ in 0..300 {
            bench.deliver(&frame);
            bench.nic.rx(0).receive(&mut packets, 1).unwrap();
            let mut burst = hal::Burst::default();
            let mut buffers = packets.drain();
            burst.push(buffers.next().unwrap(), Offload::NONE);
            buffers.for_each(|buffer| burst.gather_buffer(buffer));
            assert!(bench.send(burst) == [frame.clone()]);
        }
        // A buffer of which the data start in the place of a header is a frame's first one.
        bench.deliver(&frame);
        bench.nic.rx(0).receive(&mut packets, 1).unwrap();
        let mut burst = hal::Burst::default();
        let last = packets.drain().last().unwrap();
        let len = last.len();
        burst.push(last, Offload::NONE);
        assert!(bench.send(burst) == [frame[9000 - len..].to_vec()]);
        bench.finish();
    });
}

#[test]
fn without_merging_a_packet_lies_in_one_buffer_which_has_to_be_large_enough() {
    each(|features| {
        let features = features - Features::MRG_RXBUF - Features::MTU;
        let mut bench = Bench::with(features, VirtioNetConfig { mtu: Some(1500), ..VirtioNetConfig::default() });
        bench.deliver(&plain(STATION, 1, 1518));
        assert!(bench.received() == [plain(STATION, 1, 1518)]);
        let mut small = Pool::new(PoolConfig { buffers: 8, buffer_size: 1024 }).unwrap();
        bench.nic.attach_pool(small.attach(&bench.nic.space()).unwrap()).unwrap();
        assert!(matches!(bench.nic.rx(0).refill(&mut small), Err(NicError::Config(_))));
        drop(small);
        bench.finish();
    });
}

#[test]
fn packets_that_surely_fit_into_one_buffer_need_no_merging() {
    let known = VirtioNetConfig { rx_buffer: 2048, ..VirtioNetConfig::default() };
    let lro = VirtioNetConfig { lro: true, ..known.clone() };
    let jumbo = VirtioNetConfig { mtu: Some(9000), ..known.clone() };
    let unsaid = Features::USUAL - Features::MTU;
    for (features, mtu, config, merging) in [
        (Features::USUAL, 1500, known.clone(), false),
        (Features::USUAL, 2030, known.clone(), false),
        (Features::USUAL, 2031, known.clone(), true),
        (Features::USUAL, 9000, VirtioNetConfig { mtu: Some(1500), ..known.clone() }, true),
        (unsaid, 1500, known.clone(), false),
        (unsaid, 1500, jumbo, true),
        (Features::USUAL, 1500, VirtioNetConfig { rx_buffer: 1517, ..known }, true),
        (Features::USUAL, 1500, lro, true),
        (Features::USUAL, 1500, VirtioNetConfig::default(), true),
    ] {
        let what = format!("{features:?}, {mtu}, {config:?}");
        let mut bench = Bench::on(ModelConfig { features, mtu, ..ModelConfig::default() }, config);
        assert_eq!(bench.model.accepted().contains(Features::MRG_RXBUF), merging, "{what}");
        let report = bench.nic.features();
        let row = report.iter().find(|row| row.name == "VIRTIO_NET_F_MRG_RXBUF").unwrap();
        assert_eq!((row.accepted, row.note.contains("fits into one receive buffer")), (merging, !merging), "{what}");
        // What was received is sent on as it came, also with what the device left in front of it.
        let frame = plain(STATION, 3, 1400);
        bench.deliver(&frame);
        let mut packets = RxBurst::default();
        assert_eq!(bench.nic.rx(0).receive(&mut packets, 9).unwrap(), 1);
        let mut burst = hal::Burst::default();
        packets.forward(&mut burst);
        assert!(bench.send(burst) == [frame]);
        bench.finish();
    }
}

#[test]
fn checked_and_partial_checksums_are_told_apart() {
    each(|features| {
        let mut bench = Bench::new(features);
        let mut packets = RxBurst::default();
        let payload = content(1, 100);
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        // Never on a wire: to be sent on, the checksum has to be asked for.
        for (headers, flag, l4) in [(udp4(100), OffloadFlags::UDP_CHECKSUM, 34), (tcp6(100), OffloadFlags::TCP_CHECKSUM, 54)] {
            let frame = turned(headers, &payload);
            assert_eq!(bench.model.receive_partial(&frame), Received::Delivered);
            bench.nic.rx(0).receive(&mut packets, 1).unwrap();
            let packet = packets.packets().last().unwrap();
            assert_eq!(packet.flags, RxFlags::L4_CHECKSUM_GOOD);
            assert_eq!(packet.offload, Offload { flags: flag, ip_start: 14, l4_start: l4, ..Offload::NONE });
            let offload = packet.offload;
            let mut burst = hal::Burst::default();
            packets.drain().for_each(|buffer| burst.push(buffer, offload));
            let sent = bench.send(burst);
            check(&sent[0]).unwrap();
            // From a wire, with a good checksum, and with a bad one.
            let mut good = sent[0].clone();
            for (bad, flags) in [(0, RxFlags::L4_CHECKSUM_GOOD), (1, RxFlags::empty())] {
                *good.last_mut().unwrap() ^= bad;
                bench.deliver(&good);
                bench.nic.rx(0).receive(&mut packets, 1).unwrap();
                let packet = packets.packets().last().unwrap();
                assert_eq!((packet.flags, packet.offload), (flags, Offload::NONE));
                packets.clear();
            }
        }
        bench.finish();
        let mut bench = Bench::with(features, VirtioNetConfig { rx_checksum: false, ..VirtioNetConfig::default() });
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        bench.model.receive_partial(&turned(tcp4(100), &payload));
        bench.nic.rx(0).receive(&mut packets, 1).unwrap();
        let packet = packets.packets().next().unwrap();
        assert_eq!((packet.flags, packet.offload), (RxFlags::empty(), Offload::NONE));
        check(&bytes_of(&packets)[0]).unwrap();
        packets.clear();
        bench.finish();
    });
}

#[test]
fn joined_packets_say_how_they_are_cut_again() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { lro: true, rx_descriptors: 128, ..VirtioNetConfig::default() });
        let payload = content(3, 30_000);
        let mut packets = RxBurst::default();
        for (headers, wanted) in [(tso4(1400), 54), (tso6(1000), 74)] {
            let offload = headers.1;
            let frame = turned(headers, &payload);
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            assert_eq!(bench.model.receive_coalesced(&frame, offload.mss), Received::Delivered);
            assert_eq!(bench.nic.rx(0).receive(&mut packets, 9).unwrap(), 1);
            let packet = packets.packets().next().unwrap();
            assert_eq!(packet.bytes as usize, wanted + payload.len());
            assert_eq!(packet.offload, Offload { ip_start: 14, ..offload });
            let offload = packet.offload;
            // Sent on, it is cut as it was before.
            let mut buffers = packets.drain();
            let mut burst = hal::Burst::default();
            burst.push(buffers.next().unwrap(), offload);
            buffers.for_each(|buffer| burst.gather_buffer(buffer));
            let sent = bench.send(burst);
            assert_eq!(sent.len(), payload.len().div_ceil(offload.mss.into()));
            let carried: Vec<u8> = sent.iter().flat_map(|frame| frame[check(frame).unwrap().payload].to_vec()).collect();
            assert!(carried == payload);
        }
        bench.command(|nic| nic.set_lro(false)).unwrap();
        for _ in 0..2 {
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            bench.model.receive_coalesced(&turned(tso4(1400), &payload[..5000]), 1400);
            assert_eq!(bench.received().len(), 4);
            // It stays so.
            bench.command(|nic| nic.reset()).unwrap();
        }
        bench.finish();
    });
}

#[test]
fn hashes_and_queues_of_flows() {
    // With packets over several buffers, and without.
    each(|features| hashes(features, 0));
    each(|features| hashes(features, 2048));
}

fn hashes(features: Features, rx_buffer: u16) {
    let device = ModelConfig { features: features | Features::RSS | Features::HASH_REPORT, pairs: 4, ..ModelConfig::default() };
    let key: Vec<u8> = (0..40).collect();
    let rss = Rss { key: key.clone(), table: vec![0, 1, 2, 3, 3, 2, 1, 0] };
    let config = VirtioNetConfig { queue_pairs: 4, rss: Some(rss), hash_report: true, rx_buffer, ..VirtioNetConfig::default() };
    let mut bench = Bench::on(device, config);
    assert_eq!(bench.nic.queues(), (4, 4));
    let hashing = bench.model.control().hashing.unwrap();
    assert_eq!((hashing.key, hashing.table), (key, vec![0, 1, 2, 3, 3, 2, 1, 0]));
    for queue in 0..4 {
        bench.nic.rx(queue).refill(&mut bench.pool).unwrap();
    }
    let mut packets = RxBurst::default();
    let mut seen = [0; 4];
    for port in 0..64_u16 {
        let mut frame = turned(udp4(20), &content(port.into(), 20));
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        assert_eq!(bench.model.receive(&frame), Received::Delivered);
        for (queue, seen) in seen.iter_mut().enumerate() {
            if bench.nic.rx(queue).receive(&mut packets, 9).unwrap() == 1 {
                *seen += 1;
                let packet = packets.packets().last().unwrap();
                assert!(packet.flags.contains(RxFlags::HASH));
                assert_eq!([0, 1, 2, 3, 3, 2, 1, 0][packet.hash as usize % 8], queue);
            }
        }
        assert!(bytes_of(&packets) == [frame]);
        packets.clear();
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    // Headers to transmit are longer too, and every queue sends.
    for queue in 0..4 {
        let mut burst = bench.burst(&[(plain(PEER, queue, 60), Offload::NONE)]);
        bench.nic.tx(queue as usize).post(&mut burst).unwrap();
        assert_eq!(bench.model.step_pairs(), [(queue as u16, plain(PEER, queue, 60))]);
        assert_eq!(bench.nic.tx(queue as usize).reap().unwrap(), 1);
    }
    bench.finish();
}

#[test]
fn a_pool_runs_dry_and_is_filled_again() {
    each(|features| {
        let device = ModelConfig { features, ..ModelConfig::default() };
        let model = hw_sim::model::virtio::VirtioNetModel::with(device);
        let mut nic = start(&model, VirtioNetConfig::default()).unwrap();
        let mut pool = Pool::new(PoolConfig { buffers: 3, buffer_size: 2048 }).unwrap();
        assert!(matches!(nic.rx(0).refill(&mut pool), Err(NicError::UnmappedSegment)));
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        assert_eq!(nic.rx(0).refill(&mut pool).unwrap(), 3);
        let mut packets = RxBurst::default();
        for _ in 0..100 {
            for number in 0..4 {
                let outcome = model.receive(&plain(STATION, number, 64));
                assert_eq!(outcome, if number < 3 { Received::Delivered } else { Received::Missed });
            }
            assert_eq!(nic.rx(0).receive(&mut packets, 9).unwrap(), 3);
            packets.clear();
            assert_eq!(nic.rx(0).refill(&mut pool).unwrap(), 3);
        }
        assert_eq!(model.violations(), [""; 0]);
        drop(nic);
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 3);
    });
}
