//! The driver against QEMU's 82540EM: a second reading of the manual, another space, and a wire with an end to look at.

#[path = "../headers/mod.rs"]
mod headers;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use hal::receive::RxFlags;
use hal::{Burst, DmaMemory, MacAddress, Mapping, Nic, NicError, Offload, Pool, PoolConfig, RegisterError, RxBurst, RxFilter};
use headers::{IDENTIFICATION, PEER, SEQUENCE, STATION, content, plain, sum, tagged, tso4, tso6, udp4};
use hw_sim::rig::{Model, Rig, RigConfig};
use hw_sim::wire::{self, Wire, WireConfig, check};
use pagewire_e1000::{E1000, E1000Config};

const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const OTHER_GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x7f, 0x00, 0x01];

/// The driver on a rig whose wire ends here.
struct Bench {
    rig: Rig,
    wire: Wire,
    nic: E1000,
    pool: Pool,
}

fn rig() -> (Rig, Wire) {
    let (end, wire) = wire::local();
    let config = RigConfig { wire: WireConfig::Local(end), mac: Some(MacAddress(STATION)), ..RigConfig::new(Model::E1000) };
    (Rig::start(config).unwrap(), wire)
}

impl Bench {
    fn with(config: E1000Config) -> Self {
        let (rig, wire) = rig();
        let mut nic = E1000::start(rig.device().unwrap(), config).unwrap();
        let pool = Pool::new(PoolConfig { buffers: 1024, buffer_size: 2048 }).unwrap();
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        Self { rig, wire, nic, pool }
    }

    fn frame(&mut self, burst: &mut Burst<'_>, header: &[u8], offload: Offload) {
        let mut buffer = self.pool.take().unwrap();
        buffer.set(header);
        burst.push(buffer, offload);
    }

    /// A mapped file of `len` bytes of content 0.
    fn file(&mut self, len: usize) -> (File, Mapping, Vec<u8>) {
        let content = content(0, len);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapping = self.nic.space().map_file(file.as_fd(), 0..len as u64).unwrap();
        (file, mapping, content)
    }

    /// Posts all of a burst. QEMU has taken the frames when the doorbell returns.
    #[track_caller]
    fn post(&mut self, burst: &mut Burst<'_>) {
        let frames = burst.len();
        assert_eq!(self.nic.tx(0).post(burst).unwrap(), frames);
        assert_eq!(self.nic.tx(0).reap().unwrap(), frames);
    }

    #[track_caller]
    fn sent(&self) -> Vec<u8> {
        self.wire.receive(PATIENCE).expect("a frame")
    }

    /// Waits for `count` packets: bytes, flags and tag of each.
    #[track_caller]
    fn received(&mut self, count: usize) -> Vec<(Vec<u8>, RxFlags, u16)> {
        let mut burst = RxBurst::default();
        let start = Instant::now();
        while burst.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} packets", burst.len());
            self.nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
            self.nic.rx(0).refill(&mut self.pool).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        let bytes = |packet: hal::Packet<'_>| {
            let mut bytes = vec![0; packet.bytes as usize];
            packet.copy_to(&mut bytes);
            (bytes, packet.flags, packet.vlan_tag)
        };
        burst.packets().map(bytes).collect()
    }
}

