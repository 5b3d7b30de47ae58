//! The descriptor rings (3.2.6 and 3.4), and who owns which descriptor.

use std::collections::VecDeque;
use std::ops::Range;

use super::descriptor::{self, Raw};
use super::registers::{RCTL, RDBAH, RDBAL, RDH, RDLEN, RDT, Rctl, TCTL, TDBAH, TDBAL, TDH, TDLEN, TDT, Tctl};
use super::state::State;
use crate::model::space::Holder;

/// The registers of one ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    Transmit,
    Receive,
}

impl Ring {
    pub(super) fn head_register(self) -> u64 {
        if self == Self::Transmit { TDH } else { RDH }
    }

    pub(super) fn tail_register(self) -> u64 {
        if self == Self::Transmit { TDT } else { RDT }
    }

    fn name(self) -> &'static str {
        if self == Self::Transmit { "transmit" } else { "receive" }
    }

    /// The names of tail and head, and the section on the ring.
    fn terms(self) -> (&'static str, &'static str, &'static str) {
        if self == Self::Transmit { ("TDT", "TDH", "3.4") } else { ("RDT", "RDH", "3.2.6") }
    }
}

/// Where the status byte is, in transmit and in receive descriptors.
pub(super) const STATUS_BYTE: usize = 12;

/// Descriptors that the hardware owns, as they were when it got them, from head to tail; `None` where they could not be read.
#[derive(Default)]
pub(super) struct Owned(pub VecDeque<Option<Raw>>);

impl State {
    /// How many descriptors a ring has.
    pub(super) fn entries(&self, ring: Ring) -> u32 {
        let length = self.registers.get(if ring == Ring::Transmit { TDLEN } else { RDLEN });
        length / descriptor::SIZE as u32
    }

    /// The bus address of descriptor `index`; the hardware ignores the lower bits of the base (3.4).
    pub(super) fn descriptor_address(&self, ring: Ring, index: u32) -> u64 {
        let (low, high) = if ring == Ring::Transmit { (TDBAL, TDBAH) } else { (RDBAL, RDBAH) };
        let base = u64::from(self.registers.get(high)) << 32 | u64::from(self.registers.get(low) & !0xf);
        base.wrapping_add(u64::from(index) * descriptor::SIZE)
    }

    /// Head and tail, when both are inside the ring.
    pub(super) fn positions(&self, ring: Ring) -> Option<(u32, u32)> {
        let (head, tail) = (self.registers.get(ring.head_register()), self.registers.get(ring.tail_register()));
        let entries = self.entries(ring);
        (head < entries && tail < entries).then_some((head, tail))
    }

    /// How many descriptors the hardware owns.
    pub(super) fn available(&self, ring: Ring) -> u32 {
        self.positions(ring).map_or(0, |(head, tail)| distance(head, tail, self.entries(ring)))
    }

    pub(super) fn advance_head(&mut self, ring: Ring) {
        let entries = self.entries(ring).max(1);
        let head = (self.registers.get(ring.head_register()) + 1) % entries;
        self.registers.set(ring.head_register(), head);
    }

    pub(super) fn owned(&mut self, ring: Ring) -> &mut Owned {
        if ring == Ring::Transmit { &mut self.transmit.owned } else { &mut self.receiver.owned }
    }

    /// The driver writes a tail: what lies before it now belongs to the hardware.
    pub(super) fn write_tail(&mut self, ring: Ring, value: u32) {
        let (tail_name, head_name, section) = ring.terms();
        let (entries, value) = (self.entries(ring), value & 0xffff);
        if value >= entries && (entries, value) != (0, 0) {
            self.violation(format!("{tail_name} was set to {value}, beyond the ring of {entries} descriptors [{section}]"));
            self.registers.set(ring.tail_register(), value);
            return;
        }
        let Some((head, tail)) = self.positions(ring) else {
            self.registers.set(ring.tail_register(), value);
            return;
        };
        let added = distance(tail, value, entries);
        if added > 0 && distance(head, tail, entries) + added >= entries {
            self.violation(format!(
                "{tail_name} was moved from {tail} to {value} past {head_name}, {head}: at least one descriptor has to stay free [{section}]"
            ));
        }
        for index in (0..added).map(|step| (tail + step) % entries) {
            let raw = self.peek_descriptor(ring, index);
            if raw.is_none() {
                self.violation(format!("the {} ring is not in mapped memory [{section}]", ring.name()));
            }
            match (ring, raw) {
                (Ring::Transmit, Some(raw)) => self.inspect_transmit(index, raw),
                (Ring::Receive, Some(raw)) => self.inspect_receive(index, raw),
                (_, None) => {}
            }
            self.owned(ring).0.push_back(raw);
        }
        self.registers.set(ring.tail_register(), value);
        if ring == Ring::Transmit && added > 0 {
            self.inspect_packet_boundary((value + entries - 1) % entries);
        }
    }

    /// A descriptor as it lies in memory, without a DMA access of the device.
    pub(super) fn peek_descriptor(&self, ring: Ring, index: u32) -> Option<Raw> {
        let mut raw = Raw::default();
        self.space.read(self.descriptor_address(ring, index), &mut raw).ok()?;
        Some(raw)
    }

    /// The hardware fetches the descriptor at the head: is it what the driver handed over?
    pub(super) fn check_unchanged(&mut self, ring: Ring, index: u32, raw: Raw) {
        let (.., section) = ring.terms();
        // The status is the hardware's to write, and some faults write it early.
        let but_status = |raw: Raw| Raw::from(std::array::from_fn(|at| if at == STATUS_BYTE { 0 } else { raw[at] }));
        if let Some(Some(before)) = self.owned(ring).0.pop_front()
            && but_status(before) != but_status(raw)
        {
            self.violation(format!("{} descriptor {index} was changed while the hardware owned it [{section}]", ring.name()));
        }
    }
}

impl Holder for State {
    /// A mapping is about to go: does the hardware still own a descriptor that refers to it, or the ring itself?
    fn about_to_unmap(&mut self, range: Range<u64>) {
        let transmits = Tctl::from_bits_retain(self.registers.get(TCTL)).contains(Tctl::EN);
        let receives = Rctl::from_bits_retain(self.registers.get(RCTL)).contains(Rctl::EN);
        if !self.config.bus_master() || self.gone() {
            return;
        }
        for (ring, running) in [(Ring::Transmit, transmits), (Ring::Receive, receives)] {
            let (.., section) = ring.terms();
            let entries = self.entries(ring);
            if !running || entries == 0 {
                continue;
            }
            if range.contains(&self.descriptor_address(ring, 0)) {
                self.violation(format!("the {} ring was unmapped while it was enabled [{section}]", ring.name()));
                continue;
            }
            let Some((head, _)) = self.positions(ring) else { continue };
            for index in (0..self.available(ring)).map(|step| (head + step) % entries) {
                let Some(raw) = self.peek_descriptor(ring, index) else { break };
                let is_context = ring == Ring::Transmit && raw[11] & 0x20 != 0 && raw[10] >> 4 == 0;
                let address = u64::from_le_bytes(raw[..8].try_into().expect("8 of 16 bytes"));
                if !is_context && range.contains(&address) {
                    self.violation(format!("memory was unmapped while {} descriptor {index} referred to it [{section}]", ring.name()));
                    break;
                }
            }
        }
    }
}

/// How many descriptors lie from `from` up to `to`.
pub(super) fn distance(from: u32, to: u32, entries: u32) -> u32 {
    if entries == 0 { 0 } else { (to + entries - from % entries) % entries }
}
