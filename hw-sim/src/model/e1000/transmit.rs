//! The transmit unit: descriptors in order from head to tail, write-back, frames onto the wire (3.3, 3.4).

use super::descriptor::{Command, ContextCommand, ContextDescriptor, Raw, STA_DD, TransmitDescriptor};
use super::dma::Aborted;
use super::fault::Fault;
use super::packet::Buffer;
use super::registers::{CTRL, Cause, Ctrl, PBA, TCTL, TXDCTL, Tctl, VET};
use super::ring::{Ring, STATUS_BYTE};
use super::state::State;
use super::statistics::{self, BPTC, GOTCL, GPTC, MPTC, PTC64, TOTL, TPT};

/// A frame without its check sequence is padded to this (13.4.33, PSP).
pub(super) const SHORTEST: usize = 60;
/// The frame check sequence.
pub(super) const FCS: usize = 4;
/// A packet has at least this many bytes before padding, 3.3.3.
const SHORTEST_POSTED: usize = 48;
/// The prototype header is kept in a buffer of this size, 3.5.9.
const HEADER_BUFFER: usize = 240;

impl State {
    /// Processes the ring up to its tail.
    pub(super) fn process_transmit_ring(&mut self) {
        if !Tctl::from_bits_retain(self.registers.get(TCTL)).contains(Tctl::EN) || !self.link_up() || self.gone() {
            return;
        }
        let had_work = self.available(Ring::Transmit) > 0;
        while let Some((head, tail)) = self.positions(Ring::Transmit)
            && head != tail
            && !self.hangs()
        {
            let mut raw = Raw::default();
            if self.dma_read(self.descriptor_address(Ring::Transmit, head), &mut raw).is_err() {
                return;
            }
            self.check_unchanged(Ring::Transmit, head, raw);
            if self.process_descriptor(head, raw).is_err() {
                return;
            }
            self.advance_head(Ring::Transmit);
            self.write_back(head, raw);
            self.check_low();
        }
        if had_work && self.available(Ring::Transmit) == 0 {
            self.raise(Cause::TXQE);
        }
    }

    fn hangs(&mut self) -> bool {
        match &mut self.fault {
            Fault::TransmitHangAfter(0) => self.fault = Fault::TransmitHang,
            Fault::TransmitHangAfter(left) => *left -= 1,
            _ => {}
        }
        self.fault == Fault::TransmitHang
    }

    fn process_descriptor(&mut self, index: u32, raw: Raw) -> Result<(), Aborted> {
        match TransmitDescriptor::parse(raw) {
            TransmitDescriptor::Context(context) => {
                self.load_context(index, context);
                Ok(())
            }
            TransmitDescriptor::Legacy(legacy) => self.add_to_packet(Buffer::legacy(index, &legacy)),
            TransmitDescriptor::Data(data) => self.add_to_packet(Buffer::data(index, &data)),
            TransmitDescriptor::Unknown(_) => Ok(()),
        }
    }

    /// A context descriptor transfers nothing; it prepares the data descriptors that follow (3.3.6).
    fn load_context(&mut self, index: u32, context: ContextDescriptor) {
        self.contexts += 1;
        if self.transmit.packet.is_some() {
            self.violation(format!("transmit descriptor {index}: a context descriptor inside a packet [3.3.5]"));
        }
        if context.command().contains(ContextCommand::TSE) {
            for what in self.inspect_segmentation(&context) {
                self.violation(format!("transmit descriptor {index}: {what}"));
            }
            self.transmit.segmentation = Some(context);
        } else {
            self.transmit.normal = Some(context);
        }
    }