#[test]
fn segments_gathered_from_a_file_at_odd_offsets_are_right() {
    let mut bench = Bench::with(E1000Config::default());
    assert_eq!((bench.nic.mac(), bench.nic.link().unwrap().up), (MacAddress(STATION), true));
    let (_file, window, content) = bench.file(1 << 20);
    for (pieces, mss, vlan) in [
        (vec![(4197, 5001), (65_545, 5239), (1_048_575, 1)], 1448, None),
        (vec![(1, 60_001)], 1460, Some(0x2064)),
        (vec![(77, 3)], 1448, None),
        (vec![(4095, 2), (8191, 1000)], 333, None),
    ] {
        let (header, offload) = tso4(mss);
        let mut burst = Burst::default();
        bench.frame(&mut burst, &header, vlan.map_or(offload, |tag| tagged(offload, tag)));
        // Contexts for segmentation and for checksums alternate.
        let mut expected: Vec<u8> = Vec::new();
        for (offset, len) in pieces {
            burst.gather(window.segment(offset as u64, len).unwrap());
            expected.extend(&content[offset..offset + len as usize]);
        }
        let (udp, udp_offload) = udp4(0);
        bench.frame(&mut burst, &udp, udp_offload);
        bench.post(&mut burst);
        let mut got: Vec<u8> = Vec::new();
        let mut number = 0;
        while got.len() < expected.len() {
            let frame = bench.sent();
            let checked = check(&frame).unwrap();
            let tcp = checked.tcp.unwrap();
            assert_eq!((tcp.sequence, checked.vlan), (SEQUENCE.wrapping_add(got.len() as u32), vlan.map(|tag| tag & 0xfff)));
            let ip = if vlan.is_some() { 18 } else { 14 };
            assert_eq!(frame[ip + 4..ip + 6], IDENTIFICATION.wrapping_add(number).to_be_bytes());
            got.extend(&frame[checked.payload]);
            let last = got.len() == expected.len();
            assert_eq!((tcp.psh, tcp.fin), (last, last));
            number += 1;
        }
        assert!(got == expected);
        assert_eq!(check(&bench.sent()).unwrap().destination_port, 9000);
    }
    bench.nic.space().unmap(window).unwrap();
}

#[test]
fn bursts_of_udp_from_a_file_leave_in_order_and_the_device_counts_them() {
    let mut bench = Bench::with(E1000Config { tx_descriptors: 128, ..E1000Config::default() });
    let (_file, window, content) = bench.file(1 << 20);
    let mut bytes = 0;
    for round in 0..40_usize {
        let mut burst = Burst::default();
        let pieces: Vec<(usize, usize)> =
            (0..32).map(|number| (round * 20_011 + number * 131, 1 + (round * 37 + number * 101) % 1472)).collect();
        for (offset, len) in &pieces {
            let (header, offload) = udp4(*len);
            let offload = if round % 2 == 0 { offload } else { tagged(offload, 0x0fff) };
            bench.frame(&mut burst, &header, offload);
            burst.gather(window.segment(*offset as u64, *len as u32).unwrap());
        }
        bench.post(&mut burst);
        for (offset, len) in pieces {
            let frame = bench.sent();
            let untagged = if round % 2 == 0 { frame.clone() } else { [&frame[..12], &frame[16..]].concat() };
            let checked = check(&untagged).unwrap();
            assert_eq!((untagged.len(), frame.len() - untagged.len()), (60.max(42 + len), 4 * (round % 2)));
            assert!(untagged[checked.payload] == content[offset..offset + len]);
            // The check sequence counts, the tag does not, in this model.
            bytes += untagged.len() as u64 + 4;
        }
        // Read again and again: what was read once is not counted twice.
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (32 * (round as u64 + 1), bytes));
    }
    let counters = bench.nic.tx(0).counters();
    assert_eq!((counters.frames, counters.doorbells), (1280, 40));
    bench.nic.space().unmap(window).unwrap();
}

