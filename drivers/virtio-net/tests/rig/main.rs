//! The driver and its PCI transport against QEMU's device: another implementation of the specification, and a wire with an end to look at.

#[path = "../../../e1000/tests/headers/mod.rs"]
mod headers;
mod transport;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use hal::{Burst, MacAddress, Mapping, Nic, NicError, Offload, Pool, PoolConfig, RegisterError, RxBurst, RxFilter};
use headers::{PEER, STATION, content, plain};
use hw_sim::rig::{Model, Rig, RigConfig, VirtioOptions};
use hw_sim::wire::{self, Wire, WireConfig, check};
use virtio_net::pci::PciTransport;
use virtio_net::{Features, VirtioNet, VirtioNetConfig};

const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];

/// What QEMU's device can be, as far as it changes how the driver works: layouts, what they are used with, and how it is told of buffers.
const KINDS: [&[(&str, &str)]; 5] = [
    &[],
    &[("packed", "on")],
    &[("event_idx", "off"), ("indirect_desc", "off")],
    &[("packed", "on"), ("event_idx", "off"), ("indirect_desc", "off")],
    &[("packed", "on"), ("mrg_rxbuf", "off"), ("page-per-vq", "on")],
];

/// With MSI-X, not INTx.
const MSIX: (&str, &str) = ("msix", "on");

fn rig(settings: &[(&str, &str)]) -> (Rig, Wire) {
    let (end, wire) = wire::local();
    let (msix, settings): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| **setting == MSIX);
    let virtio = settings.iter().try_fold(VirtioOptions::default(), |options, (name, value)| options.with(name, value)).unwrap();
    let config = RigConfig {
        virtio,
        msix: !msix.is_empty(),
        wire: WireConfig::Local(end),
        mac: Some(MacAddress(STATION)),
        ..RigConfig::new(Model::VirtioNet)
    };
    (Rig::start(config).unwrap(), wire)
}

/// The driver on a rig whose wire ends here.
struct Bench {
    rig: Rig,
    wire: Wire,
    nic: VirtioNet,
    pool: Pool,
}

impl Bench {
    fn of(settings: &[(&str, &str)]) -> Self {
        Self::with(settings, VirtioNetConfig::default())
    }

    fn with(settings: &[(&str, &str)], config: VirtioNetConfig) -> Self {
        let (rig, wire) = rig(settings);
        let transport = PciTransport::new(rig.device().unwrap()).unwrap();
        let mut nic = VirtioNet::start(Box::new(transport), config).unwrap();
        let pool = Pool::new(PoolConfig { buffers: 1024, buffer_size: 2048 }).unwrap();
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        Self { rig, wire, nic, pool }
    }

    fn frame(&mut self, burst: &mut Burst<'_>, header: &[u8]) {
        let mut buffer = self.pool.take().unwrap();
        buffer.set(header);
        burst.push(buffer, Offload::NONE);
    }

    /// A mapped file of `len` bytes of content 0.
    fn file(&mut self, len: usize) -> (File, Mapping, Vec<u8>) {
        let content = content(0, len);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapping = self.nic.space().map_file(file.as_fd(), 0..len as u64).unwrap();
        (file, mapping, content)
    }

    /// Posts all of a burst, and waits until QEMU has taken it: it does so on its own time.
    #[track_caller]
    fn post(&mut self, burst: &mut Burst<'_>) {
        let start = Instant::now();
        let tx = self.nic.tx(0);
        let mut left = burst.len();
        while left > 0 {
            tx.post(burst).unwrap();
            left -= tx.reap().unwrap();
            tx.check(start.elapsed()).unwrap();
            assert!(start.elapsed() < PATIENCE, "{left} frames are left");
        }
    }

    #[track_caller]
    fn sent(&self) -> Vec<u8> {
        self.wire.receive(PATIENCE).expect("a frame")
    }

