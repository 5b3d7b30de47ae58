//! Sends a file through an e1000 or a virtio network card behind VFIO: `send_file ADDRESS FILE`. Each frame is 14 bytes of Ethernet header and 8 of offset,
//! gathered with at most 1400 bytes of the file's own pages, which this process cannot read while it sends them.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e1000::{E1000, E1000Config};
use hal::{Burst, BusDevice, DmaSpace, Nic, Offload, Pool, PoolConfig};
use pagewire_vfio::PciDevice;
use virtio_net::pci::PciTransport;
use virtio_net::{VirtioNet, VirtioNetConfig};

/// IEEE 802's number for experiments.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
const PAYLOAD: u64 = 1400;
const BURST: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let [address, path] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: send_file ADDRESS FILE")?;
    let device = PciDevice::open(address.parse()?)?;
    let space = Arc::clone(device.space());
    println!("{} is mapped: {:?}", device.address(), device.bar_layout(0));
    let mut nic: Box<dyn Nic> = if PciTransport::drives(device.identity()) {
        let transport = PciTransport::new(Box::new(device))?;
        Box::new(VirtioNet::start(Box::new(transport), VirtioNetConfig { iommu: true, ..VirtioNetConfig::default() })?)
    } else {
        Box::new(E1000::start(Box::new(device), E1000Config::default())?)
    };
    println!("{} {}", nic.model(), nic.mac());
    let mut pool = Pool::new(PoolConfig::default())?;
    println!("pool on huge pages: {}", pool.huge_pages());
    nic.attach_pool(pool.attach(&nic.space())?)?;
    let start = Instant::now();
    while !nic.link()?.up && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }

    let file = File::open(&path)?;
    let len = file.metadata()?.len();
    let window = space.map_file(file.as_fd(), 0..len)?;
    space.protect(&window)?;
    let mac = nic.mac();
    let tx = nic.tx(0);
    let mut burst = Burst::with_capacity(BURST);
    let (mut offset, start) = (0, Instant::now());
    while offset < len || !burst.is_empty() || tx.progress().completed() < tx.progress().posted() {
        while offset < len && burst.len() < BURST {
            let Some(mut header) = pool.take() else { break };
            header.write(0, &[0xff; 6]);
            header.write(6, &mac.0);
            header.write(12, &EXPERIMENTAL);
            header.write(14, &offset.to_be_bytes());
            header.set_len(22);
            let part = PAYLOAD.min(len - offset) as u32;
            burst.push(header, Offload::NONE);
            burst.gather(window.segment(offset, part).ok_or("outside the window")?);
            offset += u64::from(part);
        }
        if !burst.is_empty() {
            tx.post(&mut burst)?;
        }
        tx.reap()?;
        tx.check(start.elapsed())?;
    }
    println!("{:?} in {:?}", tx.counters(), start.elapsed());
    drop(burst);
    println!("the device counted {:?}", nic.statistics()?);
    drop(nic);
    space.unmap(window)?;
    Ok(())
}
