//! `pagewire send`: a file out of a NIC.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hal::MacAddress;
use pagewire::device::{self, BusAddress, Device, DeviceAddress, OpenOptions};
use pagewire::file::Source;
use pagewire::net::{Cidr, Family, Interface, Rate, Scheme, Size, Target};
use pagewire::send::{Framing, Port, PortConfig, Report, Stability, Stop, TcpOptions, TcpSend, Transfer, UdpOptions, UdpSend, Wait, run};
use pagewire::tcp::StackConfig;

use super::{Failure, Outcome, print, print_json, progress, refuse_capture_into, stop_flag, table};

/// Send a file from a NIC, straight from the page cache
#[derive(Args)]
#[command(after_help = "\
Examples:
  To a program on this host, through a simulated NIC; no root, no hardware (receive in another terminal first):
    pagewire receive udp://127.0.0.1:9000 -o copy.bin
    pagewire send film.mkv --nic sim:e1000 --to udp://10.0.2.2:9000 --ip 10.0.2.15/24
  At a rate, with offsets that let the receiver see gaps, and a capture to look at:
    pagewire send film.mkv --nic sim:e1000,pcap=out.pcap --to udp://10.0.2.2:9000 --ip 10.0.2.15/24 \\
        --rate 200Mbit --framing offset
  To a TCP server (nc -l 9000 > copy.bin), which acknowledges every byte:
    pagewire send film.mkv --nic sim:e1000 --to tcp://10.0.2.2:9000 --ip 10.0.2.15/24
  A part of a file; standard input:
    pagewire send disk.img --offset 4GiB --length 1MiB --nic sim:e1000 --to udp://10.0.2.2:9000 --ip 10.0.2.15/24
    tar -c photos | pagewire send - --nic sim:e1000 --to udp://10.0.2.2:9000 --ip 10.0.2.15/24

Exit status: 0 sent; 1 failed, or the file changed; 2 wrong arguments; 130 interrupted.")]
pub struct Send {
    /// The file; `-` is standard input, which is copied
    file: PathBuf,

    /// The NIC: sim:MODEL or pci:ADDRESS, with [,OPTION=VALUE]...; see `pagewire nics --help`
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    /// The receiver: udp://HOST:PORT or tcp://HOST:PORT
    #[arg(long, value_name = "TARGET")]
    to: Target,

    /// The NIC's own address in its network
    #[arg(long, value_name = "ADDR/PREFIX")]
    ip: Cidr,

    /// The router to other networks
    #[arg(long, value_name = "ADDR")]
    gateway: Option<IpAddr>,

    /// The largest IP packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500)]
    mtu: u16,

    /// Start at this byte of the file (4GiB, 10MB, 4096)
    #[arg(long, value_name = "SIZE", default_value = "0")]
    offset: Size,

    /// Send at most so many bytes
    #[arg(long, value_name = "SIZE")]
    length: Option<Size>,

    /// Send at most so fast: bits of frames a second (200Mbit, 1.5Gbit) or bytes (25MB)
    #[arg(long)]
    rate: Option<Rate>,

    /// What a datagram holds
    #[arg(long, value_enum, default_value_t)]
    framing: FramingArg,

    /// How the file is kept from changing meanwhile
    #[arg(long, value_enum, default_value_t)]
    stability: StabilityArg,

    /// The UDP port to send from (a TCP connection takes a free one)
    #[arg(long, value_name = "PORT", default_value_t = 49152, value_parser = clap::value_parser!(u16).range(1..))]
    source_port: u16,

    /// The receiver's (or the gateway's) Ethernet address; asks nobody, and so needs no answer
    #[arg(long, value_name = "MAC")]
    station: Option<MacAddress>,

    /// Put the frames into this VLAN
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,

    /// How to wait for the NIC
    #[arg(long, value_enum, default_value_t)]
    wait: WaitArg,

    /// Frames handed to the NIC with one doorbell, 1 to 256
    #[arg(long, value_name = "FRAMES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    burst: u16,

    /// Bytes of files that may stay mapped for the NIC at once
    #[arg(long, value_name = "SIZE")]
    window_budget: Option<Size>,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

/// `--framing`.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum FramingArg {
    /// File bytes and nothing else
    #[default]
    Raw,
    /// The file offset (8 bytes, big-endian), then file bytes
    Offset,
}

impl From<FramingArg> for Framing {
    fn from(arg: FramingArg) -> Self {
        match arg {
            FramingArg::Raw => Self::Raw,
            FramingArg::Offset => Self::Offset,
        }
    }
}

/// `--wait`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum WaitArg {
    /// Look again and again: the quickest, and a whole processor
    Poll,
    /// Sleep until the NIC interrupts
    Irq,
    /// Look for a moment, then sleep
    #[default]
    Adaptive,
}

