//! Head to head with DPDK's driver: the same device, DPDK's own vhost back end, on one processor, the driver on another.
//!
//! ```text
//! cargo bench --bench dpdk                  a table; fails where a target is missed
//! cargo bench --bench dpdk -- CASE...       only cases whose names begin so
//! ```
//! Needs Linux on two processors with nothing else to do, the Debian package `dpdk`, and root for huge pages (`echo 512 > /proc/sys/vm/nr_hugepages`). The rate
//! is what the device counts, for both drivers. They take turns; medians and best turns are told, and the best are compared: on some machines the cost of
//! a cache line that goes from one processor to the other changes fourfold for seconds at a time, for both drivers. Cycles are what each driver says of itself: DPDK's testpmd
//! counts its whole loop, `pagewire bench` the polls that did something. Only ratios of one run on one machine mean anything.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often each driver has its turn, and how long.
const ROUNDS: usize = 4;
const SECONDS: u64 = 4;
/// What both memory allocators of DPDK take.
const HUGE_PAGES: u64 = 256;

struct Case {
    name: &'static str,
    /// What the device does with what it receives.
    device: &'static str,
    /// Queue pairs of the device.
    queues: u16,
    /// How testpmd starts as the driver, and its ways to be one.
    mode: &'static str,
    start: &'static str,
    sizes: &'static str,
    dpdk: &'static [&'static str],
    /// The arguments of `pagewire bench`.
    own: &'static [&'static str],
    /// The least rate, of DPDK's best.
    rate: f64,
    /// The most cycles a packet, and of those of DPDK's best in cycles.
    cycles: Option<f64>,
    share: Option<f64>,
}

/// The layouts of pagewire's rings.
const LAYOUTS: [&str; 2] = [",packed=off", ",packed=on"];

const ALL: &[&str] = &["", ",packed_vq=1", ",packed_vq=1,in_order=1,vectorized=1"];
const PLAIN: Case = Case {
    name: "64 bytes",
    device: "rxonly",
    queues: 1,
    mode: "txonly",
    start: "start",
    sizes: "64",
    dpdk: ALL,
    own: &["tx", "--burst", "32", "--size", "64"],
    rate: 1.05,
    cycles: Some(40.0),
    share: None,
};
const CASES: [Case; 4] = [
    PLAIN,
    Case {
        name: "two segments, 64 + 1400",
        sizes: "64,1400",
        own: &["tx", "--burst", "32", "--size", "64,1400"],
        rate: 1.0,
        cycles: None,
        share: Some(0.6),
        ..PLAIN
    },
    Case {
        name: "loop-back, 256 frames",
        device: "io",
        mode: "io",
        start: "start tx_first 8",
        own: &["forward", "--burst", "32", "--inject", "256"],
        rate: 1.0,
        cycles: Some(80.0),
        share: Some(0.6),
        ..PLAIN
    },
    Case {
        name: "latency, one frame",
        device: "io",
        mode: "io",
        start: "set burst 1\nstart tx_first 1",
        own: &["latency"],
        rate: 1.0,
        cycles: None,
        ..PLAIN
    },
];

/// What connected queues that carry nothing, two pairs of them, may add to the driver's cycles a packet.
const IDLE: Case = Case { name: "4 idle queues", queues: 3, ..PLAIN };
const IDLE_SHARE: f64 = 0.05;
/// How often a driver with them and one without take turns, and how long: short, since the pairs are compared.
const IDLE_ROUNDS: usize = 10;

