//! Sends a file from a simulated NIC to UDP port 9000 of this host: `cargo run --example send_file -- FILE`.
//! To see it arrive, run `pagewire receive udp://127.0.0.1:9000` beside it.

use std::{sync::atomic::AtomicBool, time::Duration};

use pagewire::device;
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::send::{Port, UdpOptions, UdpSend, Wait, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or("Cargo.toml".into());
    let nic = device::open(&"sim:e1000".parse()?, Default::default())?.nic;
    let interface = Interface::new(nic.mac(), "10.0.2.15/24".parse()?, None, 1500, None)?;
    let mut port = Port::new(nic, interface, Default::default())?;
    let options = UdpOptions::to("10.0.2.2:9000".parse()?);
    let mut send = UdpSend::new(&mut port, Source::open(path)?, options, Duration::ZERO)?;
    let report = run(&mut send, Wait::default(), &AtomicBool::new(false), |_| ());
    println!("{} bytes, of which the NIC gathered {}: {}", report.bytes, report.bytes_gathered, report.stopped);
    Ok(())
}
