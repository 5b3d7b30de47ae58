//! Packets from the wire into the buffers of receive queues (5.1.6.3, 5.1.6.4).

use super::fault::Fault;
use super::features::Features;
use super::header::*;
use super::queue::Lie;
use super::state::State;
use super::transmit::{complete_checksum, segments};
use crate::model::Received;
use crate::model::layers::{Layers, TCP};
use crate::model::segmentation::{has_cwr, update_u16};

/// The longest packet with large receive, with its header (5.1.6.3.1).
const LARGE_BUFFER: usize = 65_562;

impl State {
    /// A frame, complete as it comes from a wire. `pair`: the queue that it goes to, unless the device chooses.
    pub(super) fn receive(&mut self, frame: &[u8], pair: Option<u16>) -> Received {
        let mut header = Header::default();
        let verifies = Layers::of(frame).is_some_and(|layers| layers.verifies(frame));
        if verifies && self.guest_offload(Features::GUEST_CSUM) {
            header.flags = DATA_VALID;
        }
        self.deliver(frame, header, pair)
    }

    /// A packet of a neighbour on the same host: its checksum field holds the pseudo-header's sum.
    pub(super) fn receive_partial(&mut self, frame: &[u8], pair: Option<u16>) -> Received {
        let Some(layers) = Layers::of(frame) else { return Received::Filtered };
        let mut frame = frame.to_vec();
        if !self.guest_offload(Features::GUEST_CSUM) {
            complete_checksum(&mut frame, layers.l4, layers.checksum());
            return self.deliver(&frame, Header::default(), pair);
        }
        self.deliver(&frame, needs_checksum(&layers), pair)
    }

    /// Several segments as one packet, `mss` bytes of payload each. Its lengths are those of the whole packet; its checksum field is filled here.
    pub(super) fn receive_coalesced(&mut self, packet: &[u8], mss: u16, pair: Option<u16>) -> Received {
        let Some(layers) = Layers::of(packet).filter(|_| mss != 0) else { return Received::Filtered };
        let mut packet = packet.to_vec();
        let seed = layers.pseudo_header(&packet, packet.len() - layers.l4);
        update_u16(&mut packet, layers.checksum(), |_| seed);
        let (gso_type, feature) = match (layers.protocol == TCP, layers.ipv6) {
            (true, false) => (GSO_TCPV4, Features::GUEST_TSO4),
            (true, true) => (GSO_TCPV6, Features::GUEST_TSO6),
            (false, false) => (GSO_UDP_L4, Features::GUEST_USO4),
            (false, true) => (GSO_UDP_L4, Features::GUEST_USO6),
        };
        let marked = layers.protocol == TCP && has_cwr(&packet, layers.l4);
        if !self.guest_offload(feature) || marked && !self.guest_offload(Features::GUEST_ECN) {
            let received: Vec<Received> = segments(&packet, &layers, mss.into()).iter().map(|frame| self.receive(frame, pair)).collect();
            return received.into_iter().find(|received| *received != Received::Delivered).unwrap_or(Received::Delivered);
        }
        let gso_type = gso_type | if marked { GSO_ECN } else { 0 };
        let header = Header { gso_type, gso_size: mss, hdr_len: layers.payload as u16, ..needs_checksum(&layers) };
        self.deliver(&packet, header, pair)
    }

    fn deliver(&mut self, frame: &[u8], mut header: Header, pair: Option<u16>) -> Received {
        if !self.live() || self.link & super::config::LINK_UP == 0 {
            return Received::Off;
        }
        if frame.len() < 14 || !self.passes(frame) {
            return Received::Filtered;
        }
        let (chosen, hash) = self.steer(frame);
        if let Some((value, report)) = hash.filter(|_| self.accepted.contains(Features::HASH_REPORT)) {
            (header.hash_value, header.hash_report) = (value, report);
        }
        let pair = pair.unwrap_or(chosen);
        self.fill(pair * 2, frame, header)
    }

