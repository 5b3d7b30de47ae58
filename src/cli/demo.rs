//! `pagewire demo`: a real file through the simulated NIC, checked frame by frame; then by TCP.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hal::MacAddress;
use hw_sim::rig::{Rig, RigConfig};
use hw_sim::wire::{self, HostWire, WireConfig};
use pagewire::device::{self, BusAddress, DeviceAddress, OpenOptions};
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::receive::{hash_of, hex};
use pagewire::send::{Framing, Port, PortConfig, Report, Stop, UdpOptions, UdpSend, Wait, run};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::demo_serve::{self, Served};
use super::{Failure, Outcome, interrupted, print, print_json, progress, refuse_capture_into, stop_flag, table};

/// Send a real file through a simulated NIC, check every frame and the whole, and serve it to a TCP client
///
/// The simulated NIC reads the file's own page-cache pages. Every frame that it puts on the wire is parsed and its checksums are verified by an independent parser
/// (etherparse); the SHA-256 of what arrived is compared with the file's. Then a second simulated NIC serves the file over HTTP, as `pagewire serve` does, and an
/// ordinary TCP client (a socket of this process) downloads it.
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire demo
    pagewire demo film.mkv --pcap frames.pcap
    pagewire demo --nic sim:virtio-net,packed=on")]
pub struct Demo {
    /// The file to send; without it, 64 MiB and a bit of random bytes
    file: Option<PathBuf>,

    /// The simulated NIC: sim:e1000 or sim:virtio-net, with options but without a wire
    #[arg(long, value_name = "ADDRESS", default_value = "sim:e1000")]
    nic: DeviceAddress,

    /// Write every frame into this capture
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The made file: it does not end with a page, so that the last page's way is seen too.
const MADE: usize = (64 << 20) + 1234;

#[derive(Serialize)]
struct Figures<'a> {
    #[serde(flatten)]
    report: &'a Report,
    first_frame_seconds: f64,
    frames_checked: u64,
    sha256_file: &'a str,
    sha256_received: &'a str,
    /// The second part, where the first succeeded.
    served: Option<Served>,
}

impl Demo {
    pub fn run(self) -> Result<Outcome, Failure> {
        let start = Instant::now();
        let stop = stop_flag()?;
        let BusAddress::Simulated(address) = &self.nic.bus else {
            return Err(format!("{}: the demonstration is on a simulated NIC; `pagewire send` uses real ones", self.nic).into());
        };
        if address.wire != HostWire::default() {
            return Err("the demonstration is the other end of its wire; leave wire= out, or use `pagewire send`".into());
        }
        let pcap = self.pcap.as_deref().or(address.pcap.as_deref());
        let say = |text: &str| if self.json { Ok(()) } else { print(text) };
        let made;
        let path = match &self.file {
            Some(path) => path.as_path(),
            None => {
                made = make_file()?;
                &made
            }
        };
        let Source::File(file) = Source::open(path)? else {
            return Err(format!("{}: the demonstration needs a regular file", path.display()).into());
        };
        refuse_capture_into(path, pcap)?;
        say(&format!("file      {} ({})\n", path.display(), table::bytes(file.size())))?;
        let size = file.size();

        let (end, wire) = wire::local();
        let rig = Rig::start(RigConfig { wire: WireConfig::Local(end), pcap: pcap.map(Into::into), ..address.rig() })?;
        let nic = device::start(rig.device()?, false, self.nic.driver, OpenOptions::default())?;
        say(&format!(
            "nic       {} ({}), simulated by QEMU {}\n",
            nic.model(),
            nic.mac(),
            hw_sim::rig::qemu_version().unwrap_or_default()
        ))?;
        let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse()?, None, 1500, None)?;
        let mut port = Port::new(nic, interface, PortConfig::default())?;
        let options = UdpOptions {
            // The checker is nobody who answers ARP, and the simulated receiver needs a second before it hears.
            station: Some(MacAddress([0x52, 0x54, 0, 0, 0, 0x99])),
            framing: Framing::Offset,
            ..UdpOptions::to("192.0.2.2:9000".parse()?)
        };
        let mut send = UdpSend::new(&mut port, Source::File(file), options, start.elapsed())?;

        let bar = progress::bar(Some(size), self.json);
        let ended = AtomicBool::new(false);
        let (report, check, ready) = std::thread::scope(|scope| {
            let checker = scope.spawn(|| Check::of(&wire, size, &ended, start));
            // The second NIC starts meanwhile: its receiver hears only after a second.
            let ready = scope.spawn(|| demo_serve::prepare(address, self.nic.driver));
            let mut report = run(&mut send, Wait::default(), &stop, |progress| bar.set_position(progress.bytes));
            if report.stopped == Stop::Complete
                && let Err(error) = rig.drain()
            {
                report.stopped = Stop::Failed(error.to_string());
            }
            ended.store(true, Ordering::Release);
            (report, checker.join(), ready.join())
        });
        bar.finish_and_clear();
        let check = check.map_err(|_| "the checker panicked")?;
        let sha256_file = hash_of(&mut File::open(path)?)?;

