//! Tells a NIC to write where it must not: `trespass ADDRESS DIRECTORY`. It writes into writable memory, then into a file window, then where nothing is
//! mapped. The IOMMU lets only the first happen; `dmesg` has the faults.

mod e1000;
mod virtio;

use std::error::Error;
use std::fs;
use std::os::fd::AsFd;

use hal::{Access, BusDevice, SharedMemory};
use pagewire_vfio::PciDevice;
use virtio_net::pci::PciTransport;

/// A device that can be told where to write.
trait Trespasser {
    /// Has the device write to bus address `target`; `memory`, at bus address `base`, is for what it needs for that.
    fn write_to(&mut self, memory: &SharedMemory, base: u64, target: u64) -> Result<(), Box<dyn Error>>;

    /// Stops the device.
    fn end(self: Box<Self>) -> Result<(), Box<dyn Error>>;
}

/// Where the device may write, and what is there before.
const ROOM: usize = 4096;
const BEFORE: [u8; 60] = [0x5a; 60];

fn main() -> Result<(), Box<dyn Error>> {
    let [address, directory] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: trespass ADDRESS DIRECTORY")?;
    let device = PciDevice::open(address.parse()?)?;
    let space = device.dma();
    let memory = SharedMemory::new("rings", 8192)?;
    let rings = space.map_memory(&memory, Access::ReadWrite)?;
    memory.write_bytes(ROOM, &BEFORE);
    let mut card: Box<dyn Trespasser> = if PciTransport::drives(device.identity()) {
        Box::new(virtio::Card::new(Box::new(device))?)
    } else {
        Box::new(e1000::Card::new(Box::new(device))?)
    };

    card.write_to(&memory, rings.iova(), rings.iova() + ROOM as u64)?;
    let mut after = BEFORE;
    memory.read_bytes(ROOM, &mut after);
    println!("into writable memory: it {}", if after == BEFORE { "did NOT write" } else { "wrote" });

    let path = std::path::Path::new(&directory).join("trespass.bin");
    let content = vec![0xa5; 8192];
    fs::write(&path, &content)?;
    let file = fs::File::open(&path)?;
    let window = space.map_file(file.as_fd(), 0..8192)?;
    fs::write("/dev/kmsg", format!("trespass: into the file window at {:#x}\n", window.iova()))?;
    let before = fs::metadata(&path)?.modified()?;
    card.write_to(&memory, rings.iova(), window.iova())?;
    let same = fs::read(&path)? == content && fs::metadata(&path)?.modified()? == before;
    println!("into a file window: the file is {}", if same { "unchanged" } else { "CHANGED" });

    let nowhere = 0x7000_0000;
    fs::write("/dev/kmsg", format!("trespass: to {nowhere:#x}, where nothing is mapped\n"))?;
    card.write_to(&memory, rings.iova(), nowhere)?;
    println!("where nothing is mapped: the machine is still there");
    card.end()?;
    space.unmap(window)?;
    space.unmap(rings)?;
    Ok(())
}
