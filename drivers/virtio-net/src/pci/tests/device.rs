//! A device made of a few bytes of configuration space and one BAR.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hal::registers::{RegisterIo, Width};
use hal::virtio::QueueLayout;
use hal::{BusDevice, BusError, DmaSpace, Interrupt, NicError, PciIdentity, RegisterError, Registers};

use super::super::PciTransport;

pub const BAR_LEN: u64 = 0x1000;
pub const COMMON: u32 = 0;
pub const ISR: u32 = 0x100;
pub const CONFIG: u32 = 0x200;
pub const NOTIFY: u32 = 0x800;
pub const MULTIPLIER: u32 = 4;
pub const MSIX: usize = 0xb0;
pub const LAYOUT: QueueLayout = QueueLayout { size: 64, descriptors: 0x1_0000_1000, driver: 0x1_0000_2000, device: 0x1_0000_3000 };

/// What is behind the registers.
#[derive(Default)]
pub struct Device {
    pub features: u64,
    pub accepted: u64,
    pub select: u32,
    pub driver_select: u32,
    pub status: u8,
    /// Reads of the status for which a reset goes on.
    pub reset_takes: usize,
    /// Reads of the configuration that change it.
    pub changes: u8,
    pub generation: u8,
    pub queue: u16,
    pub queues: HashMap<u16, HashMap<u64, u32>>,
    pub num_queues: u16,
    pub vectors: u16,
    pub refuses_queues: bool,
    pub config_vector: u16,
    pub isr: u8,
    pub doorbells: Vec<(u64, u64)>,
    /// Whether MSI-X is enabled, and what is pending: vector 0 alone without.
    pub msix: bool,
    pub pending: HashMap<u16, usize>,
    pub bus_master: bool,
    pub accesses: Vec<(u64, Width)>,
}

/// The device on its bus.
#[derive(Clone)]
pub struct Fake {
    pub config: Arc<Mutex<[u8; 256]>>,
    pub device: Arc<Mutex<Device>>,
    pub identity: (u16, u16),
}

impl Fake {
    /// As QEMU's: MSI-X with 4 vectors, three queues.
    pub fn new() -> Self {
        let mut device = Device { num_queues: 3, vectors: 4, config_vector: 0xffff, ..Device::default() };
        device.features = 0x0000_0103_0000_8024;
        let fake = Self { config: Arc::new(Mutex::new([0; 256])), device: Arc::new(Mutex::new(device)), identity: (0x1af4, 0x1041) };
        fake.capability(0x40, 0x50, 1, COMMON, 60);
        fake.capability(0x50, 0x60, 3, ISR, 1);
        fake.capability(0x60, 0x70, 4, CONFIG, 24);
        fake.capability(0x70, 0x84, 2, NOTIFY, 0x100);
        fake.set(0x72, &[20]);
        fake.set(0x80, &MULTIPLIER.to_le_bytes());
        // Access by configuration space, which has no BAR to be right.
        fake.set(0x84, &[9, MSIX as u8, 20, 5, 0]);
        fake.set(MSIX, &[0x11, 0, 3, 0x00]);
        fake.set(0x06, &[0x10]);
        fake.set(0x34, &[0x40]);
        fake
    }

    pub fn set(&self, at: usize, bytes: &[u8]) {
        self.config.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A capability for a structure in BAR 4.
    pub fn capability(&self, at: usize, next: u8, kind: u8, offset: u32, len: u32) {
        self.set(at, &[9, next, 16, kind, 4, 0, 0, 0]);
        self.set(at + 8, &offset.to_le_bytes());
        self.set(at + 12, &len.to_le_bytes());
    }

    pub fn open(&self) -> Result<PciTransport, NicError> {
        PciTransport::new(Box::new(self.clone()))
    }

    #[track_caller]
    pub fn refused(&self) -> String {
        match self.open() {
            Err(NicError::WrongDevice(reason)) => reason,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("it was opened"),
        }
    }

    pub fn device(&self) -> std::sync::MutexGuard<'_, Device> {
        self.device.lock().unwrap()
    }

    /// The status, and whether it may use memory.
    pub fn state(&self) -> (u8, bool) {
        let device = self.device();
        (device.status, device.bus_master)
    }

    pub fn raise(&self, vector: u16) {
        *self.device().pending.entry(vector).or_default() += 1;
    }
}