    /// Fills as many buffers as the packet needs.
    fn fill(&mut self, index: u16, frame: &[u8], mut header: Header) -> Received {
        self.observe(index);
        self.expect_notification(index);
        if !self.live() {
            return Received::Off;
        }
        let merges = self.accepted.contains(Features::MRG_RXBUF);
        let header_size = Header::size(self.accepted);
        let total = header_size + frame.len();
        let Some(Some(queue)) = self.queues.get(usize::from(index)) else { return Received::Missed };
        let (mut room, mut needed) = (0, 0);
        for chain in queue.waiting.iter().take(if merges { usize::MAX } else { 1 }) {
            room += chain.writable();
            needed += 1;
            if room >= total {
                break;
            }
        }
        let small = queue.waiting.iter().take(needed).map(super::chain::Chain::writable).min();
        let readable = queue.waiting.iter().take(needed).any(|chain| chain.readable() > 0);
        self.inspect_receive(index, small, readable, header_size, merges);
        if room < total {
            return Received::Missed;
        }
        header.num_buffers = needed as u16;
        self.lie_in_header(&mut header);
        let packet = [header.bytes(self.accepted), frame.to_vec()].concat();
        let mut rest = &packet[..];
        let mut done = Vec::new();
        for _ in 0..needed {
            let Some(chain) = self.next_chain(index) else { return Received::Missed };
            let (piece, more) = rest.split_at(rest.len().min(chain.writable()));
            rest = more;
            if let Err(fault) = chain.write(&self.space, piece) {
                self.fail(fault);
                return Received::Missed;
            }
            let len = match self.fault {
                Fault::RxLengthTooLong => chain.writable() as u32 + 1,
                Fault::RxLengthTooShort => header_size as u32 - 1,
                _ => piece.len() as u32,
            };
            done.push((chain, len));
        }
        let lie = if self.fault == Fault::RxIdOutOfRange { Lie::OutOfRange } else { Lie::None };
        self.give_back(index, &done, false, lie);
        Received::Delivered
    }

    /// The buffers that a packet would go to (5.1.6.3.1).
    fn inspect_receive(&mut self, index: u16, smallest: Option<usize>, readable: bool, header: usize, merges: bool) {
        let large = self.accepted.intersects(Features::LARGE_RECEIVE);
        let least = match (merges, large) {
            (true, _) => header,
            (false, true) => LARGE_BUFFER - 12 + header,
            (false, false) => header + 1514,
        };
        if let Some(smallest) = smallest.filter(|smallest| *smallest < least) {
            self.violation(format!("queue {index}: a receive buffer of {smallest} bytes; {least} are the least [5.1.6.3.1]"));
        }
        if readable {
            self.violation(format!("queue {index}: a receive buffer has a device-readable part [5.1.6.3]"));
        }
    }

    fn lie_in_header(&self, header: &mut Header) {
        match self.fault {
            Fault::RxBuffersZero => header.num_buffers = 0,
            Fault::RxBuffersTooMany => header.num_buffers = u16::MAX,
            Fault::RxChecksumBeyond => (header.flags, header.csum_start, header.csum_offset) = (NEEDS_CSUM, u16::MAX, 16),
            Fault::RxChecksumOffsetBeyond => (header.flags, header.csum_start, header.csum_offset) = (NEEDS_CSUM, 34, u16::MAX),
            Fault::RxGarbageHeader => {
                let num_buffers = header.num_buffers;
                *header = Header::parse(&[0xff; 12]).unwrap_or_default();
                (header.num_buffers, header.hash_value, header.hash_report) = (num_buffers, u32::MAX, u16::MAX);
            }
            _ => {}
        }
    }

    /// Whether the driver has an offload on: negotiated, and not switched off since.
    fn guest_offload(&self, feature: Features) -> bool {
        self.control.guest_offloads.contains(feature)
    }
}

fn needs_checksum(layers: &Layers) -> Header {
    let offset = layers.checksum() - layers.l4;
    Header { flags: NEEDS_CSUM, csum_start: layers.l4 as u16, csum_offset: offset as u16, ..Header::default() }
}
