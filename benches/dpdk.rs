//! Head to head with DPDK's driver: the same device, DPDK's own vhost back end, on one processor, the driver on another.
//!
//! ```text
//! cargo bench --bench dpdk                  a table; fails where a target is missed
//! cargo bench --bench dpdk -- CASE...       only cases whose names begin so
//! ```
//! Needs Linux on two processors with nothing else to do, the Debian package `dpdk`, and root for huge pages (`echo 512 > /proc/sys/vm/nr_hugepages`). The rate
//! is what the device counts, for both drivers. Cycles are what each driver says of itself: DPDK's testpmd counts its whole loop, `pagewire bench` the polls that
//! did something. Only ratios of one run on one machine mean anything, and on some machines the cost of a cache line that goes from one processor to the
//! other changes fourfold for minutes at a time ([`trip`]). So that is measured before and after each turn, the drivers take turns until each has had
//! some while lines were quick, and the medians of those are compared. Those of turns while lines were slow are told beside.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

mod trip;

/// How many turns each driver has while lines are quick, in how many rounds at most, and how long a turn is.
const TURNS: usize = 3;
const ROUNDS: usize = 12;
const SECONDS: u64 = 3;
/// Lines are slow when a trip takes so many times what the quickest of all did.
const SLOW: u32 = 2;
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
    /// The least rate of the better layout, of DPDK's best.
    rate: f64,
    /// The most cycles a packet with either layout, and of those of DPDK's best with it.
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

/// A driver's turns, each with how long a line's trip took before and after it.
struct Driver {
    name: String,
    /// Whether its rings are packed ones.
    packed: bool,
    turns: Vec<(Duration, Duration, Turn)>,
}

impl Driver {
    fn new(name: &str, options: &str) -> Self {
        let packed = options.contains("packed=on") || options.contains("packed_vq=1");
        Self { name: format!("{name}{options}"), packed, turns: Vec::new() }
    }

    /// Turns while lines were quick.
    fn quick(&self, machine: &Machine) -> Vec<Turn> {
        self.turns
            .iter()
            .filter(|(before, after, _)| machine.is_quick(*before) && machine.is_quick(*after))
            .map(|(_, _, turn)| *turn)
            .collect()
    }

    /// Turns while they were slow. Those in which that changed are in neither.
    fn slow(&self, machine: &Machine) -> Vec<Turn> {
        self.turns
            .iter()
            .filter(|(before, after, _)| !machine.is_quick(*before) && !machine.is_quick(*after))
            .map(|(_, _, turn)| *turn)
            .collect()
    }
}

/// The machine, by the quickest trip of a line between its processors so far.
struct Machine {
    quickest: Duration,
}

impl Machine {
    fn is_quick(&self, trip: Duration) -> bool {
        trip < SLOW * self.quickest
    }

    fn trip(&mut self) -> Duration {
        let trip = trip::measure();
        self.quickest = self.quickest.min(trip);
        trip
    }

