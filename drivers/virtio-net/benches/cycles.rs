//! What the driver itself costs, in time and processor cycles a frame, on a device that does nothing: pool buffer, 42 header bytes, post, reap.
//!
//! ```text
//! cargo bench -p pagewire-virtio-net --bench cycles [-- CASE]
//! ```
//! The device completes outside the clock. Its memory stays in this processor's caches, so this is what the instructions cost, and not what
//! another processor's accesses add; the best of many short runs is told, since the machine has other things to do.

use std::time::{Duration, Instant};

use hal::{Burst, Mapping, Nic, Offload, OffloadFlags, Pool, PoolConfig, Segment};
use hw_sim::model::idle::IdleVirtio;
use hw_sim::model::virtio::Features;
use virtio_net::{VirtioNet, VirtioNetConfig};

const BURST: usize = 32;
/// Bursts with one look at the clock: seven of them fill a ring of 256 nearly, and three where a frame takes two descriptors.
fn bursts(pieces: usize) -> usize {
    if pieces == 1 { 7 } else { 3 }
}
const ROUNDS: usize = 100;
const RUNS: usize = 200;
/// What is written of every frame.
const HEADER: [u8; 42] = [0x5a; 42];
/// What a frame of 64 bytes may cost.
const TARGET: f64 = 40.0;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let clock = megahertz();
    println!("{:<44} {:>8} {:>8}   (at {clock:.0} MHz)", "a frame, bursts of 32", "ns", "cycles");
    let mut missed = false;
    let usual = Features::USUAL - Features::ORDER_PLATFORM;
    for (layout, features) in [
        ("split", usual),
        ("split, in order", usual | Features::IN_ORDER),
        ("packed", usual | Features::RING_PACKED),
        ("packed, in order", usual | Features::RING_PACKED | Features::IN_ORDER),
    ] {
        for (what, payload, offload) in [
            ("64 bytes", 0, Offload::NONE),
            ("42 bytes + 1400 of a file", 1400, Offload::NONE),
            ("64 bytes, UDP checksum", 0, Offload { flags: OffloadFlags::UDP_CHECKSUM, ip_start: 14, l4_start: 34, ..Offload::NONE }),
        ] {
            let name = format!("{layout}: {what}");
            if wanted.iter().all(|wanted| name.contains(wanted.as_str())) {
                let nanoseconds = Bench::new(features).best(payload, offload);
                let cycles = nanoseconds * clock / 1000.0;
                missed |= payload == 0 && cycles > TARGET;
                println!("{name:<44} {nanoseconds:>8.1} {cycles:>8.1}");
            }
        }
    }
    if missed {
        println!("more than {TARGET} cycles a frame");
    }
}

/// The processor's clock, as the kernel sees it.
fn megahertz() -> f64 {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("cpu MHz")).and_then(|line| line.split(':').nth(1));
    line.and_then(|figure| figure.trim().parse().ok()).unwrap_or(f64::NAN)
}

struct Bench {
    device: IdleVirtio,
    nic: VirtioNet,
    pool: Pool,
}

impl Bench {
    fn new(features: Features) -> Self {
        let device = IdleVirtio::new("52:54:00:00:00:01".parse().expect("an address"), features);
        let mut nic = VirtioNet::start(device.transport(), VirtioNetConfig::default()).expect("it starts");
        let pool = Pool::new(PoolConfig::default()).expect("memory");
        nic.attach_pool(pool.attach(&nic.space()).expect("it attaches")).expect("the same space");
        Self { device, nic, pool }
    }

    /// Nanoseconds a frame, of the quickest run.
    fn best(&mut self, payload: u32, offload: Offload) -> f64 {
        // Nobody reads it: the device does nothing.
        let window = Mapping::new(self.nic.space().domain(), 0x10_0000_0000, 1 << 20);
        let payload = window.segment(100, payload);
        let bursts = bursts(1 + usize::from(payload.is_some()));
        let mut burst = Burst::with_capacity(BURST);
        let best = (0..RUNS).map(|_| self.run(&mut burst, bursts, payload, offload)).min().unwrap_or_default();
        best.as_nanos() as f64 / (ROUNDS * bursts * BURST) as f64
    }

    fn run<'w>(&mut self, burst: &mut Burst<'w>, bursts: usize, payload: Option<Segment<'w>>, offload: Offload) -> Duration {
        let mut time = Duration::ZERO;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..bursts {
                self.post(burst, payload, offload);
            }
            time += start.elapsed();
            self.device.complete();
            let start = Instant::now();
            let frames = self.nic.tx(0).reap().expect("it is reaped");
            time += start.elapsed();
            assert_eq!(frames, bursts * BURST);
        }
        time
    }

    #[inline(never)]
    fn post<'w>(&mut self, burst: &mut Burst<'w>, payload: Option<Segment<'w>>, offload: Offload) {
        for _ in 0..BURST {
            let mut buffer = self.pool.take().expect("a buffer");
            buffer.set(&HEADER);
            if payload.is_none() {
                buffer.set_len(64);
            }
            burst.push(buffer, offload);
            if let Some(payload) = payload {
                burst.gather(payload);
            }
        }
        let posted = self.nic.tx(0).post(burst).expect("it is posted");
        assert_eq!(posted, BURST);
    }
}
