//! What the driver itself costs, in instructions, counted by valgrind's callgrind: the same figures on every machine.
//!
//! ```text
//! cargo bench --bench instructions            a table
//! cargo bench --bench instructions -- --json  one line of JSON
//! ```
//! The device is [`IdleDevice`] or [`IdleVirtio`]: registers and rings in ordinary memory. Each case runs twice, short and long, and the difference is divided
//! by the frames, so that start-up does not count. Only what runs inside `measured` counts; the device completes outside.

mod counting;

use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::Duration;

use counting::{count, measured};
use e1000::{E1000, E1000Config};
use hal::{Burst, Nic, Offload, OffloadFlags, Pool, PoolConfig, RxBurst};
use hw_sim::model::e1000::{E1000Model, Received};
use hw_sim::model::idle::{IdleDevice, IdleVirtio};
use hw_sim::model::virtio::{Features, ModelConfig, Notify, VirtioNetModel};
use pagewire::bench::{Shape, Transmitter, Work};
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::send::{Framing, Port, PortConfig, Step, UdpOptions, UdpSend};
use virtio_net::{VirtioNet, VirtioNetConfig};

/// Frames with one doorbell, as testpmd.
const BURST: usize = 32;
/// Bursts of the short and of the long run.
const RUNS: [usize; 2] = [50, 550];

/// A case, what it may cost, and what DPDK 22.11's testpmd spends on the same work (txonly on the em driver, in a guest, all of its loop included).
struct Case {
    name: &'static str,
    what: &'static str,
    /// None for what is only watched.
    target: Option<f64>,
    dpdk: Option<f64>,
    run: fn(usize),
}