impl BusDevice for Fake {
    fn address(&self) -> &str {
        "fake"
    }
    fn identity(&self) -> PciIdentity {
        PciIdentity { vendor: self.identity.0, device: self.identity.1, class: 0x02_0000, revision: 1 }
    }
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        let config = self.config.lock().unwrap();
        let (at, len) = (usize::from(offset), width as usize);
        assert!(at.is_multiple_of(len) && at + len <= 256, "{offset:#x} {width:?}");
        let mut bytes = [0; 4];
        bytes[..len].copy_from_slice(&config[at..at + len]);
        Ok(u32::from_le_bytes(bytes))
    }
    fn config_write(&self, offset: u16, _width: Width, _value: u32) -> Result<(), BusError> {
        panic!("a write to configuration space at {offset:#x}")
    }
    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        if index == 4 { Ok(Registers::remote(Arc::new(self.clone()), BAR_LEN)) } else { Err(BusError::NoBar(index)) }
    }
    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        self.device().bus_master = on;
        Ok(())
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        unreachable!("no memory is mapped here")
    }
    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        let msix = self.device().msix;
        let vectors = self.device().vectors;
        if msix {
            self.set(MSIX + 3, &[0x80]);
        }
        match vector {
            0 => Ok(Box::new(Line(self.clone(), 0))),
            vector if msix && vector < vectors => Ok(Box::new(Line(self.clone(), vector))),
            vector => Err(BusError::NoInterrupt { vector, reason: "there are fewer".into() }),
        }
    }
    fn reset(&mut self) -> Result<(), BusError> {
        Err(BusError::Reset("not here".into()))
    }
}

struct Line(Fake, u16);

impl Interrupt for Line {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let start = std::time::Instant::now();
        loop {
            {
                let mut device = self.0.device();
                // A level stays until its cause was read.
                let level = !device.msix && device.isr != 0;
                let message = device.pending.get_mut(&self.1).filter(|count| **count > 0);
                if let Some(count) = message {
                    *count -= 1;
                    return Ok(true);
                }
                if level {
                    return Ok(true);
                }
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl RegisterIo for Fake {
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let mut device = self.device();
        let device = &mut *device;
        device.accesses.push((offset, width));
        let queue = device.queues.get(&device.queue);
        let of_queue = |default: u32| u64::from(queue.and_then(|queue| queue.get(&offset)).copied().unwrap_or(default));
        Ok(match (offset, width) {
            (4, Width::Double) => device.features >> (32 * device.select) & 0xffff_ffff,
            (16, Width::Word) => device.config_vector.into(),
            (18, Width::Word) => device.num_queues.into(),
            (20, Width::Byte) if device.status == 0 && device.reset_takes > 0 => {
                device.reset_takes -= 1;
                0x0f
            }
            (20, Width::Byte) => device.status.into(),
            (21, Width::Byte) => device.generation.into(),
            (24, Width::Word) => of_queue(256),
            (26, Width::Word) => of_queue(0xffff),
            (28 | 58, Width::Word) => of_queue(0),
            (30, Width::Word) => u64::from(device.queue) * 2,
            (0x100, Width::Byte) => std::mem::take(&mut device.isr).into(),
            (0x200..0x218, _) => {
                if device.changes > 0 {
                    device.changes -= 1;
                    device.generation = device.generation.wrapping_add(1);
                }
                (0..width as u64)
                    .fold(0, |value, byte| value | ((offset - 0x200 + byte + u64::from(device.generation)) & 0xff) << (8 * byte))
            }
            _ => panic!("a read of {offset:#x} {width:?}"),
        })
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        let mut device = self.device();
        let device = &mut *device;
        device.accesses.push((offset, width));
        match (offset, width) {
            (0, Width::Double) => device.select = value as u32,
            (8, Width::Double) => device.driver_select = value as u32,
            (12, Width::Double) => device.accepted |= value << (32 * device.driver_select),
            (16, Width::Word) => device.config_vector = if value < device.vectors.into() { value as u16 } else { 0xffff },
            (20, Width::Byte) => {
                device.status = value as u8;
                if value == 0 {
                    device.queues.clear();
                    device.config_vector = 0xffff;
                }
            }
            (22, Width::Word) => device.queue = value as u16,
            (26, Width::Word) => {
                let vector = if value < device.vectors.into() { value as u32 } else { 0xffff };
                device.queues.entry(device.queue).or_default().insert(26, vector);
            }
            (28, Width::Word) if device.refuses_queues => {}
            (58, Width::Word) => drop(device.queues.remove(&device.queue)),
            (24 | 28, Width::Word) | (32..56, Width::Double) => {
                device.queues.entry(device.queue).or_default().insert(offset, value as u32);
            }
            (0x200..0x218, _) => {}
            (0x800..0x900, Width::Word) => device.doorbells.push((offset, value)),
            _ => panic!("a write of {value:#x} to {offset:#x} {width:?}"),
        }
        Ok(())
    }
}
