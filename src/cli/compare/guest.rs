//! The half of `pagewire compare` that runs in a guest: sends a file each way and prints what that took.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use kernel_paths::{CHUNK, Sender, Way};
use pagewire::device::{self, Device, DeviceAddress, OpenOptions};
use pagewire::file::Source;
use pagewire::net::{Cidr, Interface};
use pagewire::send::{Port, PortConfig, Report, Stop, TcpOptions, TcpSend, UdpOptions, UdpSend, Wait, run};

use super::measured::{Calls, Driver, Measured, content};
use super::meter::Meter;
use crate::cli::{Failure, Outcome, print_json};

/// The file, in the guest's memory.
const FILE: &str = "/dev/shm/compare";
/// The NIC of this program, and the interface of the kernel.
const NIC: &str = "pci:0000:00:02.0";
const INTERFACE: &str = "eth0";
/// What a UDP datagram carries: an Ethernet frame full.
const DATAGRAM: usize = 1472;

/// What the copying way, the way that maps for each pass, and the way with windows that are there are called.
pub const OURS: [&str; 3] = ["pagewire, copying", "pagewire, cold windows", "pagewire, warm windows"];

/// Runs inside the guest of `pagewire compare`
#[derive(Args)]
pub struct CompareGuest {
    #[arg(long, value_enum)]
    driver: Driver,
    /// The receiver, and its ports: one for each way, in their order
    #[arg(long)]
    receiver: IpAddr,
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    #[arg(long)]
    ip: Cidr,
    /// Bytes of the file
    #[arg(long)]
    size: u64,
    #[arg(long)]
    passes: u32,
    #[arg(long)]
    udp: bool,
    /// What counts system calls
    #[arg(long)]
    strace: Option<PathBuf>,
}

/// What sends passes of this program share.
struct Ours<'g> {
    guest: &'g CompareGuest,
    stop: AtomicBool,
}

