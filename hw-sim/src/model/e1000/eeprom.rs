//! The EEPROM: 64 words behind a Microwire interface (chapter 5), read through EERD (13.4.4) or bit by bit through EECD (13.4.3).

use bitflags::bitflags;
use hal::MacAddress;

use super::fault::Fault;

/// The words add up to this, 5.6.35.
pub(super) const SUM: u16 = 0xbaba;
const WORDS: usize = 64;

bitflags! {
    /// EECD, 13.4.3.
    #[derive(Clone, Copy)]
    pub(super) struct Eecd: u32 {
        const SK = 1 << 0;
        const CS = 1 << 1;
        const DI = 1 << 2;
        const DO = 1 << 3;
        const FWE = 0b11 << 4;
        const REQ = 1 << 6;
        const GNT = 1 << 7;
        const PRES = 1 << 8;
        const _ = !0;
    }

    /// EERD, 13.4.4, with the layout of the 82540: the address in bits 15:8, the data in 31:16.
    #[derive(Clone, Copy)]
    pub(super) struct Eerd: u32 {
        const START = 1 << 0;
        const DONE = 1 << 4;
        const _ = !0;
    }
}

pub(super) struct Eeprom {
    words: [u16; WORDS],
    eerd: u32,
    /// Reads of EERD until DONE: a driver has to poll.
    polls: u8,
    eecd: Eecd,
    shift: Shift,
}

/// The state of the Microwire interface since chip select.
#[derive(Default)]
struct Shift {
    command: u16,
    bits_in: u8,
    out: u32,
}

impl Eeprom {
    pub(super) fn new(mac: MacAddress) -> Self {
        let mut words = [0; WORDS];
        for (word, pair) in words.iter_mut().zip(mac.0.chunks_exact(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        // Initialization control word 1 with a valid signature, and the PCI identity (5.6.8 to 5.6.12).
        words[0x0a] = 0x4408;
        words[0x0b] = 0x001e;
        words[0x0c] = 0x8086;
        words[0x0d] = 0x100e;
        words[0x0e] = 0x8086;
        words[0x0f] = 0x3040;
        words[WORDS - 1] = SUM.wrapping_sub(words.iter().fold(0, |sum, word| sum.wrapping_add(*word)));
        Self { words, eerd: 0, polls: 0, eecd: Eecd::empty(), shift: Shift::default() }
    }

    fn word(&self, index: usize, fault: &Fault) -> u16 {
        match fault {
            Fault::EepromBlank => 0xffff,
            Fault::EepromChecksumWrong if index == WORDS - 1 => self.words[index] ^ 0x0100,
            _ => self.words[index % WORDS],
        }
    }

    /// The station address that the device loads into RAL0 and RAH0 after a reset.
    pub(super) fn station_address(&self, fault: &Fault) -> MacAddress {
        let mut address = [0; 6];
        for (index, pair) in address.chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&self.word(index, fault).to_le_bytes());
        }
        MacAddress(address)
    }

    pub(super) fn write_eerd(&mut self, value: u32, fault: &Fault) {
        let address = (value >> 8 & 0xff) as usize;
        self.eerd = value & 0xff00;
        if Eerd::from_bits_retain(value).contains(Eerd::START) {
            self.polls = 1;
            // Beyond the last word nothing drives the line, and it reads as ones.
            let data = if address < WORDS { self.word(address, fault) } else { 0xffff };
            self.eerd |= u32::from(data) << 16 | Eerd::DONE.bits();
        }
    }

    /// What EERD holds: not done on the first read after a start.
    pub(super) fn eerd(&self, fault: &Fault) -> u32 {
        if self.polls > 0 || *fault == Fault::EepromNeverDone { self.eerd & 0xff00 } else { self.eerd }
    }

    pub(super) fn read_eerd(&mut self, fault: &Fault) -> u32 {
        let value = self.eerd(fault);
        self.polls = self.polls.saturating_sub(1);
        value
    }

    pub(super) fn eecd(&self, fault: &Fault) -> u32 {
        let mut value = self.eecd | Eecd::PRES;
        value.set(Eecd::GNT, self.granted(fault));
        // Outside a read the line floats high, which a driver takes for "ready".
        value.set(Eecd::DO, self.shift.bits_in < 9 || self.shift.out >> 16 & 1 != 0);
        value.bits()
    }

    fn granted(&self, fault: &Fault) -> bool {
        self.eecd.contains(Eecd::REQ) && *fault != Fault::EepromNeverDone
    }

    /// Returns whether the driver moved the interface without owning it (5.3.1).
    #[must_use]
    pub(super) fn write_eecd(&mut self, value: u32, fault: &Fault) -> bool {
        let new = Eecd::from_bits_retain(value) & (Eecd::SK | Eecd::CS | Eecd::DI | Eecd::FWE | Eecd::REQ);
        let before = std::mem::replace(&mut self.eecd, new);
        let moved = (before ^ new).intersects(Eecd::SK | Eecd::CS | Eecd::DI);
        if moved && !self.granted(fault) {
            return new.intersects(Eecd::SK | Eecd::CS | Eecd::DI);
        }
        if !new.contains(Eecd::CS) {
            self.shift = Shift::default();
        } else if new.contains(Eecd::SK) && !before.contains(Eecd::SK) {
            self.clock(new.contains(Eecd::DI), fault);
        }
        false
    }

    /// A rising edge: start bit, two bits of opcode and six of address go in, then data comes out behind a leading zero.
    fn clock(&mut self, input: bool, fault: &Fault) {
        const READ: u16 = 0b110;
        let shift = &mut self.shift;
        if shift.bits_in >= 9 {
            shift.out <<= 1;
        } else if shift.bits_in > 0 || input {
            shift.command = shift.command << 1 | u16::from(input);
            shift.bits_in += 1;
            if shift.bits_in == 9 && shift.command >> 6 == READ {
                let address = usize::from(shift.command & 0x3f);
                self.shift.out = u32::from(self.word(address, fault));
            }
        }
    }
}