/// What one turn came to: packets a second by the device's count, cycles a packet by the driver's.
type Turn = (f64, f64);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let testpmd = hw_sim::install::tool("dpdk-testpmd", "dpdk").unwrap_or_else(|error| panic!("{error}"));
    let pages = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    assert!(pages >= HUGE_PAGES, "{pages} huge pages, and DPDK takes {HUGE_PAGES}: echo 512 > /proc/sys/vm/nr_hugepages");
    assert!(std::thread::available_parallelism().is_ok_and(|count| count.get() > 1), "device and driver need a processor each");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut missed = false;
    println!("{:<26} {:<46} {:>8} {:>8} {:>8} {:>8}", "", "", "Mpps", "", "cycles", "");
    println!("{:<26} {:<46} {:>8} {:>8} {:>8} {:>8}", "case", "driver", "median", "best", "median", "best");
    let is_wanted = |case: &Case| wanted.is_empty() || wanted.iter().any(|name| case.name.starts_with(name));
    for case in CASES.iter().filter(|case| is_wanted(case)) {
        let device = Device::start(&testpmd, folder.path(), case);
        let (mut dpdk, mut own) = (vec![Vec::new(); case.dpdk.len()], vec![Vec::new(); LAYOUTS.len()]);
        for _ in 0..ROUNDS {
            case.dpdk.iter().zip(&mut dpdk).for_each(|(extra, turns)| turns.push(device.dpdk(&testpmd, case, extra)));
            LAYOUTS.iter().zip(&mut own).for_each(|(layout, turns)| turns.push(device.own(case, layout, SECONDS + 1, &[])));
        }
        let rows = |name: &str, options: &[&str], turns: Vec<Vec<Turn>>| {
            let best = |turns: &[Turn]| {
                turns.iter().fold((0.0, f64::INFINITY), |(rate, cycles): Turn, turn| (rate.max(turn.0), cycles.min(turn.1)))
            };
            for (option, turns) in options.iter().zip(&turns) {
                let (rate, cycles) = medians(turns);
                let (most, least) = best(turns);
                println!("{:<26} {:<46} {rate:>8.2} {:>8.2} {cycles:>8.1} {least:>8.1}", case.name, format!("{name}{option}"), most / 1e6);
            }
            best(&turns.concat())
        };
        let (theirs, their_cycles) = rows("DPDK", case.dpdk, dpdk);
        let (rate, cycles) = rows("pagewire", &LAYOUTS, own);
        let most = case.cycles.unwrap_or(f64::INFINITY).min(case.share.map_or(f64::INFINITY, |share| share * their_cycles));
        let met = rate >= case.rate * theirs && cycles <= most;
        missed |= !met;
        println!(
            "{:<26} {:.2} of DPDK's best rate (target {}), {cycles:.1} cycles (target {most:.1}): {}",
            case.name,
            rate / theirs,
            case.rate,
            if met { "met" } else { "MISSED" }
        );
    }
    if is_wanted(&IDLE) {
        let device = Device::start(&testpmd, folder.path(), &IDLE);
        missed |= LAYOUTS.iter().fold(false, |missed, layout| missed | !idle(&device, layout));
    }
    assert!(!missed, "a target was missed");
}

/// Whether idle queues cost no more than they may. A device that has them looks at them, too, which is why there is one for both drivers, and only the driver's
/// cycles are compared: those of neighbouring turns, since what a cache line costs may change meanwhile.
fn idle(device: &Device, layout: &str) -> bool {
    let mut turns = [Vec::new(), Vec::new()];
    let mut shares = Vec::new();
    for _ in 0..IDLE_ROUNDS {
        let [without, with] = ["0", "2"].map(|pairs| device.own(&IDLE, layout, 1, &["--idle", pairs]));
        turns[0].push(without);
        turns[1].push(with);
        shares.push(with.1 / without.1);
    }
    for (name, turns) in ["no idle queue", "4 idle queues"].iter().zip(&turns) {
        let (rate, cycles) = medians(turns);
        println!("{:<26} {:<46} {rate:>8.2} {cycles:>8.1}", IDLE.name, format!("pagewire{layout}, {name}"));
    }
    let share = median(shares.into_iter()) - 1.0;
    let met = share < IDLE_SHARE;
    println!("{:<26} {:+.1} % (target {:.0} %): {}", IDLE.name, share * 100.0, IDLE_SHARE * 100.0, if met { "met" } else { "MISSED" });
    met
}

