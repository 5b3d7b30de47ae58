//! `pagewire bench`: what a NIC and its driver do.

use std::time::Duration;

use clap::{Args, Subcommand};
use pagewire::bench::{Figures, Load, Session};
use pagewire::device::{self, Device, DeviceAddress, OpenOptions};

use super::{Failure, Outcome, interrupted, print, print_json, stop_flag, table};

/// Measure a NIC and its driver
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Tx(Tx),
    Map(super::bench_map::Map),
}

/// Transmit: what testpmd's txonly does for every packet (a pool buffer, 42 header bytes, posted, reaped)
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire bench tx --nic pci:0000:03:00.0 --size 64
    pagewire bench tx --nic sim:e1000 --size 64,1400 --seconds 2 --json

On the simulator a doorbell is a message to QEMU, so the rate is QEMU's. In a guest whose clock counts instructions
(pagewire vm --icount) busy nanoseconds are instructions.")]
struct Tx {
    /// The NIC
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    /// Bytes of a packet's segments; the first has the headers, the others are gathered from a file
    #[arg(long, value_name = "BYTES[,BYTES]...", value_delimiter = ',', default_value = "64")]
    size: Vec<u32>,

    /// Packets handed over with one doorbell, 1 to 256
    #[arg(long, default_value_t = 32)]
    burst: usize,

    /// For how long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> Result<Outcome, Failure> {
        match self.what {
            What::Tx(tx) => tx.run(),
            What::Map(map) => map.run(),
        }
    }
}

impl Tx {
    fn run(self) -> Result<Outcome, Failure> {
        let stop = stop_flag()?;
        let Device { nic, rig: _rig } = device::open(&self.nic, OpenOptions::default())?;
        let load = Load { segments: self.size, burst: self.burst, duration: Duration::from_secs(self.seconds), ..Load::default() };
        let figures = Session::new(vec![nic], 1)?.transmit(&load, false, &stop)?;
        if self.json {
            print_json(&figures)?;
        } else {
            print(&table::render(&rows(&figures)))?;
        }
        Ok(if interrupted(&stop) { Outcome::Interrupted } else { Outcome::Done })
    }
}

fn rows(figures: &Figures) -> Vec<(&'static str, String)> {
    vec![
        ("packets", table::grouped(figures.frames)),
        ("packets a second", table::grouped(figures.pps as u64)),
        ("rate", table::rate(figures.bits_per_second)),
        ("busy", format!("{:.1} ns a packet", figures.busy_ns_per_frame)),
        ("idle polls", table::grouped(figures.idle_polls)),
        ("doorbells", table::grouped(figures.doorbells)),
        ("descriptors", table::grouped(figures.descriptors)),
        ("time", format!("{:.3} s", figures.seconds)),
    ]
}
