//! A packet, gathered from its descriptors.

use super::descriptor::{Command, ContextDescriptor, DataDescriptor, LegacyDescriptor, Options};
use super::dma::Aborted;
use super::segmentation;
use super::state::State;
use super::statistics::{self, TSCTC, TSCTFC};
use crate::model::checksum::{self, Misplaced};

/// What a legacy or data descriptor asks for.
#[derive(Clone, Copy)]
pub(super) struct Buffer {
    index: u32,
    /// A data descriptor, not a legacy one.
    extended: bool,
    address: u64,
    length: usize,
    command: Command,
    special: u16,
    options: Options,
    css: u8,
    cso: u8,
}

impl Buffer {
    pub(super) fn legacy(index: u32, descriptor: &LegacyDescriptor) -> Self {
        Self {
            index,
            extended: false,
            address: descriptor.address.get(),
            length: descriptor.length.get().into(),
            command: Command::from_bits_retain(descriptor.cmd),
            special: descriptor.special.get(),
            options: Options::empty(),
            css: descriptor.css,
            cso: descriptor.cso,
        }
    }

    pub(super) fn data(index: u32, descriptor: &DataDescriptor) -> Self {
        Self {
            index,
            extended: true,
            address: descriptor.address.get(),
            length: descriptor.length(),
            command: descriptor.command(),
            special: descriptor.special.get(),
            options: Options::from_bits_truncate(descriptor.popts) & (Options::IXSM | Options::TXSM),
            css: 0,
            cso: 0,
        }
    }

    fn segmented(&self) -> bool {
        self.extended && self.command.contains(Command::TSE)
    }
}

/// A packet whose last descriptor has not come yet.
pub(super) struct Packet {
    first: Buffer,
    /// The context that the first descriptor selected.
    context: Option<ContextDescriptor>,
    data: Vec<u8>,
    /// Where descriptors ended, in bytes from the start.
    ends: Vec<usize>,
    /// More bytes were posted than the packet can have.
    overflows: bool,
}

impl State {
    /// A descriptor with a buffer: the packet grows, and leaves with EOP.
    pub(super) fn add_to_packet(&mut self, buffer: Buffer) -> Result<(), Aborted> {
        let mut packet = match self.transmit.packet.take() {
            Some(packet) => packet,
            None => self.start_packet(buffer),
        };
        if packet.first.extended != buffer.extended {
            self.violation("legacy and data descriptors were mixed in one packet [3.3.3, 3.3.7]");
        } else if packet.first.segmented() != buffer.segmented() {
            self.violation("TSE was not the same in all data descriptors of a packet [3.3.7.1]");
        }
        if buffer.address != 0 && buffer.length != 0 {
            let room = self.room(&packet).saturating_sub(packet.data.len());
            if buffer.length > room {
                packet.overflows = true;
            }
            let start = packet.data.len();
            packet.data.resize(start + buffer.length.min(room), 0);
            self.dma_read(buffer.address, &mut packet.data[start..])?;
            packet.ends.push(packet.data.len());
        }
        if buffer.command.contains(Command::EOP) {
            self.finish_packet(packet, buffer);
        } else {
            self.transmit.packet = Some(packet);
        }
        Ok(())
    }

    fn start_packet(&mut self, first: Buffer) -> Packet {
        let context = if first.segmented() { self.transmit.segmentation } else { self.transmit.normal };
        if context.is_none() && first.segmented() {
            self.violation(format!("transmit descriptor {}: TSE without a segmentation context [3.3.7.1]", first.index));
        } else if context.is_none() && !first.options.is_empty() {
            self.violation(format!("transmit descriptor {}: POPTS asks for a checksum without a context [3.6]", first.index));
        }
        Packet { first, context, data: Vec::new(), ends: Vec::new(), overflows: false }
    }

    /// How many bytes a packet can have.
    fn room(&self, packet: &Packet) -> usize {
        match packet.context {
            Some(context) if packet.first.segmented() => usize::from(context.hdrlen) + context.paylen(),
            _ => self.longest_packet(),
        }
    }

