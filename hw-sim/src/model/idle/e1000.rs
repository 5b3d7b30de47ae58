//! An 82540EM's registers and rings in ordinary memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::registers::{RegisterIo, Width};
use hal::{BusDevice, BusError, DmaSpace, Interrupt, MacAddress, PciIdentity, RegisterError, Registers};

use super::space::Space;

/// The registers that have to answer (Intel 8254x manual, 13.4): the reset ends, the EEPROM has read, the PHY is ready.
const CTRL: u64 = 0x0000;
const CTRL_RST: u32 = 1 << 26;
const EERD: u64 = 0x0014;
const EERD_DONE: u32 = 1 << 4;
/// What the words of the EEPROM add up to, and where the one is that makes it so (5.6.35).
const EEPROM_SUM: u16 = 0xbaba;
const EEPROM_CHECKSUM: u32 = 0x3f;
const MDIC: u64 = 0x0020;
const MDIC_READY: u32 = 1 << 28;
const TDBAL: u64 = 0x3800;
const TDBAH: u64 = 0x3804;
const TDLEN: u64 = 0x3808;
const TDT: u64 = 0x3818;
const REGION: u64 = 128 << 10;
/// The command byte of a transmit descriptor, with RS, and its status byte, with DD (3.3.3).
const COMMAND: usize = 11;
const RS: u8 = 1 << 3;
const STATUS: usize = 12;
const DD: u8 = 1;

/// An 82540EM that does nothing. Clones are the same device.
#[derive(Clone)]
pub struct IdleDevice(Arc<Inner>);

struct Inner {
    mac: MacAddress,
    registers: Vec<AtomicU32>,
    /// Up to which descriptor everything is done.
    head: AtomicU32,
    doorbells: AtomicU64,
    space: Arc<Space>,
}

impl IdleDevice {
    /// A device with this station address.
    pub fn new(mac: MacAddress) -> Self {
        let registers = (0..REGION / 4).map(|_| AtomicU32::new(0)).collect();
        Self(Arc::new(Inner { mac, registers, head: AtomicU32::new(0), doorbells: AtomicU64::new(0), space: Arc::new(Space::new()) }))
    }

    /// For a driver to start.
    pub fn device(&self) -> Box<dyn BusDevice> {
        Box::new(self.clone())
    }

    /// Reports every descriptor up to the tail as done, where its driver asked for that.
    pub fn complete(&self) {
        let register = |offset| self.0.load(offset);
        let ring = u64::from(register(TDBAL)) | u64::from(register(TDBAH)) << 32;
        let (len, tail) = (register(TDLEN) / 16, register(TDT));
        let mut head = self.0.head.load(Ordering::Relaxed);
        self.0.space.at(ring, |memory, ring| {
            while len > 0 && head != tail && tail < len {
                let descriptor = ring + head as usize * 16;
                if memory.read::<u8>(descriptor + COMMAND) & RS != 0 {
                    memory.write(descriptor + STATUS, memory.read::<u8>(descriptor + STATUS) | DD);
                }
                head = (head + 1) % len;
            }
        });
        self.0.head.store(head, Ordering::Relaxed);
    }

    /// Writes to the transmit tail.
    pub fn doorbells(&self) -> u64 {
        self.0.doorbells.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// The station address, zeros, and the checksum.
    fn eeprom(&self, index: u32) -> u16 {
        let mut address = self.mac.0.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        match index {
            EEPROM_CHECKSUM => address.fold(EEPROM_SUM, u16::wrapping_sub),
            _ => address.nth(index as usize).unwrap_or(0),
        }
    }

    fn load(&self, offset: u64) -> u32 {
        self.registers.get(offset as usize / 4).map_or(0, |register| register.load(Ordering::Relaxed))
    }
}

impl RegisterIo for IdleDevice {
    fn read(&self, offset: u64, _width: Width) -> Result<u64, RegisterError> {
        Ok(self.0.load(offset).into())
    }

    fn write(&self, offset: u64, _width: Width, value: u64) -> Result<(), RegisterError> {
        let value = match offset {
            CTRL => value as u32 & !CTRL_RST,
            EERD => value as u32 | EERD_DONE | u32::from(self.0.eeprom(value as u32 >> 8 & 0xff)) << 16,
            MDIC => value as u32 | MDIC_READY,
            TDT => {
                self.0.doorbells.fetch_add(1, Ordering::Relaxed);
                value as u32
            }
            _ => value as u32,
        };
        if let Some(register) = self.0.registers.get(offset as usize / 4) {
            register.store(value, Ordering::Release);
        }
        Ok(())
    }
}

impl BusDevice for IdleDevice {
    fn address(&self) -> &str {
        "model:idle"
    }

    fn identity(&self) -> PciIdentity {
        PciIdentity { vendor: 0x8086, device: 0x100e, class: 0x02_0000, revision: 2 }
    }

    fn config_read(&self, _offset: u16, _width: Width) -> Result<u32, BusError> {
        Ok(0)
    }

    fn config_write(&self, _offset: u16, _width: Width, _value: u32) -> Result<(), BusError> {
        Ok(())
    }

    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        if index == 0 { Ok(Registers::remote(Arc::new(self.clone()), REGION)) } else { Err(BusError::NoBar(index)) }
    }

    fn set_bus_master(&mut self, _on: bool) -> Result<(), BusError> {
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.0.space) as Arc<dyn DmaSpace>
    }

    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        Err(BusError::NoInterrupt { vector, reason: "an idle device has none".into() })
    }

    fn reset(&mut self) -> Result<(), BusError> {
        Ok(())
    }
}
