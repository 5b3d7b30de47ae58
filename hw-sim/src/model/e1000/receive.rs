//! The receive unit: a frame from the wire goes through the filters into the buffers of one or several descriptors (3.2).

use super::descriptor::{Raw, ReceiveDescriptor, RxErrors, RxStatus};
use super::dma::Aborted;
use super::fault::Fault;
use super::filter::{self, Passed};
use super::receive_checksum;
use super::registers::{CTRL, Cause, Ctrl, RCTL, RDLEN, RDTR, RXCSUM, Rctl, Rxcsum};
use super::ring::{Ring, STATUS_BYTE};
use super::state::State;
use super::statistics::{self, BPRC, CRCERRS, GORCL, GPRC, MPC, MPRC, PRC64, RLEC, RNBC, ROC, RUC, TORL, TPR};
use super::transmit::{FCS, SHORTEST};
use crate::model::Received;

/// The longest packet with its check sequence, without and with RCTL.LPE (13.7.36).
const LONGEST: usize = 1522;
const LONGEST_LPE: usize = 16_384;
/// Destination, source and type.
const ETHERNET_HEADER: usize = 14;

/// What one packet's descriptors tell.
struct Report {
    status: RxStatus,
    errors: RxErrors,
    special: u16,
    checksum: u16,
}

impl State {
    pub(super) fn receive(&mut self, frame: &[u8]) -> Received {
        let rctl = Rctl::from_bits_retain(self.registers.get(RCTL));
        if self.gone() || !self.link_up() || !rctl.contains(Rctl::EN) {
            return Received::Off;
        }
        let padded = frame.len().max(SHORTEST);
        statistics::count(&mut self.registers, TPR);
        statistics::add_octets(&mut self.registers, TORL, (padded + FCS) as u64);
        if frame.len() < ETHERNET_HEADER {
            statistics::count(&mut self.registers, RUC);
            statistics::count(&mut self.registers, RLEC);
            return Received::Filtered;
        }
        let mut packet = frame.to_vec();
        packet.resize(padded, 0);
        let Some(passed) = self.filter(&packet) else { return Received::Filtered };
        packet.extend(receive_checksum::crc32(&packet).to_le_bytes());
        if packet.len() > if rctl.contains(Rctl::LPE) { LONGEST_LPE } else { LONGEST } {
            statistics::count(&mut self.registers, ROC);
            statistics::count(&mut self.registers, RLEC);
            return Received::Filtered;
        }
        self.deliver(packet, passed, rctl)
    }

    fn deliver(&mut self, mut packet: Vec<u8>, passed: Passed, rctl: Rctl) -> Received {
        let length = packet.len();
        let kind = (packet[0] & 1 != 0).then(|| if packet[..6] == [0xff; 6] { BPRC } else { MPRC });
        let report = self.report(&packet, passed);
        if self.strips_tags() && filter::tag(self, &packet).is_some() {
            packet.drain(12..16);
        }
        if rctl.contains(Rctl::SECRC) {
            packet.truncate(packet.len() - FCS);
        }
        let size = buffer_size(rctl);
        let needed = packet.len().div_ceil(size) as u32 + u32::from(self.fault == Fault::RxSkipsDescriptor);
        let available = self.available(Ring::Receive);
        if needed > available {
            statistics::count(&mut self.registers, MPC);
            statistics::count(&mut self.registers, RNBC);
            self.raise(Cause::RXO);
            return Received::Missed;
        }
        if self.fault == Fault::RxSkipsDescriptor {
            self.receiver.owned.0.pop_front();
            self.advance_head(Ring::Receive);
        }
        if self.fill_buffers(&packet, size, &report).is_err() {
            statistics::count(&mut self.registers, MPC);
            return Received::Missed;
        }
        if report.errors.contains(RxErrors::CE) {
            statistics::count(&mut self.registers, CRCERRS);
        } else {
            statistics::count(&mut self.registers, GPRC);
            statistics::add_octets(&mut self.registers, GORCL, length as u64);
            statistics::count_size(&mut self.registers, PRC64, length);
            kind.into_iter().for_each(|counter| statistics::count(&mut self.registers, counter));
        }
        if matches!(self.fault, Fault::RxError | Fault::RxSkipsDescriptor) {
            self.fault = Fault::None;
        }
        self.announce(rctl, available);
        Received::Delivered
    }

    fn strips_tags(&self) -> bool {
        Ctrl::from_bits_retain(self.registers.get(CTRL)).contains(Ctrl::VME)
    }

