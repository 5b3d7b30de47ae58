//! The PHY behind MDIC (13.4.6): the registers of IEEE 802.3 clause 22 and the status of the 88E1011 (chapter 10).

use bitflags::bitflags;

use super::fault::Fault;

bitflags! {
    /// MDIC, 13.4.6: data in bits 15:0, register in 20:16, PHY in 25:21.
    #[derive(Clone, Copy)]
    pub(super) struct Mdic: u32 {
        const OP_WRITE = 0b01 << 26;
        const OP_READ = 0b10 << 26;
        const OP = 0b11 << 26;
        const R = 1 << 28;
        const I = 1 << 29;
        const E = 1 << 30;
        const _ = !0;
    }
}

/// The internal PHY's address, 8.2.
const ADDRESS: u32 = 1;
const CONTROL: usize = 0;
const STATUS: usize = 1;
const SPECIFIC_STATUS: usize = 17;
const STATUS_LINK: u16 = 1 << 2;
const SPECIFIC_LINK: u16 = 1 << 10;
/// Reset and restart of auto-negotiation in the control register clear themselves.
const SELF_CLEARING: u16 = 1 << 15 | 1 << 9;
const READ_ONLY: u32 = 1 << STATUS | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 15 | 1 << SPECIFIC_STATUS;

pub(super) struct Phy {
    registers: [u16; 32],
    mdic: u32,
    /// Reads of MDIC until R: a driver has to poll.
    polls: u8,
}

impl Phy {
    pub(super) fn new() -> Self {
        let mut registers = [0; 32];
        registers[CONTROL] = 0x1140;
        // Every speed up to 1000 Mb/s, auto-negotiation possible and complete.
        registers[STATUS] = 0x7969 | 1 << 5;
        registers[2] = 0x0141;
        registers[3] = 0x0c20;
        registers[4] = 0x0de1;
        registers[5] = 0x41e1;
        registers[6] = 0x0007;
        registers[9] = 0x0e00;
        registers[10] = 0x3c00;
        registers[15] = 0x3000;
        registers[16] = 0x0360;
        registers[SPECIFIC_STATUS] = 0xa800;
        registers[20] = 0x0d60;
        Self { registers, mdic: Mdic::R.bits(), polls: 0 }
    }

    /// Returns whether the last command was still under way.
    #[must_use]
    pub(super) fn write(&mut self, value: u32, cable: bool) -> bool {
        let busy = self.polls > 0;
        let (data, register, phy) = (value as u16, (value >> 16 & 0x1f) as usize, value >> 21 & 0x1f);
        let command = Mdic::from_bits_retain(value) - Mdic::R - Mdic::E;
        self.polls = 1;
        let outcome = match command & Mdic::OP {
            _ if phy != ADDRESS => Mdic::E,
            op if op.bits() == Mdic::OP_READ.bits() => {
                self.mdic = command.bits() & 0xffff_0000 | u32::from(self.register(register, cable)) | Mdic::R.bits();
                return busy;
            }
            op if op.bits() == Mdic::OP_WRITE.bits() => {
                if READ_ONLY >> register & 1 == 0 {
                    self.registers[register] = if register == CONTROL { data & !SELF_CLEARING } else { data };
                }
                Mdic::empty()
            }
            _ => Mdic::E,
        };
        self.mdic = (command | outcome | Mdic::R).bits();
        busy
    }

    fn register(&self, index: usize, cable: bool) -> u16 {
        self.registers[index]
            | match index {
                STATUS if cable => STATUS_LINK,
                SPECIFIC_STATUS if cable => SPECIFIC_LINK,
                _ => 0,
            }
    }

    /// What MDIC holds: not ready on the first read after a command.
    pub(super) fn mdic(&self, fault: &Fault) -> u32 {
        if self.polls > 0 || *fault == Fault::PhyNeverReady { self.mdic & !Mdic::R.bits() } else { self.mdic }
    }

    pub(super) fn read(&mut self, fault: &Fault) -> u32 {
        let value = self.mdic(fault);
        self.polls = self.polls.saturating_sub(1);
        value
    }
}
