//! A virtio device on PCI (VIRTIO 1.3, 4.1), on any bus that hal knows.
//!
//! | room | holds |
//! |---|---|
//! | `capability` | the list in configuration space that says where everything is |
//! | `structure` | a part of a BAR, with its bounds |
//! | `registers` | the registers that negotiate features and set queues up |
//! | `interrupts` | MSI-X vectors, or INTx with its cause register |
//!
//! Modern devices are driven (1af4:1041), and transitional ones (1af4:1000) by their modern side. What a device says of itself is checked before it is used.

mod capability;
mod interrupts;
mod registers;
mod structure;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusDevice, BusError, DmaSpace, Doorbell, Interrupt, NicError, PciIdentity, RegisterError, Registers};

use capability::{Capabilities, Kind, ListError, Structure};
use interrupts::Interrupts;
use registers::Common;
use structure::Region;

/// The vendor of all virtio devices (4.1.2).
const VENDOR: u16 = 0x1af4;
/// A network card: modern, and transitional.
const MODERN: u16 = 0x1041;
const TRANSITIONAL: u16 = 0x1000;
/// The type of a network card (5).
const NETWORK: u32 = 1;

/// How long a reset may take. QEMU's is over when the write is; hardware that stops its queues takes longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a configuration is read again that changes meanwhile.
const MOST_GENERATIONS: u32 = 1000;

/// A virtio network card on PCI.
pub struct PciTransport {
    common: Common,
    notify: Region,
    multiplier: u32,
    isr: Option<Region>,
    /// Absent when the device has none: then it has no configuration.
    config: Option<Region>,
    interrupts: Interrupts,
    bus_master: bool,
    /// Last, so that the device is closed after its registers.
    device: Box<dyn BusDevice>,
}

impl PciTransport {
    /// Whether this transport is for such a device.
    pub fn drives(identity: PciIdentity) -> bool {
        identity.vendor == VENDOR && matches!(identity.device, MODERN | TRANSITIONAL)
    }

    /// Finds the structures of `device`. Nothing is written to it.
    ///
    /// # Errors
    /// [`NicError::WrongDevice`] for another device, one with legacy registers alone, or one whose capabilities make no sense; what the bus says.
    pub fn new(mut device: Box<dyn BusDevice>) -> Result<Self, NicError> {
        let (identity, address) = (device.identity(), device.address().to_owned());
        if !Self::drives(identity) {
            return Err(NicError::WrongDevice(format!("{address} is a {identity}, not a virtio network card (1af4:1041 or 1af4:1000)")));
        }
        let wrong = |reason: String| NicError::WrongDevice(format!("{address} ({identity}): {reason}"));
        let capabilities = Capabilities::read(&*device).map_err(|error| match error {
            ListError::Bus(error) => error.into(),
            error => wrong(error.to_string()),
        })?;
        let mut finder = Finder { device: &mut *device, bars: HashMap::new(), ignored: capabilities.ignored };
        let find = |finder: &mut Finder<'_>, least: u64, wanted: fn(Kind) -> bool| {
            capabilities.structures.iter().filter(|structure| wanted(structure.kind)).find_map(|structure| finder.region(structure, least))
        };
        let common = find(&mut finder, registers::LEN, |kind| kind == Kind::Common);
        let notify = find(&mut finder, 2, |kind| matches!(kind, Kind::Notify { .. }));
        let isr = find(&mut finder, 1, |kind| kind == Kind::Isr);
        let config = find(&mut finder, 1, |kind| kind == Kind::Device);
        let (Some((common, _)), Some((notify, Kind::Notify { multiplier }))) = (common, notify) else {
            let reason = match finder.ignored.as_slice() {
                [] => "it has the registers of legacy virtio alone; this driver needs a VIRTIO 1.0 device (QEMU: \
                       -device virtio-net-pci,disable-modern=off,disable-legacy=on)"
                    .to_owned(),
                ignored => format!("it does not say where its registers are: {}", ignored.join("; ")),
            };
            return Err(wrong(reason));
        };
        let interrupts = Interrupts::new(capabilities.msix);
        let (isr, config) = (isr.map(|(region, _)| region), config.map(|(region, _)| region));
        Ok(Self { common: Common(common), notify, multiplier, isr, config, interrupts, bus_master: false, device })
    }

    /// The bus's name of the device.
    pub fn address(&self) -> &str {
        self.device.address()
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        if self.bus_master != on {
            self.device.set_bus_master(on)?;
            self.bus_master = on;
        }
        Ok(())
    }

    /// Resets the device and waits for the end of it (4.1.4.3.2).
    fn reset(&mut self) -> Result<(), BusError> {
        self.interrupts.forget();
        self.common.set_status(DeviceStatus::empty())?;
        let done = poll(|| {
            let status = self.common.status()?;
            if status.bits() == u8::MAX {
                return Err(RegisterError::Unreachable(
                    "its status reads all ones; unplugged, powered down, or taken by another driver".into(),
                ));
            }
            Ok(status.is_empty())
        })?;
        if done { Ok(()) } else { Err(BusError::Reset(format!("its status is not 0 after {PATIENCE:?}"))) }
    }

    fn config(&self) -> Result<&Region, BusError> {
        self.config.as_ref().ok_or_else(|| BusError::Refused("the device has no configuration (no capability of type 4)".into()))
    }
}

