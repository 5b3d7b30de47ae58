//! `pagewire bench`: what a NIC and its driver do.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use pagewire::bench::{BenchError, Figures, Forwarding, LARGEST_BURST, Load, Session, html};
use pagewire::device::{self, Device, DeviceAddress, OpenOptions};
use serde::Serialize;

use super::{Failure, Outcome, interrupted, print, print_json, stop_flag, table};

/// Measure a NIC and its driver
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire bench tx --nic pci:0000:03:00.0 --size 64,1400 --json
    pagewire bench tx --nic sim:e1000 --sweep burst --seconds 1 --report curves.html
    pagewire bench forward --nic sim:e1000,wire=dgram:/tmp/a:/tmp/b
    pagewire bench latency --nic sim:e1000,wire=dgram:/tmp/b:/tmp/a

Cycles are those of the time-stamp counter (nanoseconds on other processors than x86-64), counted around polls that did something; polls that
found nothing to do are told beside. It always polls, as testpmd does: how to wait is chosen where there is something to wait for (--wait of
send and serve). On the simulator a doorbell is a message to QEMU, so the rate is QEMU's. In a guest whose clock
counts instructions (pagewire vm --icount) cycles are instructions.")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Tx(Tx),
    Map(super::bench_map::Map),
    Rx(Rx),
    Forward(Forward),
    Latency(Latency),
}

/// Transmit: what testpmd's txonly does for every packet (a pool buffer, 42 header bytes, posted, reaped)
#[derive(Args)]
struct Tx {
    /// The NIC
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    #[command(flatten)]
    size: Size,

    #[command(flatten)]
    burst: Burst,

    /// The headers are written once, beforehand: another figure, not to be compared with testpmd's or with those without
    #[arg(long)]
    prebuilt: bool,

    /// Pairs of queues besides that the first one's thread serves, and over which nothing goes: what do they cost?
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=127))]
    idle: u16,

    #[command(flatten)]
    common: Common,
}

/// Receive: count what arrives, whoever it is for, and drop it
#[derive(Args)]
struct Rx {
    /// The NIC
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    #[command(flatten)]
    burst: Burst,

    #[command(flatten)]
    common: Common,
}

/// Forward without a copy: from one NIC to the other, both ways; with one NIC, back where it came from (testpmd's io and macswap)
#[derive(Args)]
struct Forward {
    /// The NIC, or the two
    #[arg(long = "nic", value_name = "ADDRESS", required = true)]
    nics: Vec<DeviceAddress>,

    /// Bytes of a packet that is injected
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,

    #[command(flatten)]
    burst: Burst,

    /// Exchange the Ethernet addresses of each packet
    #[arg(long)]
    mac_swap: bool,

    /// Packets that each NIC and queue sends at the start, to go around when the other end sends them back
    #[arg(long, value_name = "N", default_value_t = 0)]
    inject: usize,

    #[command(flatten)]
    common: Common,
}

/// Round trips of one packet that the other end sends back: percentiles, and the mean, which is 1 / pps
#[derive(Args)]
struct Latency {
    /// The NIC
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    #[command(flatten)]
    size: Size,

    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Size {
    /// Bytes of a packet's segments; the first has the headers, the others are gathered from a file
    #[arg(long = "size", value_name = "BYTES[,BYTES]...", value_delimiter = ',', default_value = "64")]
    segments: Vec<u32>,
}

#[derive(Args)]
struct Burst {
    /// Packets handled together and handed over with one doorbell, 1 to 256
    #[arg(long = "burst", value_name = "N", default_value_t = 32)]
    packets: usize,

    /// Measure again and again, with bursts of 1, 2, 4 and so on to 256, each for --seconds
    #[arg(long, value_name = "WHAT", conflicts_with = "packets")]
    sweep: Option<Sweep>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sweep {
    Burst,
}

#[derive(Args)]
struct Common {
    /// For how long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Pairs of a transmit and a receive queue, each with a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    queues: u16,

    /// Processors to pin the queues' threads to, one for each: 2 or 0,2-3
    #[arg(long = "cpu", value_name = "LIST")]
    cpus: Option<Cpus>,

    /// Write a page with the curves, which needs no network to be looked at
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Processors by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cpus(Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().map(usize::from).map_err(|_| format!("{text:?} is not a processor's number"));
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => cpus.push(number(part)?),
                Some((first, last)) => {
                    let range = number(first)?..=number(last)?;
                    if range.is_empty() {
                        return Err(format!("{part} ends before it begins"));
                    }
                    cpus.extend(range);
                }
            }
        }
        Ok(Self(cpus))
    }
}

