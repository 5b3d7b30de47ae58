//! Reads and writes of registers, with their side effects.

use super::fault::Fault;
use super::registers::*;
use super::ring::Ring;
use super::state::State;
use super::statistics;

impl State {
    /// What a register holds.
    pub(super) fn peek(&self, offset: u64) -> u32 {
        match offset {
            STATUS => self.status().bits(),
            EECD => self.eeprom.eecd(&Fault::None),
            EERD => self.eeprom.eerd(&Fault::None),
            MDIC => self.phy.mdic(&Fault::None),
            // 13.4.18 gives no value for a read; silicon gives the causes and does not clear them.
            ICS => self.registers.get(ICR),
            _ => self.registers.get(offset),
        }
    }

    fn status(&self) -> Status {
        let mut status = Status::FD | Status::SPEED_1000 | Status::ASDV_1000;
        status.set(Status::LU, self.link_up());
        status.set(Status::TXOFF, false);
        status
    }

    pub(super) fn read_register(&mut self, offset: u64) -> u32 {
        let Some(known) = known(offset) else {
            self.violation(format!("{offset:#07x} was read, where the 82540EM has no register [13.2]"));
            return 0;
        };
        match (known.access, offset) {
            (Access::WriteOnly, _) => {
                self.violation(format!("{} was read, which can only be written [13.4]", known.name));
                self.peek(offset)
            }
            (Access::Statistic, _) if self.fault == Fault::StatisticsStuck => u32::MAX,
            (Access::Statistic, _) => statistics::read(&mut self.registers, offset),
            (_, ICR) => self.read_icr(),
            (_, EECD) => self.eeprom.eecd(&self.fault),
            (_, EERD) => self.eeprom.read_eerd(&self.fault),
            (_, MDIC) => self.phy.read(&self.fault),
            (_, TDH | RDH) if self.fault == Fault::HeadGarbage => 0xffff,
            _ => self.peek(offset),
        }
    }

    pub(super) fn write_register(&mut self, offset: u64, value: u32) {
        let Some(known) = known(offset) else {
            self.violation(format!("{offset:#07x} was written, where the 82540EM has no register [13.2]"));
            return;
        };
        if matches!(known.access, Access::ReadOnly | Access::Statistic) {
            self.violation(format!("{} was written, which can only be read [13.4]", known.name));
            return;
        }
        if value & known.reserved != 0 {
            self.violation(format!("{} was written with reserved bits {:#x} set [13.4]", known.name, value & known.reserved));
        }
        match offset {
            CTRL => self.write_ctrl(value),
            EECD => {
                if self.eeprom.write_eecd(value, &self.fault) {
                    self.violation("the EEPROM interface was moved without EECD.GNT [5.3.1]");
                }
            }
            EERD => self.eeprom.write_eerd(value, &self.fault),
            MDIC => {
                let cable = self.cable();
                if self.phy.write(value, cable) {
                    self.violation("MDIC was written before it was ready [13.4.6]");
                }
                if value & super::phy::Mdic::I.bits() != 0 {
                    self.raise(Cause::MDAC);
                }
            }
            ICR => self.acknowledge(value),
            ICS => self.raise(Cause::from_bits_retain(value)),
            IMS => self.registers.set(IMS, self.registers.get(IMS) | value),
            IMC => self.registers.set(IMS, self.registers.get(IMS) & !value),
            RCTL => self.write_rctl(Rctl::from_bits_retain(value)),
            TCTL => self.write_tctl(Tctl::from_bits_retain(value)),
            TDBAL | TDBAH | TDLEN | TDH => self.write_ring(Ring::Transmit, known.name, offset, value),
            RDBAL | RDBAH | RDLEN | RDH => self.write_ring(Ring::Receive, known.name, offset, value),
            TDT => self.write_tdt(value),
            RDT => self.write_tail(Ring::Receive, value),
            PBA => self.write_pba(value),
            // FPD flushes and clears itself (13.4.30).
            RDTR => self.registers.set(RDTR, value & 0xffff),
            RAL0..=RAH_LAST => self.write_receive_address(offset, value),
            _ => self.registers.set(offset, value),
        }
    }

    fn write_ctrl(&mut self, value: u32) {
        let ctrl = Ctrl::from_bits_retain(value);
        let before = self.link_up();
        if ctrl.contains(Ctrl::PHY_RST) {
            self.phy = super::phy::Phy::new();
        }
        if ctrl.contains(Ctrl::RST) {
            self.reset();
            if self.fault == Fault::ResetNeverEnds {
                self.registers.set(CTRL, self.registers.get(CTRL) | Ctrl::RST.bits());
            }
            return;
        }
        let stays = if self.fault == Fault::ResetNeverEnds { self.registers.get(CTRL) & Ctrl::RST.bits() } else { 0 };
        self.registers.set(CTRL, value | stays);
        self.link_changed(before);
    }