    fn turn(&mut self, driver: &mut Driver, turn: impl FnOnce() -> Turn) {
        let before = self.trip();
        let came = turn();
        driver.turns.push((before, self.trip(), came));
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let testpmd = hw_sim::install::tool("dpdk-testpmd", "dpdk").unwrap_or_else(|error| panic!("{error}"));
    let pages = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    assert!(pages >= HUGE_PAGES, "{pages} huge pages, and DPDK takes {HUGE_PAGES}: echo 512 > /proc/sys/vm/nr_hugepages");
    assert!(std::thread::available_parallelism().is_ok_and(|count| count.get() > 1), "device and driver need a processor each");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut missed = false;
    let mut machine = Machine { quickest: trip::measure() };
    println!("{:<24} {:<46} {:^24} {:^24}", "", "medians", "lines are quick", "lines are slow");
    println!("{:<24} {:<46} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6}", "case", "driver", "Mpps", "cycles", "turns", "Mpps", "cycles", "turns");
    let is_wanted = |case: &Case| wanted.is_empty() || wanted.iter().any(|name| case.name.starts_with(name));
    for case in CASES.iter().filter(|case| is_wanted(case)) {
        let device = Device::start(&testpmd, folder.path(), case);
        let mut dpdk: Vec<Driver> = case.dpdk.iter().map(|options| Driver::new("DPDK", options)).collect();
        let mut own = LAYOUTS.map(|layout| Driver::new("pagewire", layout));
        for _ in 0..ROUNDS {
            let has_enough = |driver: &Driver, machine: &Machine| driver.quick(machine).len() >= TURNS;
            for (driver, extra) in dpdk.iter_mut().zip(case.dpdk) {
                if !has_enough(driver, &machine) {
                    machine.turn(driver, || device.dpdk(&testpmd, case, extra));
                }
            }
            for (driver, layout) in own.iter_mut().zip(LAYOUTS) {
                if !has_enough(driver, &machine) {
                    machine.turn(driver, || device.own(case, layout, SECONDS + 1, &[]));
                }
            }
        }
        let met = compare(case, &machine, &dpdk, &own);
        missed |= !met;
    }
    if is_wanted(&IDLE) {
        let device = Device::start(&testpmd, folder.path(), &IDLE);
        missed |= LAYOUTS.iter().fold(false, |missed, layout| missed | !idle(&device, layout));
    }
    assert!(!missed, "a target was missed");
}

/// Tells what came of a case, and whether its targets are met.
fn compare(case: &Case, machine: &Machine, dpdk: &[Driver], own: &[Driver]) -> bool {
    let figures = |turns: &[Turn]| match turns.len() {
        0 => format!("{:>8} {:>8} {:>6}", "-", "-", 0),
        count => {
            let (rate, cycles) = medians(turns);
            format!("{rate:>8.2} {cycles:>8.1} {count:>6}")
        }
    };
    for driver in dpdk.iter().chain(own) {
        println!("{:<24} {:<46} {} {}", case.name, driver.name, figures(&driver.quick(machine)), figures(&driver.slow(machine)));
    }
    let all = |drivers: &[Driver]| -> Option<Vec<(bool, Turn)>> {
        let quick = drivers.iter().map(|driver| (driver.packed, driver.quick(machine)));
        quick.map(|(packed, turns)| (!turns.is_empty()).then(|| (packed, medians(&turns)))).collect()
    };
    let (Some(theirs), Some(ours)) = (all(dpdk), all(own)) else {
        println!("{:<24} lines were hardly ever quick, so the drivers cannot be compared", case.name);
        return false;
    };
    let word = |met: bool| if met { "met" } else { "MISSED" };
    let best = |turns: &[(bool, Turn)]| turns.iter().map(|(_, (rate, _))| *rate).fold(0.0, f64::max);
    let share = best(&ours) / best(&theirs);
    let mut met = share >= case.rate;
    println!("{:<24} {share:.2} of DPDK's best rate (target {}): {}", case.name, case.rate, word(met));
    for (packed, (_, cycles)) in ours {
        let layout = theirs.iter().filter(|(theirs, _)| *theirs == packed).map(|(_, (_, cycles))| *cycles);
        let their_cycles = layout.fold(f64::INFINITY, f64::min);
        let most = case.cycles.unwrap_or(f64::INFINITY).min(case.share.map_or(f64::INFINITY, |share| share * their_cycles));
        if most.is_finite() {
            let (name, few) = (if packed { "packed" } else { "split" }, cycles <= most);
            let share = cycles / their_cycles;
            println!("{:<24} {name}: {cycles:.1} cycles, {share:.2} of DPDK's with it (target {most:.1}): {}", case.name, word(few));
            met &= few;
        }
    }
    met
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
        println!("{:<24} {:<46} {rate:>8.2} {cycles:>8.1}", IDLE.name, format!("pagewire{layout}, {name}"));
    }
    let share = median(shares.into_iter()) - 1.0;
    let met = share < IDLE_SHARE;
    println!("{:<24} {:+.1} % (target {:.0} %): {}", IDLE.name, share * 100.0, IDLE_SHARE * 100.0, if met { "met" } else { "MISSED" });
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
