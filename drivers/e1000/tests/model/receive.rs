use hal::receive::RxFlags;
use hal::{Nic, NicError, Pool, PoolConfig, RxBurst};
use hw_sim::model::e1000::{Fault, Received};
use pagewire_e1000::E1000Config;

use crate::bench::{BUFFERS, Bench, bytes_of};
use crate::headers::{STATION, plain, tcp4, udp4};

fn jumbo() -> E1000Config {
    E1000Config { mtu: 16_110, ..E1000Config::default() }
}

/// An IP frame to the station with right checksums, as the model's transmit unit makes it.
fn with_checksums((mut frame, offload): (Vec<u8>, hal::Offload)) -> Vec<u8> {
    let mut bench = Bench::new();
    frame[..6].copy_from_slice(&STATION);
    let sent = bench.send_bytes(&frame, offload).remove(0);
    bench.finish();
    sent
}

#[test]
fn a_packet_in_one_descriptor_arrives_without_its_check_sequence() {
    let mut bench = Bench::new();
    for len in [60, 61, 1000, 1514, 1518] {
        bench.deliver(&plain(STATION, 1, len));
        assert_eq!(bench.received(), [plain(STATION, 1, len)]);
    }
    let counters = bench.nic.rx(0).counters();
    assert_eq!((counters.packets, counters.bytes, counters.dropped), (5, 60 + 61 + 1000 + 1514 + 1518, 0));
    assert_eq!(counters.doorbells, 5, "one for each time that buffers were given");
    bench.finish();
}

#[test]
fn a_packet_over_several_descriptors_is_put_together() {
    let mut bench = Bench::with(jumbo());
    // One byte less than a buffer, exactly one, one more; and so on up to the longest.
    for len in [2047, 2048, 2049, 4095, 4096, 4097, 9014, 16_128, 16_380] {
        bench.deliver(&plain(STATION, 9, len));
        let mut burst = RxBurst::default();
        assert_eq!(bench.nic.rx(0).receive(&mut burst, 1).unwrap(), 1);
        let packet = burst.packets().next().unwrap();
        assert_eq!((packet.bytes as usize, packet.buffers.len()), (len, len.div_ceil(2048)));
        assert!(packet.buffers.iter().all(|buffer| !buffer.is_empty()));
        assert_eq!(bytes_of(&burst), [plain(STATION, 9, len)]);
    }
    bench.finish();
}

#[test]
fn a_packet_longer_than_the_mtu_is_counted_as_an_error() {
    let mut bench = Bench::new();
    assert!(!bench.hears(&plain(STATION, 1, 1519)));
    assert!(bench.hears(&plain(STATION, 1, 1518)));
    assert_eq!(bench.nic.statistics().unwrap().rx_errors, 1);
    bench.finish();
}

#[test]
fn at_most_as_many_packets_as_asked_for_are_taken() {
    let mut bench = Bench::new();
    for number in 0..10 {
        bench.deliver(&plain(STATION, number, 100));
    }
    let mut burst = RxBurst::with_capacity(4);
    let mut got = Vec::new();
    for expected in [4, 4, 2, 0] {
        assert_eq!(bench.nic.rx(0).receive(&mut burst, 4).unwrap(), expected);
        assert_eq!(burst.len(), expected);
        got.extend(bytes_of(&burst));
        burst.clear();
    }
    assert_eq!(bench.nic.rx(0).receive(&mut burst, 0).unwrap(), 0);
    assert_eq!(got, (0..10).map(|number| plain(STATION, number, 100)).collect::<Vec<_>>());
    bench.finish();
}

#[test]
fn known_packets_go_straight_back_to_the_ring_and_the_first_other_one_stays() {
    let mut bench = Bench::with(E1000Config { rx_descriptors: 80, ..jumbo() });
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    let free = bench.free_buffers();
    let mut seen = Vec::new();
    for round in 0..40u32 {
        // Seven that are known, one that is not, and one over two descriptors.
        let packets: Vec<_> = (0..9).map(|number| plain(STATION, 9 * round + number, if number == 8 { 3000 } else { 66 })).collect();
        for packet in &packets {
            assert_eq!(bench.model.receive(packet), Received::Delivered);
        }
        let mut known = |buffer: &hal::Buffer, _: &hal::receive::About| {
            let mut bytes = vec![0; buffer.len()];
            buffer.read(0, &mut bytes);
            seen.push(bytes);
            seen.len() % 8 != 0
        };
        assert_eq!(bench.nic.rx(0).skim(3, &mut known).unwrap(), 3);
        assert_eq!(bench.nic.rx(0).skim(100, &mut known).unwrap(), 4);
        assert!(seen[seen.len() - 8..] == packets[..8], "round {round}");
        let mut burst = RxBurst::default();
        assert_eq!(bench.nic.rx(0).receive(&mut burst, 1).unwrap(), 1);
        assert_eq!(bytes_of(&burst), packets[7..8]);
        burst.clear();
        assert_eq!(bench.nic.rx(0).skim(100, &mut |_, _| -> bool { panic!("it lies in two buffers") }).unwrap(), 0);
        assert!(bench.received() == packets[8..], "round {round}");
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        assert_eq!(bench.free_buffers(), free, "round {round}");
    }
    assert_eq!(bench.nic.rx(0).counters().packets, 360);
    bench.finish();
}