        let verdict = match (&report.stopped, &check.fault) {
            _ if interrupted(&stop) => Ok(()),
            (_, Some(fault)) => Err(format!("frame {} is wrong: {fault}", check.frames + 1)),
            (Stop::Failed(why) | Stop::FileChanged(why), None) => Err(why.clone()),
            (Stop::Complete, None) if check.bytes == size && check.sha256 == sha256_file => Ok(()),
            _ => Err(format!("{} of {size} bytes arrived; the hashes differ", check.bytes)),
        };
        let mut figures = Figures {
            report: &report,
            first_frame_seconds: check.first_frame.unwrap_or_default().as_secs_f64(),
            frames_checked: check.frames,
            sha256_file: &sha256_file,
            sha256_received: &check.sha256,
            served: None,
        };
        say(&format!("\n{}", table::render(&rows(&figures))))?;
        let mut outcome = verdict.map_err(Failure::from);
        if outcome.is_ok() && !interrupted(&stop) {
            say("\nEvery frame is right, and what arrived is the file.\n")?;
            let ready = ready.map_err(|_| "the second NIC's thread panicked")??;
            match ready.serve(path, &stop) {
                Ok(served) => figures.served = served,
                Err(failure) => outcome = Err(failure),
            }
        }
        if let Some(served) = &figures.served {
            say(&format!("\nserved    {}, from a second simulated NIC to a TCP socket\n\n{}", served.url, table::render(&served.rows())))?;
            if served.sha256_downloaded == sha256_file {
                say("\nWhat an ordinary TCP client downloaded is the file.\n")?;
            } else {
                outcome = Err("what was downloaded is not the file; the hashes differ".into());
            }
        }
        if self.json {
            print_json(&figures)?;
        }
        outcome.map(|()| if interrupted(&stop) { Outcome::Interrupted } else { Outcome::Done })
    }
}

fn rows(figures: &Figures<'_>) -> Vec<(&'static str, String)> {
    let mut rows = table::send_rows(figures.report);
    rows.extend([
        ("first frame after", format!("{:.3} s", figures.first_frame_seconds)),
        ("frames checked", table::grouped(figures.frames_checked)),
        ("sha256 of the file", figures.sha256_file.to_owned()),
        ("sha256 received", figures.sha256_received.to_owned()),
    ]);
    rows
}

/// A file of random bytes that is removed in the end.
fn make_file() -> io::Result<tempfile::TempPath> {
    let file = tempfile::Builder::new().prefix("pagewire-demo-").suffix(".bin").tempfile()?;
    let mut out = file.as_file();
    let mut block = [0; 64 << 10];
    let mut left = MADE;
    while left > 0 {
        let part = &mut block[..left.min(64 << 10)];
        fastrand::fill(part);
        out.write_all(part)?;
        left -= part.len();
    }
    // Closed, since a file that is open for writing has no lease.
    Ok(file.into_temp_path())
}

/// What the far end of the wire saw.
#[derive(Default)]
struct Check {
    frames: u64,
    bytes: u64,
    first_frame: Option<Duration>,
    sha256: String,
    fault: Option<String>,
}

impl Check {
    /// Takes frames off the wire until the file is whole, or a frame is wrong, or nothing comes after the send has ended.
    fn of(wire: &wire::Wire, size: u64, ended: &AtomicBool, start: Instant) -> Self {
        let mut check = Self::default();
        let mut hash = Sha256::new();
        while check.bytes < size {
            let over = ended.load(Ordering::Acquire);
            let Some(frame) = wire.receive(Duration::from_millis(100)) else {
                if over {
                    break;
                }
                continue;
            };
            check.first_frame.get_or_insert_with(|| start.elapsed());
            match datagram(&frame, check.bytes) {
                Ok(data) => {
                    hash.update(data);
                    check.frames += 1;
                    check.bytes += data.len() as u64;
                }
                Err(fault) => {
                    check.fault = Some(fault);
                    break;
                }
            }
        }
        check.sha256 = hex(&hash.finalize());
        check
    }
}

/// The file bytes of a frame, if it is the one that has to come next.
fn datagram(frame: &[u8], expected: u64) -> Result<&[u8], String> {
    let checked = wire::check(frame).map_err(|error| error.to_string())?;
    let (prefix, data) = frame[checked.payload].split_first_chunk().ok_or("a datagram without an offset")?;
    match u64::from_be_bytes(*prefix) {
        offset if offset == expected => Ok(data),
        offset => Err(format!("it has offset {offset}, but {expected} comes next")),
    }
}