impl CompareGuest {
    pub fn run(self) -> Result<Outcome, Failure> {
        fs::write(FILE, content(self.size as usize))?;
        match self.driver {
            Driver::Kernel => {
                self.configure()?;
                for (way, port) in kernel_ways(self.udp).zip(&self.ports) {
                    let row = self.kernel(way, SocketAddr::new(self.receiver, *port));
                    print_json(&row.unwrap_or_else(|failure| failed(way.name(), self.driver, &failure)))?;
                }
            }
            Driver::Pagewire => {
                let ours = Ours { guest: &self, stop: AtomicBool::new(false) };
                for (name, port) in OURS.into_iter().zip(&self.ports) {
                    let row = ours.measure(name, SocketAddr::new(self.receiver, *port));
                    print_json(&row.unwrap_or_else(|failure| failed(name, self.driver, &failure)))?;
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// Gives the kernel's interface its address.
    fn configure(&self) -> Result<(), Failure> {
        let address = self.ip.to_string();
        for arguments in [&["address", "add", &address, "dev", INTERFACE][..], &["link", "set", INTERFACE, "up"]] {
            let output = Command::new("ip").args(arguments).output()?;
            if !output.status.success() {
                return Err(format!(
                    "the guest's kernel has no interface for this NIC ({}): Debian's cloud kernel has a driver for virtio-net alone",
                    String::from_utf8_lossy(&output.stderr).trim()
                )
                .into());
            }
        }
        Ok(())
    }

    /// One of the kernel's ways. The first pass is not counted: it asks for the receiver's address, and the kernel's caches fill.
    fn kernel(&self, way: Way, target: SocketAddr) -> Result<Measured, Failure> {
        let file = File::open(FILE)?;
        let mut sender = Sender::new(way, &file, self.size, if self.udp { DATAGRAM } else { CHUNK })?;
        let mut row = Measured { copied: Some(0), ..Measured::new(way.name(), self.driver) };
        let mut calls = 0;
        for pass in 0..=self.passes {
            let meter = Meter::start()?;
            let account = if self.udp {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(target)?;
                sender.send(socket.as_fd())?
            } else {
                let mut stream = TcpStream::connect(target)?;
                let account = sender.send(stream.as_fd())?;
                // The receiver closes when it has everything: what the kernel does for ACKs until then is counted.
                stream.shutdown(std::net::Shutdown::Write)?;
                stream.read_to_end(&mut Vec::new())?;
                account
            };
            let instructions = meter.stop()?;
            if pass > 0 {
                row.instructions += instructions;
                row.bytes += account.bytes;
                calls += account.calls;
                row.copied = row.copied.zip(account.copied).map(|(before, copied)| before + copied);
            }
        }
        row.calls = Some(Calls { calls, bytes: row.bytes });
        Ok(row)
    }
}

/// Those of the kernel's ways that there are for the protocol: a datagram cannot be put together by splice.
pub fn kernel_ways(udp: bool) -> impl Iterator<Item = Way> {
    Way::ALL.into_iter().filter(move |way| !(udp && *way == Way::Splice))
}

fn failed(way: &str, driver: Driver, failure: &Failure) -> Measured {
    Measured { failed: Some(failure.to_string()), ..Measured::new(way, driver) }
}

impl Ours<'_> {
    fn measure(&self, name: &str, target: SocketAddr) -> Result<Measured, Failure> {
        let [copying, cold, _] = OURS;
        let mut port = Some(self.open(if name == copying { 0 } else { u64::MAX })?);
        let mut row = Measured { copied: Some(0), ..Measured::new(name, Driver::Pagewire) };
        let mut at_work = 0.0;
        for pass in 0..=self.guest.passes {
            let meter = Meter::start()?;
            let (report, mut after) = self.pass(port.take().ok_or("the NIC was lost with the last send")?, target)?;
            if name == cold {
                // What was mapped for this pass is unmapped in it.
                let Source::File(file) = Source::open(FILE)? else { return Err("a file was expected".into()) };
                after.forget(&file)?;
            }
            let instructions = meter.stop()?;
            if report.stopped != Stop::Complete {
                return Err(report.stopped.to_string().into());
            }
            if pass > 0 {
                row.instructions += instructions;
                row.bytes += self.guest.size;
                row.copied = row.copied.map(|copied| copied + report.bytes_copied);
                at_work += report.busy_seconds;
            }
            port = Some(after);
        }
        // The NIC is free for the runs that count calls.
        drop(port);
        row.at_work = Some((at_work * 1e9) as u64);
        row.calls = match &self.guest.strace {
            Some(strace) => Some(self.calls(name, target, strace)?),
            None => None,
        };
        Ok(row)
    }

    fn open(&self, window_budget: u64) -> Result<Port, Failure> {
        let address: DeviceAddress = NIC.parse()?;
        let Device { nic, .. } = device::open(&address, OpenOptions::default())?;
        let interface = Interface::new(nic.mac(), self.guest.ip, None, 1500, None)?;
        Ok(Port::new(nic, interface, PortConfig { window_budget, ..PortConfig::default() })?)
    }

    /// One send; it sleeps when there is nothing to do, as the kernel does.
    fn pass(&self, mut port: Port, target: SocketAddr) -> Result<(Report, Port), Failure> {
        let source = Source::open(FILE)?;
        if self.guest.udp {
            let mut send = UdpSend::new(&mut port, source, UdpOptions::to(target), Duration::ZERO)?;
            let report = run(&mut send, Wait::Interrupt, &self.stop, |_| ());
            drop(send);
            return Ok((report, port));
        }
        let mut send = TcpSend::new(port, source, TcpOptions::to(target), Duration::ZERO)?;
        let report = run(&mut send, Wait::Interrupt, &self.stop, |_| ());
        Ok((report, send.into_port()))
    }

    /// System calls, counted by strace in sends of their own: what two passes more add where windows stay, else what half of the file more adds.
    fn calls(&self, name: &str, target: SocketAddr, strace: &Path) -> Result<Calls, Failure> {
        let size = self.guest.size;
        let half = (size / 2).to_string();
        let [copying, _, warm] = OURS;
        if name == warm {
            let [few, many] = [self.traced(target, strace, &["--repeat", "2"])?, self.traced(target, strace, &["--repeat", "4"])?];
            return Ok(Calls { calls: many.saturating_sub(few), bytes: 2 * size });
        }
        let budget: &[&str] = if name == copying { &["--window-budget", "0"] } else { &[] };
        let all = self.traced(target, strace, budget)?;
        let first = self.traced(target, strace, &[budget, &["--length", &half]].concat())?;
        Ok(Calls { calls: all.saturating_sub(first), bytes: size - size / 2 })
    }

    fn traced(&self, target: SocketAddr, strace: &Path, more: &[&str]) -> Result<u64, Failure> {
        let summary = Path::new("/run/compare.calls");
        let scheme = if self.guest.udp { "udp" } else { "tcp" };
        let output = Command::new(strace)
            .args(["-f", "-c", "-o"])
            .arg(summary)
            .arg(std::env::current_exe()?)
            .args(["send", FILE, "--json", "--wait", "irq", "--nic", NIC, "--ip", &self.guest.ip.to_string()])
            .args(["--to", &format!("{scheme}://{target}")])
            .args(more)
            .stdin(Stdio::null())
            .output()?;
        let text = fs::read_to_string(summary).unwrap_or_default();
        match total(&text) {
            Some(calls) if output.status.success() => Ok(calls),
            _ => Err(format!("the send under strace failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
        }
    }
}

/// The calls that strace counted in all: of the last line, `100.00 SECONDS USECS CALLS [ERRORS] total`, the fourth word.
fn total(summary: &str) -> Option<u64> {
    let words: Vec<&str> = summary.lines().last()?.split_whitespace().collect();
    if words.last() == Some(&"total") { words.get(3)?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straces_total_is_found() {
        let summary = "% time seconds usecs/call calls errors syscall\n 90.0 0.1 1 2 read\n100.00 0.002817 3 717 9 total\n";
        assert_eq!(total(summary), Some(717));
        assert_eq!(total("100.00 0.002817 3 717 total"), Some(717));
        assert_eq!(total(""), None);
        assert_eq!(total("strace: no such program"), None);
    }

    #[test]
    fn datagrams_are_not_spliced() {
        assert_eq!(kernel_ways(false).count(), 6);
        assert!(kernel_ways(true).all(|way| way != Way::Splice));
    }
}
