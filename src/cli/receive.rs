//! `pagewire receive`: the other end, an ordinary socket of this host.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pagewire::net::{Family, Scheme, Size, Target};
use pagewire::receive::{ReceiveOptions, ReceiveReport, Receiver};

use super::send::FramingArg;
use super::{Failure, Outcome, print, print_json, progress, stop_flag, table};

/// Receive a file on an ordinary UDP socket of this host: the other end of `send`
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire receive udp://127.0.0.1:9000 -o copy.bin
    pagewire receive udp://[::]:9000 -o copy.bin --framing offset --size 100MB

It takes the first sender's datagrams, and ends when --size bytes are there or nothing came for --idle seconds.

Exit status: 0 received; 1 failed, or bytes are missing; 2 wrong arguments; 130 interrupted.")]
pub struct Receive {
    /// Where to listen: udp://ADDR:PORT
    #[arg(value_name = "ADDRESS")]
    at: Target,

    /// The file to write, `-` for standard output; without it the bytes are only hashed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What a datagram holds, as the sender was told
    #[arg(long, value_enum, default_value_t)]
    framing: FramingArg,

    /// End when so many bytes are there
    #[arg(long)]
    size: Option<Size>,

    /// With --framing offset: the sender's --offset, where the received range begins
    #[arg(long, value_name = "SIZE", default_value = "0")]
    offset: Size,

    /// End when nothing came for so long, once something has come
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    idle: Duration,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "write a number of seconds, as in 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(|| "write a number of seconds above 0".to_owned())
}

impl Receive {
    pub fn run(self) -> Result<Outcome, Failure> {
        if self.at.scheme() != Scheme::Udp {
            return Err("this is the other end of UDP; for TCP any server does: nc -l PORT > FILE".into());
        }
        let to_stdout = self.output.as_deref() == Some("-".as_ref());
        if to_stdout && matches!(self.framing, FramingArg::Offset) {
            return Err("--framing offset puts bytes in their places, which standard output has not; name a file with -o".into());
        }
        let stop = stop_flag()?;
        let receiver = Receiver::bind(self.at.resolve(Family::V4)?)?;
        let _ = writeln!(io::stderr(), "listening at udp://{}", receiver.address()?);
        let options = ReceiveOptions {
            framing: self.framing.into(),
            size: self.size.map(|size| size.bytes()),
            offset: self.offset.bytes(),
            idle: self.idle,
        };
        let bar = progress::bar(options.size, self.json);
        let report = receiver.receive(self.output.as_deref(), &options, &stop, |bytes| bar.set_position(bytes))?;
        bar.finish_and_clear();
        if to_stdout {
            // Standard output has the file.
            io::stderr().write_all(
                if self.json { serde_json::to_string(&report)? + "\n" } else { table::render(&rows(&report, &options)) }.as_bytes(),
            )?;
        } else if self.json {
            print_json(&report)?;
        } else {
            print(&table::render(&rows(&report, &options)))?;
        }
        Ok(match report.stopped {
            "interrupted" => Outcome::Interrupted,
            _ if report.gaps.is_empty() && options.size.is_none_or(|size| report.bytes >= size) => Outcome::Done,
            _ => Outcome::Failed,
        })
    }
}

/// Gaps that are shown one by one.
const SHOWN: usize = 8;

fn rows(report: &ReceiveReport, options: &ReceiveOptions) -> Vec<(&'static str, String)> {
    let missing: u64 = report.gaps.iter().map(|gap| gap.length).sum();
    let mut gaps = match (options.framing.prefix_len(), report.gaps.len()) {
        (0, _) => "unknown: raw framing has no offsets".to_owned(),
        (_, 0) => "none".to_owned(),
        (_, count) => format!("{count}, {} missing:", table::bytes(missing)),
    };
    for gap in report.gaps.iter().take(SHOWN) {
        gaps.push_str(&format!(" {}+{}", gap.offset, gap.length));
    }
    if report.gaps.len() > SHOWN {
        gaps.push_str(" ...");
    }
    let rate = if report.seconds > 0.0 { report.bytes as f64 * 8.0 / report.seconds } else { 0.0 };
    let mut rows = vec![
        ("received", table::bytes(report.bytes)),
        ("datagrams", table::grouped(report.datagrams)),
        ("gaps", gaps),
        ("sha256", report.sha256.clone()),
        ("time", format!("{:.3} s, {}", report.seconds, table::rate(rate))),
        ("sender", report.sender.map_or("nobody".into(), |sender| sender.to_string())),
    ];
    for (name, count) in
        [("bytes repeated", report.bytes_repeated), ("datagrams ignored", report.ignored), ("dropped by the kernel", report.dropped)]
    {
        if count > 0 {
            rows.push((name, table::grouped(count)));
        }
    }
    rows.push(("stopped", report.stopped.to_owned()));
    rows
}