#[test]
fn the_ring_is_filled_but_for_one_descriptor() {
    let mut bench = Bench::new();
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), 255);
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), 0);
    assert_eq!(bench.free_buffers(), BUFFERS as usize - 255);
    for number in 0..255 {
        assert_eq!(bench.model.receive(&plain(STATION, number, 64)), Received::Delivered);
    }
    assert_eq!(bench.model.receive(&plain(STATION, 255, 64)), Received::Missed);
    let mut burst = RxBurst::default();
    assert_eq!(bench.nic.rx(0).receive(&mut burst, usize::MAX).unwrap(), 255);
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), 255);
    assert_eq!(bytes_of(&burst), (0..255).map(|number| plain(STATION, number, 64)).collect::<Vec<_>>());
    drop(burst);
    let statistics = bench.nic.statistics().unwrap();
    assert_eq!((statistics.rx_packets, statistics.rx_bytes, statistics.rx_missed), (255, 255 * 68, 1));
    bench.finish();
}

#[test]
fn an_empty_pool_starves_the_ring_and_returned_buffers_feed_it_again() {
    let mut bench = Bench::with(E1000Config { rx_descriptors: 4096, ..E1000Config::default() });
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), BUFFERS as usize);
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), 0);
    let mut burst = RxBurst::default();
    for number in 0..BUFFERS {
        assert_eq!(bench.model.receive(&plain(STATION, number, 64)), Received::Delivered);
    }
    assert_eq!(bench.model.receive(&plain(STATION, BUFFERS, 64)), Received::Missed);
    assert_eq!(bench.nic.rx(0).receive(&mut burst, usize::MAX).unwrap(), BUFFERS as usize);
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), 0, "the program has them all");
    burst.clear();
    assert_eq!(bench.nic.rx(0).refill(&mut bench.pool).unwrap(), BUFFERS as usize);
    assert_eq!(bench.model.receive(&plain(STATION, 7, 64)), Received::Delivered);
    assert_eq!(bench.received(), [plain(STATION, 7, 64)]);
    bench.finish();
}

#[test]
fn the_receive_ring_wraps_around_without_an_end() {
    let mut bench = Bench::with(E1000Config { rx_descriptors: 80, ..jumbo() });
    let mut next = 0;
    for round in 0..60 {
        let numbers: Vec<u32> = (next..next + round % 9).collect();
        for number in &numbers {
            // One to eight descriptors.
            bench.deliver(&plain(STATION, *number, 60 + (*number as usize * 977) % 16_000));
        }
        let expected: Vec<_> = numbers.iter().map(|number| plain(STATION, *number, 60 + (*number as usize * 977) % 16_000)).collect();
        assert!(bench.received() == expected, "round {round}");
        next += round % 9;
    }
    bench.finish();
}

#[test]
fn a_packet_half_of_which_has_been_taken_waits_for_the_rest() {
    // The device writes descriptors back one by one: a driver may see some of a packet.
    let mut bench = Bench::with(jumbo());
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.model.set_fault(Fault::RxNeverEnds);
    bench.model.receive(&plain(STATION, 1, 2048));
    bench.model.clear_fault();
    assert!(bench.received().is_empty());
    bench.model.receive(&plain(STATION, 2, 100));
    assert_eq!(bench.received(), [[plain(STATION, 1, 2048), plain(STATION, 2, 100)].concat()]);
    bench.finish();
}

#[test]
fn a_packet_with_an_error_is_dropped_and_counted() {
    let mut bench = Bench::with(jumbo());
    for (number, len) in [(1, 100), (2, 5000)] {
        bench.deliver(&plain(STATION, 10, 64));
        bench.model.set_fault(Fault::RxError);
        bench.deliver(&plain(STATION, 11, len));
        bench.deliver(&plain(STATION, 12, 64));
        assert_eq!(bench.received(), [plain(STATION, 10, 64), plain(STATION, 12, 64)]);
        assert_eq!(bench.nic.rx(0).counters().dropped, number);
        assert_eq!(bench.nic.statistics().unwrap().rx_errors, number);
    }
    bench.finish();
}