    fn inspect_segmentation(&self, context: &ContextDescriptor) -> Vec<&'static str> {
        let (header, mss) = (usize::from(context.hdrlen), usize::from(context.mss.get()));
        let (ip, l4) = (usize::from(context.ipcss), usize::from(context.tucss));
        let ip_end = usize::from(context.ipcse.get());
        let command = context.command();
        let checksum = if command.contains(ContextCommand::TCP) { 16 } else { 6 };
        let l4_header = if command.contains(ContextCommand::TCP) { 20 } else { 8 };
        let ip_header = if command.contains(ContextCommand::IP) { 20 } else { 40 };
        [
            (header == 0 || mss == 0 || context.paylen() == 0, "a segmentation with HDRLEN, MSS or PAYLEN of 0 [3.3.6]"),
            (header > HEADER_BUFFER, "HDRLEN is above 240, the size of the header buffer [3.5.9]"),
            (header + mss > self.transmit_fifo(), "MSS + HDRLEN is not 80 bytes less than the transmit FIFO [3.3.6]"),
            (ip + ip_header > l4, "TUCSS does not leave room for the IP header behind IPCSS [3.3.6, 3.5.9]"),
            (l4 + l4_header > header, "HDRLEN does not leave room for the TCP or UDP header behind TUCSS [3.3.6, 3.5.9]"),
            (usize::from(context.tucso) != l4 + checksum, "TUCSO is not where the TCP or UDP checksum lies [3.3.6]"),
            (
                command.contains(ContextCommand::IP) && usize::from(context.ipcso) != ip + 10,
                "IPCSO is not where the IPv4 checksum lies [3.3.6]",
            ),
            (command.contains(ContextCommand::IP) && ip_end + 1 != l4, "IPCSE is not the last byte of the IPv4 header [3.3.6]"),
            (
                context.tucse.get() != 0,
                "TUCSE of a segmentation is not 0, so that it does not cover the last byte of every segment [3.3.6]",
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, what)| wrong.then_some(what))
        .collect()
    }

    /// What a packet may fill of the transmit FIFO: TXA less 80 bytes (3.3.6, 3.3.7).
    fn transmit_fifo(&self) -> usize {
        (((self.registers.get(PBA) >> 16) as usize) << 10).saturating_sub(80)
    }

    /// The longest packet: 16288 bytes with the default allocation (3.3.3), less with a smaller FIFO.
    pub(super) fn longest_packet(&self) -> usize {
        self.transmit_fifo().min(16_288)
    }

    /// RS asks for DD (3.3.3.2). With TXDCTL.WTHRESH the write-backs are collected (13.4.44).
    fn write_back(&mut self, index: u32, raw: Raw) {
        let command = Command::from_bits_retain(raw[11]);
        if !command.contains(Command::RS) || self.fault == Fault::NoWriteBack {
            return;
        }
        let address = self.descriptor_address(Ring::Transmit, index) + STATUS_BYTE as u64;
        self.transmit.write_backs.push((address, raw[STATUS_BYTE] & 0xf0 | STA_DD));
        let control = self.registers.get(TXDCTL);
        let in_descriptors = control & 1 << 24 != 0;
        let threshold = (control >> 16 & 0x3f) * if in_descriptors { 1 } else { self.config.cache_line() / 16 };
        if self.transmit.write_backs.len() as u32 >= threshold {
            self.flush_write_backs();
        }
        if command.contains(Command::IDE) {
            self.delayed |= Cause::TXDW;
        } else {
            self.raise(Cause::TXDW);
        }
    }

    pub(super) fn flush_write_backs(&mut self) {
        for (address, status) in std::mem::take(&mut self.transmit.write_backs) {
            if self.dma_write(address, &[status]).is_err() {
                return;
            }
        }
    }

    /// TXDCTL.LWTHRESH, in units of eight descriptors (13.4.44).
    fn check_low(&mut self) {
        let threshold = (self.registers.get(TXDCTL) >> 25) * 8;
        if threshold != 0 && self.available(Ring::Transmit) + 1 == threshold {
            self.raise(Cause::TXD_LOW);
        }
    }

    /// [`Fault::DoneTooEarly`].
    pub(super) fn set_done_early(&mut self) {
        let Some((head, _)) = self.positions(Ring::Transmit) else { return };
        let entries = self.entries(Ring::Transmit);
        for index in (0..self.available(Ring::Transmit)).map(|step| (head + step) % entries) {
            if self.peek_descriptor(Ring::Transmit, index).is_some_and(|raw| Command::from_bits_retain(raw[11]).contains(Command::RS)) {
                let _ = self.dma_write(self.descriptor_address(Ring::Transmit, index) + STATUS_BYTE as u64, &[STA_DD]);
            }
        }
        self.raise(Cause::TXDW);
    }

    /// [`Fault::DoneEverywhere`].
    pub(super) fn set_done_everywhere(&mut self) {
        if !self.config.bus_master() {
            return;
        }
        for index in 0..self.entries(Ring::Transmit) {
            let _ = self.dma_write(self.descriptor_address(Ring::Transmit, index) + STATUS_BYTE as u64, &[STA_DD]);
        }
    }

    /// A finished frame: tag, padding, statistics, wire.
    pub(super) fn put_on_wire(&mut self, mut frame: Vec<u8>, tag: Option<u16>) {
        if frame.len() < SHORTEST_POSTED {
            self.violation(format!("a packet of {} bytes was posted; 48 is the least, even with padding [3.3.3]", frame.len()));
        }
        let tags = Ctrl::from_bits_retain(self.registers.get(CTRL)).contains(Ctrl::VME);
        if let Some(tag) = tag
            && tags
            && frame.len() >= 12
        {
            let ethertype = self.registers.get(VET) as u16;
            frame.splice(12..12, ethertype.to_be_bytes().into_iter().chain(tag.to_be_bytes()));
        }
        if frame.len() < SHORTEST {
            if Tctl::from_bits_retain(self.registers.get(TCTL)).contains(Tctl::PSP) {
                frame.resize(SHORTEST, 0);
            } else {
                self.violation(format!("a packet of {} bytes left without padding, since TCTL.PSP is not set [13.4.33]", frame.len()));
            }
        }
        let length = frame.len() + FCS;
        let registers = &mut self.registers;
        statistics::count(registers, TPT);
        statistics::add_octets(registers, TOTL, length as u64);
        statistics::count_size(registers, PTC64, length);
        // 13.7.30, 13.7.32: below 64 bytes it is not a good packet.
        if length >= SHORTEST + FCS {
            statistics::count(registers, GPTC);
            statistics::add_octets(registers, GOTCL, length as u64);
        }
        match frame.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => statistics::count(registers, BPTC),
            Some([first, ..]) if first & 1 != 0 => statistics::count(registers, MPTC),
            _ => {}
        }
        self.wire.push(frame);
    }
}
