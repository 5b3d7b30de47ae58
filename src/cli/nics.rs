//! `pagewire nics`: the NICs that there are.

use std::path::Path;

use clap::Args;
use hw_sim::rig;
use pagewire::device::SimulatedNic;
use serde::Serialize;

use super::{Failure, Outcome, print, print_json};

/// List the NICs: simulated ones, and this machine's
#[derive(Args)]
#[command(after_help = "\
Examples:
    pagewire nics
    pagewire nics --json

The options of a simulated NIC, after commas:
    wire=user                   QEMU's user network: this host is 10.0.2.2 (and fec0::2), ordinary sockets are the peer (default)
    wire=dgram:LOCAL:REMOTE     Unix datagram sockets, one frame a datagram
    wire=tap:NAME               a TAP interface
    hostfwd=tcp:127.0.0.1:8080-:80   with wire=user: a port of this host that leads to the NIC
    pcap=FILE                   write every frame into a capture
    mac=52:54:00:12:34:56       the NIC's Ethernet address
    tx-ring=N, rx-ring=N        descriptors: 80 to 4096, a multiple of 8 (default 256)
    checksum=off, gather=off    do without what the NIC can do, to see the fallback")]
pub struct Nics {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    address: String,
    name: String,
    driver: Option<String>,
    interface: Option<String>,
    usable: bool,
    why: String,
}

impl Nics {
    pub fn run(self) -> Result<Outcome, Failure> {
        let qemu = match rig::qemu_version() {
            Some(version) => format!("on QEMU {version}"),
            None => "on QEMU, which the first use installs (or says how to)".into(),
        };
        let simulated = SimulatedNic::ALL.map(|nic| Row {
            address: format!("sim:{}", nic.name()),
            name: nic.product().into(),
            driver: None,
            interface: None,
            usable: true,
            why: qemu.clone(),
        });
        let rows: Vec<Row> = simulated.into_iter().chain(pci_nics()).collect();
        if self.json {
            print_json(&rows)?;
        } else {
            print(&render(&rows))?;
        }
        Ok(Outcome::Done)
    }
}

/// The network controllers on this machine's PCI buses. They need VFIO, which is not there yet.
fn pci_nics() -> Vec<Row> {
    let mut rows: Vec<Row> = std::fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            // Class 0x02: network controllers.
            read(&path.join("class")).filter(|class| class.starts_with("0x02"))?;
            let id = |name| read(&path.join(name)).unwrap_or_default().trim_start_matches("0x").to_owned();
            let link = |name| Some(std::fs::read_link(path.join(name)).ok()?.file_name()?.to_string_lossy().into_owned());
            let interface = std::fs::read_dir(path.join("net")).ok().and_then(|mut names| names.next()?.ok());
            Some(Row {
                address: format!("pci:{}", entry.file_name().to_string_lossy()),
                name: format!("{}:{}", id("vendor"), id("device")),
                driver: link("driver"),
                interface: interface.map(|name| name.file_name().to_string_lossy().into_owned()),
                usable: false,
                why: "real devices (VFIO) are not supported yet".into(),
            })
        })
        .collect();
    rows.sort_by(|one, other| one.address.cmp(&other.address));
    rows
}

fn read(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn render(rows: &[Row]) -> String {
    let none = || "-".to_owned();
    let header = ["ADDRESS", "NAME", "DRIVER", "INTERFACE", "USABLE"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(header)
        .chain(rows.iter().map(|row| {
            let usable = format!("{}, {}", if row.usable { "yes" } else { "no" }, row.why);
            [
                row.address.clone(),
                row.name.clone(),
                row.driver.clone().unwrap_or_else(none),
                row.interface.clone().unwrap_or_else(none),
                usable,
            ]
        }))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    lines
        .iter()
        .map(|[address, name, driver, interface, usable]| {
            let [a, b, c, d] = widths;
            format!("{address:<a$}  {name:<b$}  {driver:<c$}  {interface:<d$}  {usable}\n")
        })
        .collect()
}