    /// Waits for `count` packets.
    #[track_caller]
    fn received(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut burst = RxBurst::default();
        let start = Instant::now();
        while burst.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} packets", burst.len());
            self.nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
            self.nic.rx(0).refill(&mut self.pool).unwrap();
            self.nic.wait(Duration::from_millis(20)).unwrap();
        }
        burst
            .packets()
            .map(|packet| {
                let mut bytes = vec![0; packet.bytes as usize];
                packet.copy_to(&mut bytes);
                bytes
            })
            .collect()
    }
}

/// The headers of a UDP datagram, with its checksum.
fn udp(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(STATION, PEER).ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64).udp(4000, 9000);
    builder.write(&mut frame, payload).unwrap();
    frame.truncate(frame.len() - payload.len());
    frame
}

#[test]
fn bursts_gathered_from_a_file_at_odd_offsets_leave_in_order_on_every_kind_of_ring() {
    for kind in KINDS {
        let mut bench = Bench::of(kind);
        assert_eq!((bench.nic.mac(), bench.nic.link().unwrap().up), (MacAddress(STATION), true));
        assert!(bench.nic.capabilities().offloads.is_empty(), "this wire has no offloads");
        let (_file, window, content) = bench.file(1 << 20);
        for round in 0..20_usize {
            let mut burst = Burst::default();
            let mut expected = Vec::new();
            for number in 0..32 {
                // Up to four pieces, which lie anywhere.
                let pieces: Vec<(usize, usize)> = (0..1 + number % 4)
                    .map(|piece| {
                        ((round * 20_011 + number * 4133 + piece * 131) % 1_000_000, 1 + (round * 37 + number * 101 + piece) % 360)
                    })
                    .collect();
                let payload: Vec<u8> = pieces.iter().flat_map(|(offset, len)| &content[*offset..offset + len]).copied().collect();
                bench.frame(&mut burst, &udp(&payload));
                for (offset, len) in pieces {
                    burst.gather(window.segment(offset as u64, len as u32).unwrap());
                }
                expected.push(payload);
            }
            bench.post(&mut burst);
            for payload in expected {
                let frame = bench.sent();
                let checked = check(&frame).unwrap();
                assert!(frame[checked.payload] == payload, "{kind:?}, round {round}");
            }
        }
        let counters = bench.nic.tx(0).counters();
        assert_eq!(counters.frames, 640);
        assert!(counters.doorbells >= 20 || !kind.contains(&("event_idx", "off")), "{counters:?}");
        bench.nic.space().unmap(window).unwrap();
    }
}

#[test]
fn packets_of_every_length_arrive_on_every_kind_of_ring() {
    for kind in KINDS {
        let filter = RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() };
        let mut bench = Bench::with(kind, VirtioNetConfig { filter, rx_descriptors: 64, ..VirtioNetConfig::default() });
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        // More than twice the ring.
        for round in 0..10_u32 {
            let lengths = [60, 61, 64, 128, 500, 1000, 1400, 1513, 1514];
            let sent: Vec<Vec<u8>> = lengths.iter().zip(round * 100..).map(|(len, number)| plain(STATION, number, *len)).collect();
            // The first is for somebody else, and does not arrive.
            bench.wire.send(&plain(PEER, 7, 100)).unwrap();
            for frame in &sent {
                bench.wire.send(frame).unwrap();
            }
            assert!(bench.received(sent.len()) == sent, "{kind:?}, round {round}");
        }
        for frame in [plain(GROUP, 1, 64), plain([0xff; 6], 2, 64)] {
            bench.wire.send(&frame).unwrap();
            assert_eq!(bench.received(1), [frame], "{kind:?}");
        }
    }
}

#[test]
fn a_packet_of_several_buffers_is_put_together() {
    let mut bench = Bench::with(&[("host_mtu", "9000")], VirtioNetConfig { mtu: Some(9000), ..VirtioNetConfig::default() });
    assert_eq!(bench.nic.capabilities().max_frame, 9018);
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    for (number, len) in [1514, 2036, 2037, 4096, 9014].into_iter().enumerate() {
        let frame = plain(STATION, number as u32, len);
        bench.wire.send(&frame).unwrap();
        assert!(bench.received(1) == [frame], "{len} bytes");
    }
    let frame = plain(PEER, 3, 9014);
    let (_file, window, content) = bench.file(12_288);
    let mut burst = Burst::default();
    bench.frame(&mut burst, &frame[..14]);
    burst.gather(window.segment(0, 9000).unwrap());
    bench.post(&mut burst);
    assert!(bench.sent()[14..] == content[..9000]);
}