impl Bench {
    pub fn run(self) -> Result<Outcome, Failure> {
        match self.what {
            What::Map(map) => map.run(),
            What::Tx(Tx { nic, size, burst, prebuilt, idle, common }) => {
                let run = Run { name: format!("transmission by {nic}"), nics: vec![nic], segments: size.segments, burst, idle, common };
                run.measure(false, |session, load, stop| session.transmit(load, prebuilt, stop))
            }
            What::Rx(Rx { nic, burst, common }) => {
                let run = Run { name: format!("reception by {nic}"), nics: vec![nic], segments: vec![64], burst, idle: 0, common };
                run.measure(true, |session, load, stop| session.receive(load, stop))
            }
            What::Forward(Forward { nics, size, burst, mac_swap, inject, common }) => {
                let names: Vec<String> = nics.iter().map(DeviceAddress::to_string).collect();
                let name = format!("forwarding by {}", names.join(" and "));
                let run = Run { name, nics, segments: vec![size], burst, idle: 0, common };
                run.measure(true, |session, load, stop| session.forward(load, Forwarding { mac_swap, inject }, stop))
            }
            What::Latency(Latency { nic, size, common }) => {
                let (name, burst) = (format!("round trips from {nic}"), Burst { packets: 1, sweep: None });
                let run = Run { name, nics: vec![nic], segments: size.segments, burst, idle: 0, common };
                run.measure(true, |session, load, stop| session.latency(load, stop))
            }
        }
    }
}

/// A measurement, or several.
struct Run {
    name: String,
    nics: Vec<DeviceAddress>,
    segments: Vec<u32>,
    burst: Burst,
    /// Queues that carry nothing.
    idle: u16,
    common: Common,
}

/// What a sweep prints.
#[derive(Serialize)]
struct Points<'f> {
    sweep: &'static str,
    points: &'f [Figures],
}

/// An IP packet without its Ethernet header is what an MTU counts.
const ETHERNET: u32 = 14;

