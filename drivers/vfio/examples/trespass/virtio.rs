//! A virtio network card answers a command (VIRTIO 1.3, 5.1.6.5): its answer is the byte that it writes.

use std::error::Error;
use std::time::{Duration, Instant};

use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusDevice, SharedMemory};
use virtio_net::Features;
use virtio_net::pci::PciTransport;

use super::Trespasser;

/// Where things are in the device's memory: a split ring of 4 descriptors (2.7), and the command.
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 512;
const USED: usize = 1024;
const COMMAND: usize = 2048;
const SIZE: u16 = 4;
/// Flags of a descriptor (2.7.5).
const NEXT: u64 = 1;
const WRITE: u64 = 2;
/// Class, command and value: VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, off.
const PROMISCUOUS_OFF: [u8; 3] = [0, 0, 0];
/// The control queue of a card with one queue pair (5.1.2).
const CONTROL: u16 = 2;

pub struct Card(PciTransport);

impl Card {
    pub fn new(device: Box<dyn BusDevice>) -> Result<Self, Box<dyn Error>> {
        Ok(Self(PciTransport::new(device)?))
    }
}

impl Trespasser for Card {
    /// Gives the device a command whose answer goes to `target`.
    fn write_to(&mut self, memory: &SharedMemory, base: u64, target: u64) -> Result<(), Box<dyn Error>> {
        let transport = &mut self.0;
        transport.set_status(DeviceStatus::empty())?;
        memory.write_bytes(0, &[0; 4096]);
        memory.write_bytes(COMMAND, &PROMISCUOUS_OFF);
        // Address; length, flags and the next one.
        memory.write(DESCRIPTORS, base + COMMAND as u64);
        memory.write(DESCRIPTORS + 8, PROMISCUOUS_OFF.len() as u64 | NEXT << 32 | 1 << 48);
        memory.write(DESCRIPTORS + 16, target);
        memory.write(DESCRIPTORS + 24, 1 | WRITE << 32);
        // No interrupt; one chain, which starts with descriptor 0.
        memory.write(AVAILABLE, 1_u16);
        memory.write(AVAILABLE + 2, 1_u16);

        let features = Features::VERSION_1 | Features::ACCESS_PLATFORM | Features::CTRL_VQ | Features::CTRL_RX;
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(status)?;
        transport.set_driver_features(features.bits())?;
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status)?;
        let at = |place: usize| base + place as u64;
        let layout = QueueLayout { size: SIZE, descriptors: at(DESCRIPTORS), driver: at(AVAILABLE), device: at(USED) };
        let doorbell = transport.enable_queue(CONTROL, layout)?;
        transport.set_status(status | DeviceStatus::DRIVER_OK)?;
        doorbell.ring(CONTROL.into())?;
        // It says that it is done, or that it has an error that only a reset ends.
        let start = Instant::now();
        while memory.read::<u16>(USED + 2) == 0 && !transport.status()?.contains(DeviceStatus::NEEDS_RESET) {
            if start.elapsed() > Duration::from_secs(5) {
                return Err("the device neither answers nor fails".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(mut self: Box<Self>) -> Result<(), Box<dyn Error>> {
        Ok(self.0.set_status(DeviceStatus::empty())?)
    }
}