#[test]
fn jumbo_frames_tags_and_filters_work_on_the_receiving_side() {
    let filter = RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() };
    let mut bench = Bench::with(E1000Config { mtu: 16_110, rx_descriptors: 80, filter, ..E1000Config::default() });
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    let mut bytes = 0;
    for round in 1..=3 {
        let lengths = [60, 2044, 2047, 2048, 2049, 4096, 9014, 16_128];
        for (number, len) in lengths.into_iter().enumerate() {
            bench.wire.send(&plain(STATION, number as u32, len)).unwrap();
            bytes += len as u64 + 4;
        }
        for ((got, flags, _), (number, len)) in bench.received(lengths.len()).into_iter().zip(lengths.into_iter().enumerate()) {
            assert!(got == plain(STATION, number as u32, len) && flags.is_empty(), "{len} bytes");
        }
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((statistics.rx_packets, statistics.rx_bytes), (8 * round, bytes));
    }

    let mut with_tag = plain(STATION, 5, 100);
    with_tag.splice(12..12, [0x81, 0x00, 0xe1, 0x23]);
    for frame in [plain(PEER, 1, 64), plain(OTHER_GROUP, 2, 64), plain(GROUP, 3, 64), plain([0xff; 6], 4, 64), with_tag] {
        bench.wire.send(&frame).unwrap();
    }
    let none = RxFlags::empty();
    let expected =
        [(plain(GROUP, 3, 64), none, 0), (plain([0xff; 6], 4, 64), none, 0), (plain(STATION, 5, 100), RxFlags::VLAN_STRIPPED, 0xe123)];
    assert_eq!(bench.received(3), expected);
    // A group more does not change RCTL, so that the receiver does not go deaf for a second.
    bench.nic.set_filter(&RxFilter { multicast: vec![MacAddress(OTHER_GROUP)], ..RxFilter::default() }).unwrap();
    let start = Instant::now();
    bench.wire.send(&plain(GROUP, 6, 64)).unwrap();
    bench.wire.send(&plain(OTHER_GROUP, 7, 64)).unwrap();
    assert_eq!(bench.received(1), [(plain(OTHER_GROUP, 7, 64), none, 0)]);
    assert!(start.elapsed() < Duration::from_millis(900));
}

#[test]
fn a_reset_starts_the_device_again() {
    let mut bench = Bench::with(E1000Config::default());
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    let (udp, offload) = udp4(0);
    for _ in 0..3 {
        let mut burst = Burst::default();
        bench.frame(&mut burst, &udp, offload);
        bench.frame(&mut burst, &plain(PEER, 1, 60), Offload::NONE);
        bench.post(&mut burst);
        check(&bench.sent()).unwrap();
        assert_eq!(bench.sent(), plain(PEER, 1, 60));
        assert_eq!(bench.nic.reset().unwrap(), 0);
    }
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.wire.send(&plain(STATION, 9, 100)).unwrap();
    assert_eq!(bench.received(1)[0].0, plain(STATION, 9, 100));
}

#[test]
fn a_rig_that_is_killed_gives_a_typed_error_and_the_nic_can_be_dropped() {
    let mut bench = Bench::with(E1000Config::default());
    let mut burst = Burst::default();
    bench.frame(&mut burst, &plain(PEER, 1, 60), Offload::NONE);
    bench.post(&mut burst);
    assert!(Command::new("kill").args(["-9", &bench.rig.pid().to_string()]).status().unwrap().success());
    let start = Instant::now();
    let unreachable = |error: &NicError| matches!(error, NicError::Register(RegisterError::Unreachable(_)));
    bench.frame(&mut burst, &plain(PEER, 2, 60), Offload::NONE);
    let error = bench.nic.tx(0).post(&mut burst).unwrap_err();
    assert!(unreachable(&error), "{error:?}");
    assert!(unreachable(&bench.nic.tx(0).check(Duration::ZERO).unwrap_err()));
    assert!(unreachable(&bench.nic.rx(0).refill(&mut bench.pool).unwrap_err()));
    assert!(unreachable(&bench.nic.statistics().unwrap_err()));
    assert!(unreachable(&bench.nic.reset().unwrap_err()));
    let Bench { nic, rig, mut pool, .. } = bench;
    drop(burst);
    drop((nic, rig));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 1024);
}

