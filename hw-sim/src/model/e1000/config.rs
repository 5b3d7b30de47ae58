//! PCI configuration space (chapter 4).

use hal::registers::Width;

/// Bits of the command register, 4.1.
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// What of the command register can be written.
const COMMAND_WRITABLE: u16 = 0x0157;
/// Bits of the status register: a capability list is there; a master abort was received.
const STATUS_CAPABILITIES: u16 = 1 << 4;
const STATUS_MASTER_ABORT: u16 = 1 << 13;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CACHE_LINE: usize = 0x0c;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Power management, 6.3.3: version 2, no states but D0 and D3.
const POWER_MANAGEMENT: usize = 0xdc;

pub(super) struct Config {
    bytes: [u8; 256],
}

impl Config {
    pub(super) fn new() -> Self {
        let mut config = Self { bytes: [0; 256] };
        config.put(0x00, &0x8086_u16.to_le_bytes());
        config.put(0x02, &0x100e_u16.to_le_bytes());
        config.put(COMMAND, &COMMAND_MEMORY.to_le_bytes());
        config.put(STATUS, &(STATUS_CAPABILITIES | 0x0220).to_le_bytes());
        // Revision 2, class 02 00 00.
        config.put(0x08, &[0x02, 0x00, 0x00, 0x02]);
        config.put(CACHE_LINE, &[8]);
        config.put(BAR0, &0xe000_0000_u32.to_le_bytes());
        config.put(0x2c, &[0x86, 0x80, 0x1e, 0x00]);
        config.put(CAPABILITIES, &[POWER_MANAGEMENT as u8]);
        // INTA#; minimum grant and maximum latency in quarters of a microsecond.
        config.put(INTERRUPT_LINE, &[0x0b, 0x01, 0xff, 0x00]);
        config.put(POWER_MANAGEMENT, &[0x01, 0x00, 0x02, 0x00]);
        config
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Outside configuration space reads give ones.
    pub(super) fn read(&self, offset: u16, width: Width) -> u32 {
        let (at, len) = (usize::from(offset), width as usize);
        match self.bytes.get(at..at + len) {
            Some(bytes) => bytes.iter().take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte)),
            None => u32::MAX,
        }
    }

    pub(super) fn write(&mut self, offset: u16, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        for (at, byte) in (usize::from(offset)..).zip(bytes.into_iter().take(width as usize)) {
            match at {
                COMMAND => self.bytes[at] = byte & COMMAND_WRITABLE as u8,
                0x05 => self.bytes[at] = byte & (COMMAND_WRITABLE >> 8) as u8,
                // Writing a one clears an error bit.
                0x07 => self.bytes[at] &= !(byte & 0xf8),
                // The register space is 128 KiB, so that bits 16:0 of BAR 0 stay 0.
                0x12 => self.bytes[at] = byte & 0xfe,
                CACHE_LINE | 0x0d | 0x13 | INTERRUPT_LINE => self.bytes[at] = byte,
                _ => {}
            }
        }
    }

    pub(super) fn memory_enabled(&self) -> bool {
        self.word(COMMAND) & COMMAND_MEMORY != 0
    }

    pub(super) fn bus_master(&self) -> bool {
        self.word(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    pub(super) fn set_bus_master(&mut self, on: bool) {
        let command = if on { self.word(COMMAND) | COMMAND_BUS_MASTER } else { self.word(COMMAND) & !COMMAND_BUS_MASTER };
        self.put(COMMAND, &command.to_le_bytes());
    }

    /// The device tried to reach memory, and nobody answered.
    pub(super) fn set_master_abort(&mut self) {
        let status = self.word(STATUS) | STATUS_MASTER_ABORT;
        self.put(STATUS, &status.to_le_bytes());
    }

    /// The cache line size in bytes, 32 where none is set.
    pub(super) fn cache_line(&self) -> u32 {
        match self.bytes[CACHE_LINE] {
            0 => 32,
            doubles => u32::from(doubles) * 4,
        }
    }
}