    fn write_rctl(&mut self, new: Rctl) {
        let old = Rctl::from_bits_retain(self.registers.get(RCTL));
        let layout = Rctl::BSIZE | Rctl::BSEX;
        if old.contains(Rctl::EN) && new.contains(Rctl::EN) && (old ^ new).intersects(layout) {
            self.violation("the size of receive buffers in RCTL was changed while the receiver was enabled [13.4.22]");
        }
        if new.contains(Rctl::BSEX) && !new.intersects(Rctl::BSIZE) {
            self.violation("RCTL.BSIZE is 00b with BSEX, which is reserved [13.4.22]");
        }
        if (new & Rctl::RDMTS).bits() == Rctl::RDMTS.bits() {
            self.violation("RCTL.RDMTS is 11b, which is reserved [13.4.22]");
        }
        if new.intersects(Rctl::LBM) {
            self.violation("RCTL.LBM asks for a loopback, which is not for normal operation [13.4.22]");
        }
        if new.contains(Rctl::EN) && !old.contains(Rctl::EN) {
            self.check_ring(Ring::Receive);
        }
        self.registers.set(RCTL, new.bits());
    }

    fn write_tctl(&mut self, new: Tctl) {
        let old = Tctl::from_bits_retain(self.registers.get(TCTL));
        if new.contains(Tctl::EN) && !old.contains(Tctl::EN) {
            self.check_ring(Ring::Transmit);
            if self.registers.get(TIPG) == 0 {
                self.violation("TCTL.EN was set before TIPG was programmed [14.5]");
            }
            if !new.intersects(Tctl::COLD) {
                self.violation("TCTL.EN was set with a collision distance (COLD) of 0 [13.4.33]");
            }
        }
        self.registers.set(TCTL, new.bits());
    }

    /// A unit is enabled: its ring has to be complete (14.4, 14.5).
    fn check_ring(&mut self, ring: Ring) {
        let name = if ring == Ring::Transmit { "TCTL.EN" } else { "RCTL.EN" };
        let entries = self.entries(ring);
        if entries == 0 {
            self.violation(format!("{name} was set without a descriptor ring [14.4, 14.5]"));
            return;
        }
        if self.positions(ring).is_none() {
            self.violation(format!("{name} was set with a head or tail beyond the ring of {entries} descriptors [14.4, 14.5]"));
        }
        if self.peek_descriptor(ring, 0).is_none() || self.peek_descriptor(ring, entries - 1).is_none() {
            self.violation(format!("{name} was set with a ring that is not in mapped memory [14.4, 14.5]"));
        }
    }

    fn write_ring(&mut self, ring: Ring, name: &str, offset: u64, value: u32) {
        let (control, enabled) = if ring == Ring::Transmit { (TCTL, Tctl::EN.bits()) } else { (RCTL, Rctl::EN.bits()) };
        if self.registers.get(control) & enabled != 0 {
            self.violation(format!("{name} was written while its unit was enabled [13.4.25 to 13.4.28, 13.4.36 to 13.4.39]"));
        }
        self.owned(ring).0.clear();
        let value = match offset {
            TDBAL | RDBAL if value & 0xf != 0 => {
                self.violation(format!("{name} was set to {value:#x}, which is not a multiple of 16 bytes [3.2.6, 3.4]"));
                value & !0xf
            }
            TDLEN | RDLEN if value & 0x7f != 0 => {
                self.violation(format!("{name} was set to {value}, which is not a multiple of 128 bytes [13.4.27, 13.4.38]"));
                value & 0xf_ff80
            }
            TDLEN | RDLEN => value & 0xf_ff80,
            TDH | RDH => {
                if value & 0xffff >= self.entries(ring).max(1) {
                    self.violation(format!("{name} was set to {value}, beyond the ring [13.4.28, 13.4.39]"));
                }
                value & 0xffff
            }
            _ => value,
        };
        self.registers.set(offset, value);
    }

    fn write_tdt(&mut self, value: u32) {
        self.doorbells += 1;
        self.write_tail(Ring::Transmit, value);
        if self.fault == Fault::DoneTooEarly {
            self.set_done_early();
        }
        if self.synchronous {
            self.process_transmit_ring();
        }
    }

    /// TXA is what RXA leaves of 64 KiB (13.4.16).
    fn write_pba(&mut self, value: u32) {
        let rxa = value & 0x7f;
        if !rxa.is_multiple_of(8) || !(8..64).contains(&rxa) {
            self.violation(format!("PBA.RXA was set to {rxa} KiB, which is not a multiple of 8 that leaves room to transmit [13.4.16]"));
        }
        self.registers.set(PBA, rxa | 64_u32.saturating_sub(rxa) << 16);
    }

    fn write_receive_address(&mut self, offset: u64, value: u32) {
        let low = offset & 4 == 0;
        if low && value == 0 && self.registers.get(offset + 4) & RAH_AV != 0 {
            self.violation("RAL was cleared before RAH, with AV set: clear high to low [13.5.3]");
        }
        if !low && value & RAH_AV != 0 && value >> 16 & 0b11 > 0b01 {
            self.violation("RAH.AS is 1xb, which is reserved [13.5.3]");
        }
        self.registers.set(offset, value);
    }
}