/// Opens the BARs of a device, each once.
struct Finder<'d> {
    device: &'d mut dyn BusDevice,
    bars: HashMap<u8, Option<Registers>>,
    ignored: Vec<String>,
}

impl Finder<'_> {
    /// Where a structure is, if that has `least` bytes and is inside its BAR; else the reason is kept.
    fn region(&mut self, structure: &Structure, least: u64) -> Option<(Region, Kind)> {
        let Structure { kind, bar, offset, len } = *structure;
        let registers = match self.bars.get(&bar) {
            Some(known) => known.clone(),
            None => {
                let opened = self.device.bar(bar).map_err(|error| self.ignored.push(format!("{kind:?}: {error}"))).ok();
                self.bars.insert(bar, opened.clone());
                opened
            }
        }?;
        let bar_len = registers.len();
        let region = Region::new(registers, offset, len).filter(|region| region.len() >= least);
        if region.is_none() {
            self.ignored.push(format!("{kind:?} has {len:#x} bytes at {offset:#x} of BAR {bar}, which has {bar_len:#x}; it needs {least}"));
        }
        region.map(|region| (region, kind))
    }
}

/// Asks until the answer is yes, for [`PATIENCE`] at most. What it was then.
fn poll(mut done: impl FnMut() -> Result<bool, RegisterError>) -> Result<bool, RegisterError> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() > PATIENCE;
        if done()? {
            return Ok(true);
        }
        if late {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

impl VirtioTransport for PciTransport {
    fn device_type(&self) -> u32 {
        NETWORK
    }

    fn device_features(&mut self) -> Result<u64, BusError> {
        Ok(self.common.device_features()?)
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), BusError> {
        Ok(self.common.set_driver_features(features)?)
    }

    fn status(&mut self) -> Result<DeviceStatus, BusError> {
        Ok(self.common.status()?)
    }

    /// A reset switches bus mastering off when it is over, or did not end; [`DeviceStatus::DRIVER_OK`] switches it on first.
    fn set_status(&mut self, status: DeviceStatus) -> Result<(), BusError> {
        if status.is_empty() {
            let reset = self.reset();
            let master = self.set_bus_master(false);
            return reset.and(master);
        }
        if status.contains(DeviceStatus::DRIVER_OK) {
            self.set_bus_master(true)?;
        }
        Ok(self.common.set_status(status)?)
    }

    fn queues(&mut self) -> Result<u16, BusError> {
        Ok(self.common.queues()?)
    }

    fn max_queue_size(&mut self, index: u16) -> Result<u16, BusError> {
        if index >= self.common.queues()? {
            return Ok(0);
        }
        self.common.select(index)?;
        Ok(self.common.queue_size()?)
    }

    fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<Doorbell, BusError> {
        let refused = |reason: String| BusError::Refused(format!("queue {index} cannot be enabled: {reason}"));
        let most = self.max_queue_size(index)?;
        if layout.size == 0 || layout.size > most {
            return Err(refused(format!("{} entries, and the device takes {most} at most", layout.size)));
        }
        self.interrupts.connect(&mut *self.device, &self.common, index)?;
        // As the queue's size was read, it is still selected.
        let doorbell = u64::from(self.common.notify_offset()?) * u64::from(self.multiplier);
        let doorbell =
            self.notify.doorbell(doorbell).map_err(|error| refused(format!("its doorbell is not where doorbells are: {error}")))?;
        self.common.set_queue(layout)?;
        self.common.enable()?;
        if self.common.is_enabled()? { Ok(doorbell) } else { Err(refused("the device does not take it".into())) }
    }

    fn reset_queue(&mut self, index: u16) -> Result<(), BusError> {
        let refused = |reason: &str| BusError::Refused(format!("queue {index} cannot be reset: {reason}"));
        if !self.common.has_queue_reset() {
            return Err(refused("the device has no such register (QEMU: from 7.2)"));
        }
        if index >= self.common.queues()? {
            return Err(refused("there is no such queue"));
        }
        self.common.select(index)?;
        self.common.reset_queue()?;
        // 4.1.4.3.2: 1 while it is being reset, and 0 afterwards; the queue is not enabled then.
        let common = &self.common;
        if poll(|| Ok(!common.is_resetting()? && !common.is_enabled()?))? { Ok(()) } else { Err(refused("it has not ended after 3 s")) }
    }

    fn interrupt(&mut self, index: Option<u16>) -> Result<Box<dyn Interrupt>, BusError> {
        self.interrupts.take(&mut *self.device, &self.common, self.isr.as_ref(), index)
    }

    /// Whole fields of 2 and 4 bytes, and 8 as two halves, are read as such where they are aligned, anything else byte by byte (4.1.3.1).
    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), BusError> {
        let config = self.config()?;
        let offset = u64::from(offset);
        for _ in 0..MOST_GENERATIONS {
            let before = self.common.generation()?;
            match (bytes.len(), offset % 4) {
                (2, 0 | 2) => bytes.copy_from_slice(&config.read::<u16>(offset)?.to_le_bytes()),
                (4 | 8, 0) => {
                    for (word, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                        bytes.copy_from_slice(&config.read::<u32>(offset + 4 * word as u64)?.to_le_bytes());
                    }
                }
                _ => {
                    for (index, byte) in bytes.iter_mut().enumerate() {
                        *byte = config.read(offset + index as u64)?;
                    }
                }
            }
            if self.common.generation()? == before {
                return Ok(());
            }
        }
        Err(BusError::Refused(format!("the device's configuration has changed {MOST_GENERATIONS} times while it was read")))
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BusError> {
        let config = self.config()?;
        let offset = u64::from(offset);
        match (bytes, offset % 4) {
            (&[low, high], 0 | 2) => config.write(offset, u16::from_le_bytes([low, high]))?,
            (bytes, 0) if matches!(bytes.len(), 4 | 8) => {
                for (word, bytes) in bytes.chunks_exact(4).enumerate() {
                    config.write(offset + 4 * word as u64, bytes.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)))?;
                }
            }
            _ => {
                for (index, byte) in bytes.iter().enumerate() {
                    config.write(offset + index as u64, *byte)?;
                }
            }
        }
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.device.dma()
    }
}

impl Drop for PciTransport {
    /// A device that nobody drives any more is reset, so that it does not use its queues when the next one switches bus mastering on.
    fn drop(&mut self) {
        if self.bus_master {
            // When it fails the device is gone, and with it all access to memory.
            let _ = self.set_status(DeviceStatus::empty());
        }
    }
}