impl Run {
    fn measure(
        self,
        promiscuous: bool,
        measure: impl Fn(&mut Session, &Load, &std::sync::atomic::AtomicBool) -> Result<Figures, BenchError>,
    ) -> Result<Outcome, Failure> {
        let stop = stop_flag()?;
        let Common { seconds, queues, cpus, report, json } = self.common;
        let cpus = cpus.map_or_else(Vec::new, |Cpus(cpus)| cpus);
        // What can be wrong with it is found out before anything is measured.
        let report = report.map(ReportFile::open).transpose()?;
        let bytes = self.segments.iter().fold(0, |bytes: u32, segment| bytes.saturating_add(*segment));
        // Packets of the usual size need nothing of the NIC but what it has anyway.
        let mtu = (bytes > ETHERNET + 1500).then(|| u16::try_from(bytes - ETHERNET).unwrap_or(u16::MAX));
        let mut nics = Vec::with_capacity(self.nics.len());
        // They simulate the NICs until the end.
        let mut rigs = Vec::new();
        for address in &self.nics {
            let options = OpenOptions {
                mtu,
                queues: queues.saturating_add(self.idle),
                promiscuous,
                stop: Some(Arc::clone(&stop)),
                ..OpenOptions::default()
            };
            let Device { nic, rig } = device::open(address, options)?;
            nics.push(nic);
            rigs.push(rig);
        }
        let mut session = Session::with_idle(nics, queues.into(), self.idle.into())?;
        let bursts = match self.burst.sweep {
            Some(Sweep::Burst) => {
                std::iter::successors(Some(1), |burst| Some(burst * 2)).take_while(|burst| *burst <= LARGEST_BURST).collect()
            }
            None => vec![self.burst.packets],
        };
        let (mut points, mut failed) = (Vec::with_capacity(bursts.len()), None);
        for burst in bursts {
            let load = Load { segments: self.segments.clone(), burst, duration: Duration::from_secs(seconds), cpus: cpus.clone() };
            match measure(&mut session, &load, &stop) {
                Ok(figures) => points.push(figures),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || interrupted(&stop) {
                break;
            }
        }
        drop(session);
        if points.is_empty()
            && let Some(error) = failed
        {
            return Err(error.into());
        }
        // What was measured is told, also when something came after it.
        match (self.burst.sweep, json) {
            (Some(_), true) => print_json(&Points { sweep: "burst", points: &points })?,
            (None, true) => points.iter().try_for_each(print_json)?,
            (Some(_), false) => print(&curve(&points))?,
            (None, false) => points.iter().try_for_each(|figures| print(&table::render(&rows(figures))))?,
        }
        if let Some(report) = report {
            report.write(&html(&format!("pagewire bench: {}", self.name), &points))?;
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(if interrupted(&stop) { Outcome::Interrupted } else { Outcome::Done })
    }
}

/// Where the report goes. An older one stays until there is a new one.
struct ReportFile {
    path: PathBuf,
    file: File,
    /// There was none, and nothing is written yet.
    fresh: bool,
}

impl ReportFile {
    fn open(path: PathBuf) -> Result<Self, String> {
        let fresh = !path.exists();
        match File::options().write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(Self { path, file, fresh }),
            Err(error) => Err(format!("the report {}: {error}", path.display())),
        }
    }

    fn write(mut self, page: &str) -> Result<(), String> {
        // What is no file (a pipe, a terminal) has no length.
        let _ = self.file.set_len(0);
        self.file.write_all(page.as_bytes()).map_err(|error| format!("the report {}: {error}", self.path.display()))?;
        self.fresh = false;
        Ok(())
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.fresh {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Seconds for which an end of a measurement with nothing to do is worth a word.
const QUIET: f64 = 0.1;

fn rows(figures: &Figures) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("packets", table::grouped(figures.frames)),
        ("packets a second", table::grouped(figures.pps as u64)),
        ("rate", table::rate(figures.bits_per_second)),
        ("driver", format!("{:.1} cycles a packet ({:.1} ns)", figures.cycles_per_packet, figures.busy_ns_per_frame)),
        ("polls", format!("{} with work, {} idle", table::grouped(figures.busy_polls), table::grouped(figures.idle_polls))),
        ("doorbells", table::grouped(figures.doorbells)),
        ("descriptors", table::grouped(figures.descriptors)),
        ("drops", table::grouped(figures.drops)),
        ("time", format!("{:.3} s", figures.seconds)),
    ];
    if figures.quiet_seconds >= QUIET {
        rows.push((
            "quiet",
            format!(
                "nothing came or went in the last {:.3} s: the device or the other end stands still, or nobody sends",
                figures.quiet_seconds
            ),
        ));
    }
    if let Some(latency) = figures.latency {
        let micros = |nanos: u64| format!("{:.1}", nanos as f64 / 1e3);
        let [p50, p90, p99, p99_9] = [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p99_9_ns].map(micros);
        rows.push((
            "round trip",
            format!("{:.1} µs on average, {} to {}", latency.mean_ns / 1e3, micros(latency.min_ns), micros(latency.max_ns)),
        ));
        rows.push(("percentiles", format!("50: {p50}, 90: {p90}, 99: {p99}, 99.9: {p99_9} µs")));
    }
    if figures.prebuilt {
        rows.push(("headers", "written beforehand: not comparable".into()));
    }
    rows
}

/// A line for each burst.
fn curve(points: &[Figures]) -> String {
    let mut text = format!("{:>5} {:>16} {:>16} {:>12} {:>12}\n", "burst", "packets/s", "cycles/packet", "doorbells", "drops");
    for point in points {
        let (pps, doorbells, drops) = (table::grouped(point.pps as u64), table::grouped(point.doorbells), table::grouped(point.drops));
        text += &format!("{:>5} {pps:>16} {:>16.1} {doorbells:>12} {drops:>12}", point.burst, point.cycles_per_packet);
        text +=
            &if point.quiet_seconds >= QUIET { format!("  quiet for the last {:.3} s\n", point.quiet_seconds) } else { "\n".to_owned() };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!("2".parse(), Ok(Cpus(vec![2])));
        assert_eq!("0,2-4".parse(), Ok(Cpus(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "1,", "3-1", "-1", "99999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_older_report_stays_until_there_is_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let (old, fresh) = (directory.path().join("old"), directory.path().join("fresh"));
        std::fs::write(&old, "a longer text").unwrap();
        drop((ReportFile::open(old.clone()).unwrap(), ReportFile::open(fresh.clone()).unwrap()));
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "a longer text");
        assert!(!fresh.exists());
        for path in [old, fresh] {
            ReportFile::open(path.clone()).unwrap().write("new").unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "new");
        }
        assert!(ReportFile::open(directory.path().join("none/report")).is_err());
    }
}