const CASES: [Case; 15] = [
    Case { name: "frame-64", what: "64-byte frame, one segment", target: Some(100.0), dpdk: Some(256.0), run: frame_64::<IdleDevice> },
    Case {
        name: "two-segments",
        what: "header + 1400 bytes, checksums by the NIC",
        target: Some(140.0),
        dpdk: Some(387.0),
        run: two_segments::<IdleDevice>,
    },
    Case { name: "bench-64", what: "a turn of `bench tx`, 64 bytes", target: Some(110.0), dpdk: Some(256.0), run: bench_64 },
    Case { name: "bench-two", what: "a turn of `bench tx`, 64 + 1400 bytes", target: Some(150.0), dpdk: Some(387.0), run: bench_two },
    Case { name: "forward", what: "received and sent on, 64 bytes", target: None, dpdk: None, run: forward },
    Case { name: "alternating", what: "the same, each with another request", target: None, dpdk: None, run: alternating },
    Case { name: "segmentation", what: "header + 14,480 bytes to be segmented", target: None, dpdk: None, run: segmentation },
    Case { name: "udp-raw", what: "UDP datagram of 1472 file bytes", target: Some(200.0), dpdk: None, run: udp_raw },
    Case { name: "udp-offset", what: "UDP datagram with its file offset", target: Some(200.0), dpdk: None, run: udp_offset },
    Case { name: "virtio-split-frame-64", what: "virtio, split: 64-byte frame", target: None, dpdk: None, run: frame_64::<Split> },
    Case {
        name: "virtio-split-two-segments",
        what: "virtio, split: header + 1400 bytes",
        target: None,
        dpdk: None,
        run: two_segments::<Split>,
    },
    Case { name: "virtio-packed-frame-64", what: "virtio, packed: 64-byte frame", target: None, dpdk: None, run: frame_64::<Packed> },
    Case {
        name: "virtio-packed-two-segments",
        what: "virtio, packed: header + 1400 bytes",
        target: None,
        dpdk: None,
        run: two_segments::<Packed>,
    },
    Case {
        name: "virtio-split-forward",
        what: "virtio, split: received and sent on",
        target: None,
        dpdk: None,
        run: virtio_forward::<false>,
    },
    Case {
        name: "virtio-packed-forward",
        what: "virtio, packed: received and sent on",
        target: None,
        dpdk: None,
        run: virtio_forward::<true>,
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((name, bursts)) = counting::child(&arguments) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        return (case.run)(bursts);
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let valgrind = counting::valgrind();
    let mut missed = false;
    if !json {
        println!("{:<44} {:>12} {:>8} {:>14}", "instructions a frame, bursts of 32", "pagewire", "target", "DPDK testpmd");
    }
    let mut figures = serde_json::Map::new();
    for case in &CASES {
        let [short, long] = RUNS.map(|bursts| count(&valgrind, case.name, bursts));
        let cost = (long - short) as f64 / ((RUNS[1] - RUNS[0]) * BURST) as f64;
        missed |= case.target.is_some_and(|target| cost > target);
        figures.insert(case.name.into(), serde_json::json!({"instructions": cost, "target": case.target, "dpdk_testpmd": case.dpdk}));
        if !json {
            let dpdk = case.dpdk.map_or("-".to_owned(), |dpdk| format!("{dpdk} ({:.2})", cost / dpdk));
            let target = case.target.map_or("-".to_owned(), |target| target.to_string());
            println!("{:<44} {cost:>12.1} {target:>8} {dpdk:>14}", case.what);
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
    assert!(!missed, "a target was missed");
}

/// A device that does nothing, and its driver.
trait Idle: Sized {
    type Driver: Nic;
    fn start() -> (Self, Self::Driver);
    /// Everything that was posted is done.
    fn complete(&self);
}

impl Idle for IdleDevice {
    type Driver = E1000;

    fn start() -> (Self, E1000) {
        let device = Self::new("52:54:00:00:00:01".parse().expect("an address"));
        let nic = E1000::start(device.device(), E1000Config::default()).expect("it starts");
        (device, nic)
    }

    fn complete(&self) {
        Self::complete(self);
    }
}

/// A virtio device with rings of one layout, and what QEMU offers besides.
fn virtio(ring: Features) -> (IdleVirtio, VirtioNet) {
    let device = IdleVirtio::new("52:54:00:00:00:01".parse().expect("an address"), (Features::USUAL - Features::ORDER_PLATFORM) | ring);
    let nic = VirtioNet::start(device.transport(), VirtioNetConfig::default()).expect("it starts");
    (device, nic)
}

struct Split(IdleVirtio);

impl Idle for Split {
    type Driver = VirtioNet;

    fn start() -> (Self, VirtioNet) {
        let (device, nic) = virtio(Features::empty());
        (Self(device), nic)
    }

    fn complete(&self) {
        self.0.complete();
    }
}

struct Packed(IdleVirtio);

impl Idle for Packed {
    type Driver = VirtioNet;

    fn start() -> (Self, VirtioNet) {
        let (device, nic) = virtio(Features::RING_PACKED);
        (Self(device), nic)
    }

    fn complete(&self) {
        self.0.complete();
    }
}

struct Bench<D: Idle> {
    device: D,
    nic: D::Driver,
    pool: Pool,
}

fn bench<D: Idle>() -> Bench<D> {
    let (device, mut nic) = D::start();
    let pool = Pool::new(PoolConfig::default()).expect("memory");
    let mapping = pool.attach(&nic.space()).expect("it attaches");
    nic.attach_pool(mapping).expect("the same space");
    Bench { device, nic, pool }
}

/// The headers of a UDP datagram, as testpmd writes them into every packet.
const HEADER: [u8; 42] = [0x5a; 42];

fn frame_64<D: Idle>(bursts: usize) {
    let Bench { device, mut nic, mut pool } = bench::<D>();
    let mut burst = Burst::with_capacity(BURST);
    for _ in 0..bursts {
        measured(&mut || {
            for _ in 0..BURST {
                let Some(mut buffer) = pool.take() else { break };
                buffer.set(black_box::<&[u8; 42]>(&HEADER));
                buffer.set_len(64);
                burst.push(buffer, Offload::NONE);
            }
            let posted = nic.tx(0).post(&mut burst).expect("it posts");
            assert_eq!(posted, BURST);
        });
        device.complete();
        measured(&mut || assert_eq!(nic.tx(0).reap().expect("it reaps"), BURST));
    }
}

/// Frames of a header and `LEN` bytes in a window, with these requests in turn.
fn segments<D: Idle, const LEN: u32, const REQUESTS: usize>(bursts: usize, requests: [Offload; REQUESTS]) {
    let Bench { device, mut nic, mut pool } = bench::<D>();
    let offered = nic.capabilities().offloads;
    let requests = black_box(requests.map(|request| Offload { flags: request.flags & offered, ..request }));
    let file = tempfile::tempfile().expect("a file");
    let window = nic.space().map_file(file.as_fd(), 0..4 << 20).expect("it maps");
    let mut burst = Burst::with_capacity(BURST);
    for _ in 0..bursts {
        measured(&mut || {
            for number in 0..BURST {
                let Some(mut buffer) = pool.take() else { break };
                buffer.set(black_box::<&[u8; 42]>(&HEADER));
                burst.push(buffer, requests[number % REQUESTS]);
                burst.gather(window.segment(number as u64 * u64::from(LEN), LEN).expect("inside the window"));
            }
            let posted = nic.tx(0).post(&mut burst).expect("it posts");
            assert_eq!(posted, BURST);
        });
        device.complete();
        measured(&mut || assert_eq!(nic.tx(0).reap().expect("it reaps"), BURST));
    }
    nic.space().unmap(window).expect("it unmaps");
}

const UDP: Offload =
    Offload { flags: OffloadFlags::IPV4_CHECKSUM.union(OffloadFlags::UDP_CHECKSUM), ip_start: 14, l4_start: 34, ..Offload::NONE };
const TCP: Offload = Offload { flags: OffloadFlags::IPV4_CHECKSUM.union(OffloadFlags::TCP_CHECKSUM), ..UDP };
const TSO: Offload = Offload { flags: OffloadFlags::TCP4_SEGMENTATION, payload_start: 54, mss: 1448, ..UDP };

fn two_segments<D: Idle>(bursts: usize) {
    segments::<D, 1400, 1>(bursts, [UDP]);
}

/// No frame has the context that the one before it had.
fn alternating(bursts: usize) {
    segments::<IdleDevice, 1400, 2>(bursts, [UDP, TCP]);
}

fn segmentation(bursts: usize) {
    segments::<IdleDevice, 14_480, 1>(bursts, [TSO]);
}

fn bench_64(bursts: usize) {
    bench_tx(bursts, &[]);
}

fn bench_two(bursts: usize) {
    bench_tx(bursts, &[1400]);
}

/// What `pagewire bench tx` does in one turn: reap, build a burst, post.
fn bench_tx(bursts: usize, rest: &[u32]) {
    let Bench { device, mut nic, mut pool } = bench::<IdleDevice>();
    let file = tempfile::tempfile().expect("a file");
    let window = nic.space().map_file(file.as_fd(), 0..4096).expect("it maps");
    let rest = rest.iter().map(|len| window.segment(0, *len).expect("inside the window")).collect();
    let mut transmitter = Transmitter::new(nic.tx(0), &mut pool, Shape::new(64, rest), BURST);
    for _ in 0..bursts {
        measured(&mut || assert!(transmitter.poll().expect("it goes on")));
        device.complete();
    }
    drop(transmitter);
    nic.space().unmap(window).expect("it unmaps");
}

/// What `pagewire bench forward` does in one turn: receive a burst, send it on, give the queue buffers, reap. On the models, since the idle devices
/// receive nothing; without the e1000's two doorbells a burst, see [`counting`].
fn forward(bursts: usize) {
    let model = E1000Model::new("52:54:00:00:00:01".parse().expect("an address"));
    let nic = E1000::start(model.device(), E1000Config::default()).expect("it starts");
    forward_on(nic, bursts, |frame| model.receive(frame), || drop(model.step()));
}

/// The same on virtio, in order and without doorbells, as DPDK's back end.
fn virtio_forward<const PACKED: bool>(bursts: usize) {
    let layout = if PACKED { Features::RING_PACKED } else { Features::empty() };
    let features = (Features::USUAL - Features::ORDER_PLATFORM - Features::CTRL_VQ) | Features::IN_ORDER | layout;
    let model = VirtioNetModel::with(ModelConfig { features, ..ModelConfig::default() });
    model.set_notify(Notify::Never);
    let config = VirtioNetConfig { rx_buffer: PoolConfig::default().buffer_size, ..VirtioNetConfig::default() };
    let nic = VirtioNet::start(model.transport(), config).expect("it starts");
    forward_on(nic, bursts, |frame| model.receive(frame), || drop(model.step()));
}

fn forward_on(mut nic: impl Nic, bursts: usize, receive: impl Fn(&[u8]) -> Received, step: impl Fn()) {
    let mut pool = Pool::new(PoolConfig::default()).expect("memory");
    nic.attach_pool(pool.attach(&nic.space()).expect("it attaches")).expect("the same space");
    nic.rx(0).refill(&mut pool).expect("it takes buffers");
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&nic.mac().0);
    let (mut arrived, mut burst) = (RxBurst::unread(BURST), Burst::with_capacity(BURST));
    for _ in 0..bursts {
        (0..BURST).for_each(|_| assert_eq!(receive(&frame), Received::Delivered));
        measured(&mut || {
            assert_eq!(nic.rx(0).receive(&mut arrived, BURST).expect("it receives"), BURST);
            arrived.forward(&mut burst);
            nic.rx(0).refill(&mut pool).expect("it takes buffers");
            assert_eq!(nic.tx(0).post(&mut burst).expect("it posts"), BURST);
        });
        step();
        measured(&mut || assert_eq!(nic.tx(0).reap().expect("it reaps"), BURST));
    }
}

fn udp_raw(bursts: usize) {
    udp(bursts, Framing::Raw);
}

fn udp_offset(bursts: usize) {
    udp(bursts, Framing::Offset);
}

/// The whole way from a file range to posted descriptors: windows, headers, answers to whoever asks, completions.
fn udp(bursts: usize, framing: Framing) {
    let device = IdleDevice::new("52:54:00:00:00:01".parse().expect("an address"));
    let nic = E1000::start(device.device(), E1000Config::default()).expect("it starts");
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().expect("an address"), None, 1500, None).expect("an interface");
    let mut port = Port::new(Box::new(nic), interface, PortConfig::default()).expect("a port");
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(64 << 20).expect("room");
    let options = UdpOptions {
        station: Some("52:54:00:00:00:02".parse().expect("an address")),
        framing,
        ..UdpOptions::to("192.0.2.2:9000".parse().expect("an address"))
    };
    let source = Source::open(file.path()).expect("it opens");
    let mut send = UdpSend::new(&mut port, source, options, Duration::ZERO).expect("a send");
    for number in 0..bursts as u64 {
        let now = Duration::from_micros(number);
        measured(&mut || assert_eq!(send.step(now).expect("it goes on"), Step::Busy));
        device.complete();
    }
}