#[test]
fn buffers_that_are_too_small_are_refused() {
    let mut bench = Bench::new();
    let mut small = Pool::new(PoolConfig { buffers: 8, buffer_size: 1024 }).unwrap();
    bench.nic.attach_pool(small.attach(&bench.nic.space()).unwrap()).unwrap();
    assert!(matches!(bench.nic.rx(0).refill(&mut small), Err(NicError::Config(_))));
    let mut stranger = Pool::new(PoolConfig { buffers: 8, ..PoolConfig::default() }).unwrap();
    assert!(matches!(bench.nic.rx(0).refill(&mut stranger), Err(NicError::UnmappedSegment)));
    assert_eq!(std::iter::from_fn(|| small.take()).chain(std::iter::from_fn(|| stranger.take())).collect::<Vec<_>>().len(), 16);
    bench.deliver(&plain(STATION, 1, 64));
    assert_eq!(bench.received(), [plain(STATION, 1, 64)]);
    bench.finish();
}

#[test]
fn larger_buffers_hold_2048_bytes_each() {
    let mut bench = Bench::with(jumbo());
    let mut large = Pool::new(PoolConfig { buffers: 16, buffer_size: 8192 }).unwrap();
    bench.nic.attach_pool(large.attach(&bench.nic.space()).unwrap()).unwrap();
    assert_eq!(bench.nic.rx(0).refill(&mut large).unwrap(), 16);
    assert_eq!(bench.model.receive(&plain(STATION, 4, 5000)), Received::Delivered);
    assert_eq!(bench.received(), [plain(STATION, 4, 5000)]);
    bench.finish();
}

#[test]
fn checksums_that_were_checked_are_told() {
    let mut bench = Bench::new();
    let both = RxFlags::IPV4_CHECKSUM_GOOD | RxFlags::L4_CHECKSUM_GOOD;
    let good = with_checksums(udp4(0));
    let (mut bad_l4, mut bad_ip) = (good.clone(), good.clone());
    bad_l4[40] ^= 0x55;
    bad_ip[25] ^= 0x55;
    for (frame, flags) in
        [(good, both), (with_checksums(tcp4(0)), both), (bad_l4, RxFlags::IPV4_CHECKSUM_GOOD), (plain(STATION, 1, 64), RxFlags::empty())]
    {
        bench.deliver(&frame);
        let mut burst = RxBurst::default();
        bench.nic.rx(0).receive(&mut burst, 1).unwrap();
        assert_eq!(burst.packets().next().unwrap().flags, flags);
    }
    bench.deliver(&bad_ip);
    let mut burst = RxBurst::default();
    bench.nic.rx(0).receive(&mut burst, 1).unwrap();
    let flags = burst.packets().next().expect("a wrong checksum is for the reader to judge").flags;
    assert!(!flags.contains(RxFlags::IPV4_CHECKSUM_GOOD));
    drop(burst);
    bench.finish();
}

#[test]
fn a_vlan_tag_is_taken_out_and_told() {
    let mut bench = Bench::new();
    let untagged = plain(STATION, 1, 100);
    let mut tagged = untagged.clone();
    tagged.splice(12..12, [0x81, 0x00, 0xe1, 0x23]);
    bench.deliver(&tagged);
    bench.deliver(&untagged);
    let mut burst = RxBurst::default();
    bench.nic.rx(0).receive(&mut burst, 2).unwrap();
    assert_eq!(bytes_of(&burst), [untagged.clone(), untagged]);
    let told: Vec<_> = burst.packets().map(|packet| (packet.flags, packet.vlan_tag)).collect();
    assert_eq!(told, [(RxFlags::VLAN_STRIPPED, 0xe123), (RxFlags::empty(), 0)]);
    drop(burst);
    bench.finish();

    let mut bench = Bench::with(E1000Config { vlan: false, ..E1000Config::default() });
    bench.deliver(&tagged);
    assert_eq!(bench.received(), [tagged]);
    bench.finish();
}

#[test]
fn received_buffers_outlive_the_nic_and_the_pool() {
    let mut bench = Bench::new();
    bench.deliver(&plain(STATION, 1, 100));
    let mut burst = RxBurst::default();
    bench.nic.rx(0).receive(&mut burst, 1).unwrap();
    let Bench { model, nic, pool, .. } = bench;
    drop((nic, pool));
    assert_eq!(model.mappings(), 0);
    assert_eq!(bytes_of(&burst), [plain(STATION, 1, 100)]);
    std::thread::spawn(move || drop(burst)).join().unwrap();
    assert_eq!(model.violations(), [""; 0]);
}