#[test]
fn a_reset_starts_the_device_again() {
    for kind in &KINDS[..2] {
        let mut bench = Bench::of(kind);
        for round in 0..3 {
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            let mut burst = Burst::default();
            bench.frame(&mut burst, &plain(PEER, round, 60));
            bench.post(&mut burst);
            assert_eq!(bench.sent(), plain(PEER, round, 60));
            bench.wire.send(&plain(STATION, round, 100)).unwrap();
            assert_eq!(bench.received(1), [plain(STATION, round, 100)]);
            assert_eq!(bench.nic.reset().unwrap(), 0);
        }
    }
}

#[test]
fn what_was_negotiated_is_told_with_the_reasons() {
    let bench = Bench::with(
        &[("packed", "on"), ("iommu_platform", "on")],
        VirtioNetConfig { refuse: Features::EVENT_IDX, ..VirtioNetConfig::default() },
    );
    let report = bench.nic.features();
    let of = |name: &str| report.iter().find(|feature| feature.name == name).unwrap_or_else(|| panic!("no {name}"));
    for (name, offered, accepted) in [
        ("VIRTIO_F_VERSION_1", true, true),
        ("VIRTIO_F_RING_PACKED", true, true),
        ("VIRTIO_F_ACCESS_PLATFORM", true, true),
        ("VIRTIO_F_INDIRECT_DESC", true, true),
        ("VIRTIO_F_EVENT_IDX", true, false),
        ("VIRTIO_NET_F_CSUM", false, false),
        ("VIRTIO_NET_F_HOST_TSO4", false, false),
    ] {
        assert_eq!((of(name).offered, of(name).accepted), (offered, accepted), "{name}");
    }
    assert!(of("VIRTIO_F_EVENT_IDX").note.contains("refused by the configuration"));
}

#[test]
fn a_rig_that_is_killed_gives_a_typed_error_and_the_nic_can_be_dropped() {
    let mut bench = Bench::of(&[]);
    let mut burst = Burst::default();
    bench.frame(&mut burst, &plain(PEER, 1, 60));
    bench.post(&mut burst);
    assert!(Command::new("kill").args(["-9", &bench.rig.pid().to_string()]).status().unwrap().success());
    let start = Instant::now();
    let unreachable = |error: &NicError| {
        matches!(
            error,
            NicError::Register(RegisterError::Unreachable(_)) | NicError::Bus(hal::BusError::Register(RegisterError::Unreachable(_)))
        )
    };
    bench.frame(&mut burst, &plain(PEER, 2, 60));
    let error = bench.nic.tx(0).post(&mut burst).unwrap_err();
    assert!(unreachable(&error), "{error:?}");
    assert!(unreachable(&bench.nic.tx(0).check(Duration::ZERO).unwrap_err()));
    assert!(unreachable(&bench.nic.link().unwrap_err()));
    assert!(unreachable(&bench.nic.reset().unwrap_err()));
    let Bench { nic, rig, mut pool, .. } = bench;
    drop(burst);
    drop((nic, rig));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 1024);
}

/// The far end sends single frames after pauses of 0 to 3 ms; the receiver sleeps on the interrupt and never needs its time-out.
#[test]
fn no_wake_up_is_lost_by_single_frames_at_random_intervals() {
    const FRAMES: usize = 200;
    let with_msix: [&[(&str, &str)]; 2] = [&[MSIX], &[MSIX, ("packed", "on")]];
    for kind in KINDS[..4].iter().chain(&with_msix) {
        let mut bench = Bench::of(kind);
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
                assert!(nic.wait(PATIENCE).unwrap(), "{kind:?}: asleep with {received} of {FRAMES} frames received");
                received += nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
                burst.clear();
                nic.rx(0).refill(pool).unwrap();
            }
            assert_eq!(received, FRAMES);
        });
    }
}