/// Of the rates, in Mpps, and of the cycles.
fn medians(turns: &[Turn]) -> (f64, f64) {
    (median(turns.iter().map(|turn| turn.0)) / 1e6, median(turns.iter().map(|turn| turn.1)))
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// testpmd on a processor of its own: this program's threads are its main one and the one that works.
fn on(testpmd: &Path, processor: u8, name: &str) -> Command {
    // By lines, since rates are told by when they come; stdbuf becomes testpmd.
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(testpmd).args([
        "--lcores",
        &format!("0@{processor},1@{processor}"),
        "-n",
        "1",
        "--no-pci",
        "--in-memory",
        "-m",
        "256",
    ]);
    command.arg(format!("--file-prefix=pagewire-{name}-{}", std::process::id()));
    command
}

/// The device, and the rates that it reported.
struct Device {
    child: Child,
    socket: PathBuf,
    rates: Arc<Mutex<Vec<(Instant, f64)>>>,
}

impl Device {
    fn start(testpmd: &Path, folder: &Path, case: &Case) -> Self {
        // testpmd does not take a socket that another one left.
        let socket = folder.join(format!("{} {}", case.queues, case.name).replace([' ', ',', '+'], "-"));
        let mut command = on(testpmd, 0, "device");
        command.args(["--vdev", &format!("net_vhost0,iface={},queues={}", socket.display(), case.queues), "--"]);
        command.args([&format!("--forward-mode={}", case.device), "--stats-period=1", "--nb-cores=1"]);
        command.args([format!("--rxq={}", case.queues), format!("--txq={}", case.queues)]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("testpmd starts");
        let output = child.stdout.take().expect("a pipe");
        let rates: Arc<Mutex<Vec<(Instant, f64)>>> = Arc::default();
        let reported = Arc::clone(&rates);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let rate = line.split_once("Rx-pps:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
                rate.into_iter().for_each(|rate: f64| reported.lock().expect("no panic").push((Instant::now(), rate)));
            }
        });
        let device = Self { child, socket, rates };
        let start = Instant::now();
        while device.rates.lock().expect("no panic").is_empty() {
            assert!(start.elapsed() < Duration::from_secs(30), "testpmd did not start as a device");
            sleep(Duration::from_millis(50));
        }
        device
    }

    /// The median of the rates since `start`, without those of its beginning and its end.
    fn rate(&self, start: Instant) -> f64 {
        let rates = self.rates.lock().expect("no panic");
        let turns: Vec<f64> = rates.iter().filter(|(at, rate)| *at > start && *rate > 0.0).map(|(_, rate)| *rate).collect();
        assert!(!turns.is_empty(), "the device received nothing in {:?}", start.elapsed());
        let ends = usize::from(turns.len() > 2);
        median(turns[ends..turns.len() - ends].iter().copied())
    }

    fn dpdk(&self, testpmd: &Path, case: &Case, extra: &str) -> Turn {
        let mut command = on(testpmd, 1, "driver");
        command.args([
            "--single-file-segments",
            "--vdev",
            &format!("net_virtio_user0,path={},queues=1{extra}", self.socket.display()),
            "--",
        ]);
        command.args([
            "-i",
            "--nb-cores=1",
            "--record-core-cycles",
            &format!("--forward-mode={}", case.mode),
            &format!("--txpkts={}", case.sizes),
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("testpmd starts");
        let mut input = child.stdin.take().expect("a pipe");
        let start = Instant::now();
        writeln!(input, "{}", case.start).expect("testpmd listens");
        // It takes a second or two to come up.
        sleep(Duration::from_secs(SECONDS + 2));
        write!(input, "stop\nquit\n").expect("testpmd listens");
        let output = child.wait_with_output().expect("testpmd ends");
        let rate = self.rate(start);
        let text = String::from_utf8_lossy(&output.stdout);
        let cycles = text.rsplit_once("CPU cycles/packet=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        (rate, cycles.unwrap_or_else(|| panic!("testpmd told no cycles:\n{text}")))
    }

    fn own(&self, case: &Case, layout: &str, seconds: u64, more: &[&str]) -> Turn {
        let start = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .arg("bench")
            .args(case.own)
            .args(more)
            .args(["--cpu", "1", "--json", "--seconds", &seconds.to_string()])
            .args(["--nic", &format!("vhost-user:{}{layout}", self.socket.display())])
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        let cycles = figures["cycles_per_packet"].as_f64().expect("cycles");
        // A short turn may lie between two reports of the device.
        let rate = if seconds > 2 { self.rate(start) } else { figures["pps"].as_f64().expect("a rate") };
        (rate, cycles)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Ours alone; what it leaves is in memory that goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