#[test]
fn a_udp_checksum_that_computes_to_0_goes_out_as_0xffff() {
    let mut bench = Bench::with(E1000Config::default());
    let (mut frame, offload) = udp4(2);
    frame.extend([0, 0]);
    let rest = !sum(&frame[34..]);
    frame[42..].copy_from_slice(&rest.to_be_bytes());
    let mut burst = Burst::default();
    bench.frame(&mut burst, &frame, offload);
    bench.post(&mut burst);
    let sent = bench.sent();
    check(&sent).unwrap();
    assert_eq!(sent[40..42], [0xff, 0xff]);
}

/// Why the driver does not offer segmentation over IPv6. Descriptors by hand, since it refuses them.
#[test]
fn the_device_counts_the_ipv6_header_into_the_payload_length_of_a_segment() {
    const CTRL: u64 = 0;
    const TCTL: u64 = 0x400;
    const TDBAL: u64 = 0x3800;
    const RING_LEN: u32 = 128;
    let (rig, wire) = rig();
    let mut device = rig.device().unwrap();
    let registers = device.bar(0).unwrap();
    let memory = DmaMemory::new(&device.dma(), "raw", 8192).unwrap();
    device.set_bus_master(true).unwrap();
    let (mut frame, _) = tso6(1000);
    frame.extend(content(0, 2500));
    memory.memory().write_bytes(4096, &frame);
    // IPCSS 14, IPCSO 24, IPCSE 0; TUCSS 54, TUCSO 70. TSE and TCP, not IP; the header of 74 bytes, the MSS of 1000.
    let context = [u64::from_le_bytes([14, 24, 0, 0, 54, 70, 0, 0]), 2500 | 0x25 << 24 | 74 << 40 | 1000 << 48];
    let data = |offset: u64, len: u64, command: u64| [memory.iova() + offset, len | 1 << 20 | (0x26 | command) << 24 | 2 << 40];
    // EOP, IFCS and RS in the last.
    for (index, descriptor) in [context, data(4096, 74, 0), data(4096 + 74, 2500, 0x0b)].into_iter().enumerate() {
        memory.memory().write(index * 16, descriptor);
    }
    let ring = memory.iova();
    for (offset, value) in [(CTRL, 1 << 6), (TDBAL, ring as u32), (TDBAL + 4, (ring >> 32) as u32), (TDBAL + 8, RING_LEN), (TCTL, 0x0a)] {
        registers.write::<u32>(offset, value).unwrap();
    }
    registers.write::<u32>(TDBAL + 0x18, 3).unwrap();
    for len in [1000_u16, 1000, 500] {
        let segment = wire.receive(PATIENCE).expect("a segment");
        assert_eq!(segment.len(), 74 + usize::from(len));
        let said = u16::from_be_bytes([segment[18], segment[19]]);
        assert_eq!(said, 40 + 20 + len, "the IPv6 payload length, which has to be {}", 20 + len);
        assert!(check(&segment).is_err());
    }
}

/// The far end sends single frames after pauses of 0 to 3 ms; the receiver sleeps on the interrupt and never needs its time-out.
#[test]
fn no_wake_up_is_lost_by_single_frames_at_random_intervals() {
    const FRAMES: usize = 300;
    let mut bench = Bench::with(E1000Config::default());
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    let frame = plain(STATION, 1, 60);
    let (wire, nic, pool) = (&bench.wire, &mut bench.nic, &mut bench.pool);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0x9e37_79b9_u32;
            for _ in 0..FRAMES {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                std::thread::sleep(Duration::from_micros(u64::from(state >> 20) * 3 / 4));
                wire.send(&frame).unwrap();
            }
        });
        let mut burst = RxBurst::default();
        let mut received = 0;
        while received < FRAMES {
            assert!(nic.wait(PATIENCE).unwrap(), "asleep with {received} of {FRAMES} frames received");
            received += nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
            burst.clear();
            nic.rx(0).refill(pool).unwrap();
        }
        assert_eq!(received, FRAMES);
        assert!(!nic.wait(Duration::ZERO).unwrap(), "nothing more comes");
    });
}
