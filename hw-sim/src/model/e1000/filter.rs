//! Which packets are for this station: addresses (3.2.1, 13.5.1 to 13.5.3) and VLANs (9.3).

use super::registers::{MTA, RAH_AV, RAH0, RAL0, RCTL, RECEIVE_ADDRESSES, Rctl, VET, VFTA};
use super::state::State;

/// How a packet passed the address filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// By an address in RAL and RAH, or as a broadcast.
    Exactly,
    /// By the hash of a group address or because everything passes: PIF is set.
    Inexactly,
}

/// The tag control information, when the Ethernet type is VET.
pub(super) fn tag(state: &State, frame: &[u8]) -> Option<u16> {
    let [high, low, tci_high, tci_low] = *frame.get(12..)?.first_chunk()?;
    (u32::from(u16::from_be_bytes([high, low])) == state.registers.get(VET)).then_some(u16::from_be_bytes([tci_high, tci_low]))
}

impl State {
    /// Whether a frame passes all filters; it has at least an Ethernet header.
    pub(super) fn filter(&self, frame: &[u8]) -> Option<Passed> {
        let rctl = Rctl::from_bits_retain(self.registers.get(RCTL));
        if let Some(tag) = tag(self, frame).filter(|_| rctl.contains(Rctl::VFE)) {
            let word = self.registers.get(VFTA + u64::from(tag >> 5 & 0x7f) * 4);
            let canonical = tag >> 12 & 1 != 0;
            if word >> (tag & 0x1f) & 1 == 0 || rctl.contains(Rctl::CFIEN) && canonical != rctl.contains(Rctl::CFI) {
                return None;
            }
        }
        let (destination, rest) = frame.split_first_chunk::<6>()?;
        let source = rest.first_chunk::<6>()?;
        let broadcast = *destination == [0xff; 6];
        let group = destination[0] & 1 != 0;
        if broadcast && rctl.contains(Rctl::BAM) || self.exact_match(destination, source) {
            return Some(Passed::Exactly);
        }
        let inexact = match group {
            true => rctl.contains(Rctl::MPE) || self.hash_match(destination, rctl),
            false => rctl.contains(Rctl::UPE),
        };
        inexact.then_some(Passed::Inexactly)
    }

    fn exact_match(&self, destination: &[u8; 6], source: &[u8; 6]) -> bool {
        (0..RECEIVE_ADDRESSES).any(|index| {
            let (low, high) = (self.registers.get(RAL0 + index * 8), self.registers.get(RAH0 + index * 8));
            let [a, b, c, d] = low.to_le_bytes();
            let [e, f, ..] = high.to_le_bytes();
            let compared = match high >> 16 & 0b11 {
                0b00 => destination,
                0b01 => source,
                _ => return false,
            };
            high & RAH_AV != 0 && *compared == [a, b, c, d, e, f]
        })
    }

    /// RCTL.MO selects twelve bits of the address: the upper seven are the row of the table, the lower five the bit in it (13.5.1).
    fn hash_match(&self, destination: &[u8; 6], rctl: Rctl) -> bool {
        let shift = match (rctl & Rctl::MO).bits() >> 12 {
            0b00 => 4,
            0b01 => 3,
            0b10 => 2,
            _ => 0,
        };
        let hash = u16::from_le_bytes([destination[4], destination[5]]) >> shift & 0xfff;
        self.registers.get(MTA + u64::from(hash >> 5) * 4) >> (hash & 0x1f) & 1 != 0
    }
}
