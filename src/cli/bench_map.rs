//! `pagewire bench map`: what windows cost.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use pagewire::bench::{self, MapFigures};
use pagewire::device::{self, DeviceAddress, OpenOptions};
use pagewire::send::COPY_BELOW;

use super::{Failure, Outcome, interrupted, print, print_json, stop_flag, table};

/// Windows: what it costs to map so many bytes of a file for the NIC, and to copy them instead
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire bench map --nic pci:0000:03:00.0
    pagewire vm --icount -- bench map --nic pci:0000:00:02.0

The file is in the page cache. `first` is the first time that a size is mapped, `map` and `unmap` what it takes from then on, `copy` reads the
same bytes into packet buffers; medians, in nanoseconds (in a guest whose clock counts instructions: instructions). `send --copy-below`
says where a send begins to map.")]
pub struct Map {
    /// The NIC
    #[arg(long, value_name = "ADDRESS")]
    nic: DeviceAddress,

    /// A file of yours instead of temporary ones
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How often each size is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

impl Map {
    pub fn run(self) -> Result<Outcome, Failure> {
        let stop = stop_flag()?;
        let mut device = device::open(&self.nic, OpenOptions { stop: Some(Arc::clone(&stop)), ..OpenOptions::default() })?;
        let figures = bench::map(&mut *device.nic, self.file.as_deref(), self.rounds.into(), &stop)?;
        if self.json {
            print_json(&figures)?;
        } else {
            print(&text(&figures))?;
        }
        Ok(if interrupted(&stop) { Outcome::Interrupted } else { Outcome::Done })
    }
}

fn text(figures: &MapFigures) -> String {
    let size = |bytes: u64| indicatif::HumanBytes(bytes).to_string();
    let mut text = format!("{:>10} {:>14} {:>14} {:>14} {:>14}  ns\n", "", "first", "map", "unmap", "copy");
    for row in &figures.rows {
        let [first, map, unmap, copy] = [row.first_map_ns, row.map_ns, row.unmap_ns, row.copy_ns].map(table::grouped);
        text.push_str(&format!("{:>10} {first:>14} {map:>14} {unmap:>14} {copy:>14}\n", size(row.bytes)));
    }
    text.push_str(&match figures.pays_from_bytes {
        Some(bytes) => format!("Mapping and unmapping once costs no more than to copy from {} on", size(bytes)),
        None => "Mapping and unmapping once costs more than to copy at every size".into(),
    });
    text.push_str(&format!("; `send` maps from {} on (--copy-below auto).\n", size(COPY_BELOW)));
    text
}
