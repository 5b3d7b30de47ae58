//! Sends files through e1000s or virtio network cards behind VFIO: `send_file ADDRESS FILE [ADDRESS FILE]... [panic]`, all at once. Each frame is 14 bytes of Ethernet
//! header and 8 of offset, gathered with at most 1400 bytes of the file's own pages, which this process cannot read while it sends them.
//! NICs of one IOMMU group share their bus addresses. With `panic` it panics in the middle, to see what is left behind.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e1000::{E1000, E1000Config};
use hal::{Burst, BusDevice, DmaSpace, Mapping, Nic, Offload, Pool, PoolConfig};
use pagewire_vfio::{PciDevice, VfioSpace};
use virtio_net::pci::PciTransport;
use virtio_net::{VirtioNet, VirtioNetConfig};

/// IEEE 802's number for experiments.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
const PAYLOAD: u64 = 1400;
const BURST: usize = 32;

/// A NIC with a file.
struct Sender {
    /// First: it stops before its buffers and its window go.
    nic: Box<dyn Nic>,
    pool: Pool,
    space: Arc<VfioSpace>,
    window: Mapping,
    len: u64,
    offset: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let panic = arguments.pop_if(|last| last == "panic").is_some();
    if arguments.is_empty() || !arguments.len().is_multiple_of(2) {
        return Err("usage: send_file ADDRESS FILE [ADDRESS FILE]... [panic]".into());
    }
    let mut senders = Vec::new();
    for pair in arguments.chunks(2) {
        senders.push(Sender::open(&pair[0], &pair[1])?);
    }
    let start = Instant::now();
    while senders.iter_mut().try_fold(false, |busy, sender| Ok::<_, Box<dyn Error>>(sender.step(start.elapsed())? || busy))? {
        if panic && senders.iter().all(|sender| sender.offset >= sender.len / 2) {
            panic!("as asked for, with {} of {} bytes posted", senders[0].offset, senders[0].len);
        }
    }
    for Sender { mut nic, space, window, .. } in senders {
        println!("{:?} in {:?}", nic.tx(0).counters(), start.elapsed());
        println!("the device counted {:?}", nic.statistics()?);
        drop(nic);
        space.unmap(window)?;
    }
    Ok(())
}

impl Sender {
    fn open(address: &str, path: &str) -> Result<Self, Box<dyn Error>> {
        let device = PciDevice::open(address.parse()?)?;
        let space = Arc::clone(device.space().ok_or("no IOMMU: nothing can pin the file")?);
        println!("{} is mapped: {:?}", device.address(), device.bar_layout(0));
        let mut nic: Box<dyn Nic> = if PciTransport::drives(device.identity()) {
            let transport = PciTransport::new(Box::new(device))?;
            Box::new(VirtioNet::start(Box::new(transport), VirtioNetConfig { iommu: true, ..VirtioNetConfig::default() })?)
        } else {
            Box::new(E1000::start(Box::new(device), E1000Config::default())?)
        };
        println!("{} {}", nic.model(), nic.mac());
        let pool = Pool::new(PoolConfig::default())?;
        println!("pool on huge pages: {}", pool.huge_pages());
        nic.attach_pool(pool.attach(&nic.space())?)?;
        let start = Instant::now();
        while !nic.link()?.up && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let window = space.map_file(file.as_fd(), 0..len)?;
        space.protect(&window)?;
        Ok(Self { nic, pool, space, window, len, offset: 0 })
    }

    /// Posts and reaps what there is. Whether there is something left to do.
    fn step(&mut self, now: Duration) -> Result<bool, Box<dyn Error>> {
        let mac = self.nic.mac();
        let tx = self.nic.tx(0);
        let mut burst = Burst::with_capacity(BURST);
        let mut offset = self.offset;
        while offset < self.len && burst.len() < BURST {
            let Some(mut header) = self.pool.take() else { break };
            header.write(0, &[0xff; 6]);
            header.write(6, &mac.0);
            header.write(12, &EXPERIMENTAL);
            header.write(14, &offset.to_be_bytes());
            header.set_len(22);
            let part = PAYLOAD.min(self.len - offset) as u32;
            burst.push(header, Offload::NONE);
            burst.gather(self.window.segment(offset, part).ok_or("outside the window")?);
            offset += u64::from(part);
        }
        // Frames that find no room are built again.
        let posted = if burst.is_empty() { 0 } else { tx.post(&mut burst)? as u64 };
        self.offset = self.len.min(self.offset + posted * PAYLOAD);
        tx.reap()?;
        tx.check(now)?;
        Ok(self.offset < self.len || tx.progress().completed() < tx.progress().posted())
    }
}