    fn finish_packet(&mut self, mut packet: Packet, last: Buffer) {
        let segmented = packet.first.segmented();
        if packet.data.is_empty() {
            return;
        }
        let starts = std::iter::once(&0).chain(&packet.ends);
        self.last_packet = packet.ends.iter().zip(starts).map(|(end, start)| end - start).collect();
        if segmented && packet.first.index != last.index {
            let of_packet = Command::VLE | Command::IFCS;
            let differ = (packet.first.command ^ last.command).intersects(of_packet);
            if differ || packet.first.special != last.special {
                self.violation("VLE, IFCS or special differ between the first and the last descriptor of a segmentation [3.3.7.1]");
            }
        }
        // 3.3.7.1: valid in the first data descriptor of a segmentation, else in the last of the packet.
        let deciding = if segmented { packet.first } else { last };
        let tag = deciding.command.contains(Command::VLE).then_some(deciding.special);
        if !deciding.command.contains(Command::IFCS) && tag.is_none() {
            self.violation("a packet was posted without IFCS, so that its last bytes stand for the frame check sequence [3.3.3.1]");
        }
        match packet.context {
            Some(context) if segmented => self.segment(&packet, &context, tag),
            None if segmented => {}
            _ if packet.overflows => {
                let longest = self.longest_packet();
                self.violation(format!("a packet of more than {longest} bytes, which the transmit FIFO cannot hold [3.3.3]"));
            }
            context => {
                match context {
                    Some(context) if packet.first.extended => self.insert_checksums(&mut packet.data, packet.first.options, &context),
                    None if packet.first.extended => {}
                    _ => self.insert_legacy_checksum(&mut packet, last),
                }
                self.put_on_wire(packet.data, tag);
            }
        }
    }

    fn insert_checksums(&mut self, data: &mut [u8], options: Options, context: &ContextDescriptor) {
        if options.contains(Options::TXSM) {
            let (start, offset, end) = (context.tucss.into(), context.tucso.into(), context.tucse.get().into());
            self.judge("TUCSS, TUCSO, TUCSE", checksum::insert(data, start, offset, end));
        }
        if options.contains(Options::IXSM) {
            let (start, offset, end) = (context.ipcss.into(), context.ipcso.into(), context.ipcse.get().into());
            self.judge("IPCSS, IPCSO, IPCSE", checksum::insert(data, start, offset, end));
            if segmentation::ipv4_header(data, start).is_none_or(|header| end + 1 != start + header) {
                self.violation("IXSM was set, but IPCSS to IPCSE is not an IPv4 header [3.3.6]");
            }
        }
    }

    /// IC is ignored when CSS or CSO are outside the packet (3.3.3.1).
    fn insert_legacy_checksum(&mut self, packet: &mut Packet, last: Buffer) {
        if !last.command.contains(Command::IC) {
            return;
        }
        if (packet.first.css, packet.first.cso) != (last.css, last.cso) {
            self.violation("CSS and CSO differ between the first and the last descriptor of a packet [3.3.3]");
        }
        let outcome = checksum::insert(&mut packet.data, packet.first.css.into(), last.cso.into(), 0);
        self.judge("CSS, CSO", outcome);
    }

    fn judge(&mut self, offsets: &str, outcome: Result<(), Misplaced>) {
        let what = match outcome {
            Ok(()) => return,
            Err(Misplaced::Start) => "the checksum starts beyond the packet",
            Err(Misplaced::Offset) => "the checksum would be put beyond the packet",
            Err(Misplaced::End) => "the checksum ends beyond the packet or before it starts",
            Err(Misplaced::NotCovered) => "the checksum is put outside of what it covers",
        };
        self.violation(format!("{offsets}: {what} [3.3.3.1, 3.3.6]"));
    }

    fn segment(&mut self, packet: &Packet, context: &ContextDescriptor, tag: Option<u16>) {
        let (header, promised) = (usize::from(context.hdrlen), context.paylen());
        for what in segmentation::inspect(context, &packet.data, &packet.ends) {
            self.violation(what);
        }
        if packet.overflows || packet.data.len() != header + promised {
            let bytes = packet.data.len().saturating_sub(header);
            let more = if packet.overflows { "more than " } else { "" };
            self.violation(format!(
                "the descriptors of a segmentation hold {more}{bytes} bytes of payload, PAYLEN says {promised} [3.3.7.1]"
            ));
            statistics::count(&mut self.registers, TSCTFC);
        } else {
            statistics::count(&mut self.registers, TSCTC);
        }
        let right = self.ipv6_payload_length_right;
        for segment in segmentation::segments(context, packet.first.options, &packet.data, right) {
            self.put_on_wire(segment, tag);
        }
    }
}