    /// What the descriptors say of a packet, check sequence included (3.2.3).
    fn report(&self, packet: &[u8], passed: Passed) -> Report {
        let control = self.registers.get(RXCSUM);
        let offloads = Rxcsum::from_bits_retain(control);
        let (strips, tag) = (self.strips_tags(), filter::tag(self, packet));
        let (mut status, mut errors) =
            receive_checksum::verify(packet, tag.is_some(), offloads.contains(Rxcsum::IPOFLD), offloads.contains(Rxcsum::TUOFLD));
        status.set(RxStatus::PIF, passed == Passed::Inexactly);
        status.set(RxStatus::VP, strips && tag.is_some());
        let mut special = if strips { tag.unwrap_or(0) } else { 0 };
        match self.fault {
            Fault::RxError => errors |= RxErrors::CE,
            Fault::RxGarbageStatus => {
                (status, errors, special) = (RxStatus::from_bits_retain(0xff), RxErrors::from_bits_retain(0xff), 0xffff)
            }
            _ => {}
        }
        // The packet checksum is the sum from PCSS to the end, not complemented, over what was on the wire (13.4.45).
        let start = (control as u8 as usize).min(packet.len());
        Report { status, errors, special, checksum: crate::model::checksum::sum(&packet[start..]) }
    }

    /// Only address, length and DD are valid where EOP is not set (3.2.3.1); the packet checksum is in the first descriptor.
    fn fill_buffers(&mut self, packet: &[u8], size: usize, report: &Report) -> Result<(), Aborted> {
        let pieces = packet.len().div_ceil(size);
        for (number, piece) in packet.chunks(size).enumerate() {
            let index = self.registers.get(Ring::Receive.head_register());
            let address = self.descriptor_address(Ring::Receive, index);
            let mut raw = Raw::default();
            self.dma_read(address, &mut raw)?;
            self.check_unchanged(Ring::Receive, index, raw);
            let mut descriptor: ReceiveDescriptor = zerocopy::transmute!(raw);
            if descriptor.address.get() != 0 {
                self.dma_write(descriptor.address.get(), piece)?;
            }
            let length = match self.fault {
                Fault::RxLengthTooLong => 0xffff,
                Fault::RxLengthZero => 0,
                _ => piece.len() as u16,
            };
            descriptor.length = length.into();
            descriptor.checksum = if number == 0 { report.checksum } else { 0 }.into();
            (descriptor.status, descriptor.errors, descriptor.special) = (RxStatus::DD.bits(), 0, 0.into());
            if number + 1 == pieces && self.fault != Fault::RxNeverEnds {
                descriptor.status |= (RxStatus::EOP | report.status).bits();
                descriptor.errors = report.errors.bits();
                descriptor.special = report.special.into();
            }
            let raw: Raw = zerocopy::transmute!(descriptor);
            // The status last: it is what tells the driver that the rest is there.
            self.dma_write(address, &raw[..STATUS_BYTE])?;
            self.dma_write(address + STATUS_BYTE as u64 + 1, &raw[STATUS_BYTE + 1..])?;
            self.dma_write(address + STATUS_BYTE as u64, &raw[STATUS_BYTE..=STATUS_BYTE])?;
            self.advance_head(Ring::Receive);
        }
        if self.fault == Fault::RxBeyondTail
            && let Some((_, tail)) = self.positions(Ring::Receive)
        {
            let status = RxStatus::DD | RxStatus::EOP;
            self.dma_write(self.descriptor_address(Ring::Receive, tail) + STATUS_BYTE as u64, &[status.bits()])?;
        }
        Ok(())
    }

    /// The interrupts of a packet: the receive timer, and the threshold of free descriptors (13.4.22, RDMTS).
    fn announce(&mut self, rctl: Rctl, before: u32) {
        if self.registers.get(RDTR) & 0xffff == 0 {
            self.raise(Cause::RXT0);
        } else {
            self.delayed |= Cause::RXT0;
        }
        let fraction = (rctl & Rctl::RDMTS).bits() >> 8;
        let threshold = (self.registers.get(RDLEN) / 16) >> (fraction + 1);
        if before > threshold && self.available(Ring::Receive) <= threshold {
            self.raise(Cause::RXDMT0);
        }
    }
}

/// RCTL.BSIZE and BSEX (13.4.22).
fn buffer_size(rctl: Rctl) -> usize {
    let shift = (rctl & Rctl::BSIZE).bits() >> 16;
    let size = 2048_usize >> shift;
    // 00b is reserved with BSEX; there is no telling what it does.
    if rctl.contains(Rctl::BSEX) && shift != 0 { size * 16 } else { size }
}