impl From<WaitArg> for Wait {
    fn from(arg: WaitArg) -> Self {
        match arg {
            WaitArg::Poll => Self::Poll,
            WaitArg::Irq => Self::Interrupt,
            WaitArg::Adaptive => Self::Adaptive,
        }
    }
}

/// `--stability`.
#[derive(Clone, Copy, Default, ValueEnum)]
enum StabilityArg {
    /// A lease where there is one, else trust
    #[default]
    Auto,
    /// A lease, or do not send
    Lease,
    /// Trust that nobody changes it; its size and times are checked every 16 MiB and at the end. Stores through another process's
    /// shared mapping can go unseen
    Trust,
}

impl From<StabilityArg> for Stability {
    fn from(arg: StabilityArg) -> Self {
        match arg {
            StabilityArg::Auto => Self::Auto,
            StabilityArg::Lease => Self::Lease,
            StabilityArg::Trust => Self::Trust,
        }
    }
}

impl Send {
    pub fn run(self) -> Result<Outcome, Failure> {
        let tcp = self.to.scheme() == Scheme::Tcp;
        if tcp && (self.rate.is_some() || !matches!(self.framing, FramingArg::Raw)) {
            return Err("--rate and --framing are for udp:// targets: TCP finds its own rate, and a stream has no datagrams".into());
        }
        // What can be wrong without a NIC is found out before one is started.
        let source = Source::open(&self.file)?;
        if let BusAddress::Simulated(simulated) = &self.nic.bus {
            refuse_capture_into(&self.file, simulated.pcap.as_deref())?;
        }
        let target = self.to.resolve(Family::of(self.ip.address()))?;
        let stop = stop_flag()?;
        let Device { nic, rig } = device::open(&self.nic, OpenOptions { mtu: self.mtu })?;
        let interface = Interface::new(nic.mac(), self.ip, self.gateway, self.mtu, self.vlan)?;
        let config = PortConfig { window_budget: self.window_budget.map_or(u64::MAX, |size| size.bytes()), ..PortConfig::default() };
        let port = Port::new(nic, interface, config)?;
        let mut report = if tcp { self.send_tcp(port, source, target, &stop)? } else { self.send_udp(port, source, target, &stop)? };
        // What the NIC has sent may still be on its way through the simulated wire.
        if report.stopped == Stop::Complete
            && let Some(Err(error)) = rig.map(|rig| rig.drain())
        {
            report.stopped = Stop::Failed(error.to_string());
        }
        if self.json {
            print_json(&report)?;
        } else {
            print(&table::render(&table::send_rows(&report)))?;
        }
        Ok(self.outcome(&report))
    }

    fn send_udp(&self, mut port: Port, source: Source, target: SocketAddr, stop: &AtomicBool) -> Result<Report, Failure> {
        let options = UdpOptions {
            source_port: self.source_port,
            station: self.station,
            framing: self.framing.into(),
            offset: self.offset.bytes(),
            length: self.length.map(|size| size.bytes()),
            rate: self.rate,
            burst: self.burst.into(),
            stability: self.stability.into(),
            ..UdpOptions::to(target)
        };
        Ok(self.transfer(&mut UdpSend::new(&mut port, source, options, Duration::ZERO)?, stop))
    }

    fn send_tcp(&self, port: Port, source: Source, target: SocketAddr, stop: &AtomicBool) -> Result<Report, Failure> {
        let options = TcpOptions {
            station: self.station,
            offset: self.offset.bytes(),
            length: self.length.map(|size| size.bytes()),
            stability: self.stability.into(),
            stack: StackConfig { burst: self.burst.into(), ..StackConfig::default() },
            ..TcpOptions::to(target)
        };
        Ok(self.transfer(&mut TcpSend::new(port, source, options, Duration::ZERO)?, stop))
    }

    fn transfer(&self, send: &mut impl Transfer, stop: &AtomicBool) -> Report {
        let bar = progress::bar(send.progress().total, self.json);
        let report = run(send, self.wait.into(), stop, |progress| bar.set_position(progress.bytes));
        bar.finish_and_clear();
        report
    }

    fn outcome(&self, report: &Report) -> Outcome {
        let why = match &report.stopped {
            Stop::Complete => return Outcome::Done,
            Stop::Interrupted => return Outcome::Interrupted,
            Stop::FileChanged(how) => format!("{}: {how}", self.file.display()),
            Stop::Failed(why) => why.clone(),
            Stop::Running => "the send did not end".into(),
        };
        let far =
            if report.bytes > 0 { format!(" ({} bytes were handed to the NIC)", table::grouped(report.bytes)) } else { String::new() };
        let _ = writeln!(io::stderr(), "pagewire: {why}{far}");
        Outcome::Failed
    }
}
