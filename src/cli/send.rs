//! `pagewire send`: a file out of a NIC.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hal::MacAddress;
use pagewire::device::BusAddress;
use pagewire::file::Source;
use pagewire::net::{Family, Rate, Scheme, Size, Target};
use pagewire::send::{COPY_BELOW, Framing, Port, Repeated, Report, Stop, TcpOptions, TcpSend, UdpOptions, UdpSend, repeat, run};
use pagewire::tcp::StackConfig;

use super::port::PortArgs;
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
  What it costs when the file is mapped, in instructions: a guest's clock counts them (receive in another terminal first):
    pagewire vm --icount -- send disk.img --repeat 3 --nic pci:0000:00:02.0 --to udp://10.0.2.2:9000 --ip 10.0.2.15/24

Exit status: 0 sent; 1 failed, or the file changed; 2 wrong arguments; 130 interrupted.")]
pub struct Send {
    /// The file; `-` is standard input, which is copied
    file: PathBuf,

    #[command(flatten)]
    port: PortArgs,

    /// The receiver: udp://HOST:PORT or tcp://HOST:PORT
    #[arg(long, value_name = "TARGET")]
    to: Target,

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

    /// The UDP port to send from (a TCP connection takes a free one)
    #[arg(long, value_name = "PORT", default_value_t = 49152, value_parser = clap::value_parser!(u16).range(1..))]
    source_port: u16,

    /// The receiver's (or the gateway's) Ethernet address; asks nobody, and so needs no answer
    #[arg(long, value_name = "MAC")]
    station: Option<MacAddress>,

    /// Copy a file, or what is left of one, of fewer bytes than this if it is not mapped already; `auto` is what `pagewire bench map` found
    #[arg(long, value_name = "SIZE|auto", default_value = "auto", value_parser = copy_below)]
    copy_below: u64,

    /// Send it so often, over one port: the windows stay mapped. Tells what the passes after the first cost
    #[arg(long, value_name = "PASSES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: u32,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

fn copy_below(text: &str) -> Result<u64, String> {
    match text {
        "auto" => Ok(COPY_BELOW),
        size => size.parse::<Size>().map(|size| size.bytes()).map_err(|error| error.to_string()),
    }
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

impl Send {
    pub fn run(self) -> Result<Outcome, Failure> {
        let tcp = self.to.scheme() == Scheme::Tcp;
        if tcp && (self.rate.is_some() || !matches!(self.framing, FramingArg::Raw)) {
            return Err("--rate and --framing are for udp:// targets: TCP finds its own rate, and a stream has no datagrams".into());
        }
        // What can be wrong without a NIC is found out before one is started.
        let source = Source::open(&self.file)?;
        if self.repeat > 1 && matches!(source, Source::Stream(_)) {
            return Err(format!("--repeat needs a regular file, which {} is not: a stream is there once", source.name()).into());
        }
        if let BusAddress::Simulated(simulated) = &self.port.nic.bus {
            refuse_capture_into(&self.file, simulated.pcap.as_deref())?;
        }
        let target = self.to.resolve(Family::of(self.port.ip.address()))?;
        let stop = stop_flag()?;
        let (port, rig) = self.port.open(&stop)?;
        let bar = progress::bar(matches!(source, Source::File(_)).then_some(0), self.json);
        let tell = |progress: pagewire::send::Progress| {
            progress.total.inspect(|total| bar.set_length(*total));
            bar.set_position(progress.bytes);
        };
        let mut repeated =
            if tcp { self.send_tcp(port, source, target, &stop, tell)? } else { self.send_udp(port, source, target, &stop, tell)? };
        bar.finish_and_clear();
        let report = &mut repeated.total;
        // What the NIC has sent may still be on its way through the simulated wire.
        if report.stopped == Stop::Complete
            && let Some(Err(error)) = rig.map(|rig| rig.drain())
        {
            report.stopped = Stop::Failed(error.to_string());
        }
        match (self.json, self.repeat) {
            (true, 1) => print_json(&repeated.total)?,
            (true, _) => print_json(&repeated)?,
            (false, _) => print(&table::render(&rows(&repeated)))?,
        }
        Ok(self.outcome(&repeated.total))
    }

    fn send_udp(
        &self,
        mut port: Port,
        source: Source,
        target: SocketAddr,
        stop: &AtomicBool,
        tell: impl FnMut(pagewire::send::Progress),
    ) -> Result<Repeated, Failure> {
        let mut options = UdpOptions {
            source_port: self.source_port,
            station: self.station,
            framing: self.framing.into(),
            offset: self.offset.bytes(),
            length: self.length.map(|size| size.bytes()),
            rate: self.rate,
            burst: self.port.burst(),
            stability: self.port.stability(),
            copy_below: self.copy_below,
            ..UdpOptions::to(target)
        };
        let mut first = Some(source);
        repeat(self.repeat, tell, |tell| {
            let mut send = UdpSend::new(&mut port, self.open(&mut first)?, options.clone(), Duration::ZERO)?;
            let report = run(&mut send, self.port.wait(), stop, tell);
            // The next hop is asked for once.
            options.station = send.station();
            Ok(report)
        })
    }

    fn send_tcp(
        &self,
        port: Port,
        source: Source,
        target: SocketAddr,
        stop: &AtomicBool,
        tell: impl FnMut(pagewire::send::Progress),
    ) -> Result<Repeated, Failure> {
        let options = TcpOptions {
            station: self.station,
            offset: self.offset.bytes(),
            length: self.length.map(|size| size.bytes()),
            stability: self.port.stability(),
            stack: StackConfig { burst: self.port.burst(), ..StackConfig::default() },
            ..TcpOptions::to(target)
        };
        let (mut first, mut port) = (Some(source), Some(port));
        repeat(self.repeat, tell, |tell| {
            let taken = port.take().ok_or("the NIC was lost with the last send")?;
            let mut send = TcpSend::new(taken, self.open(&mut first)?, options, Duration::ZERO)?;
            let report = run(&mut send, self.port.wait(), stop, tell);
            port = Some(send.into_port());
            Ok(report)
        })
    }

    /// The file, which each pass opens anew.
    fn open(&self, first: &mut Option<Source>) -> Result<Source, Failure> {
        first.take().map_or_else(|| Source::open(&self.file).map_err(Failure::from), Ok)
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

fn rows(repeated: &Repeated) -> Vec<(&'static str, String)> {
    let mut rows = table::send_rows(&repeated.total);
    if let Some(cost) = &repeated.after_first {
        rows.push(("passes", repeated.passes.len().to_string()));
        rows.push((
            "after the first",
            format!(
                "{} in {:.3} s; a KiB takes {:.1} ns, {:.1} of the processor, {:.1} at work",
                table::bytes(cost.bytes),
                cost.seconds,
                cost.ns_per_kib,
                cost.cpu_ns_per_kib,
                cost.busy_ns_per_kib
            ),
        ));
    }
    rows
}
