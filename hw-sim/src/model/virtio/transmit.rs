//! Packets from transmit queues to the wire: what the header asks for, and what it must not (5.1.6.2).

use super::features::Features;
use super::header::*;
use super::state::State;
use crate::model::checksum;
use crate::model::layers::{Layers, TCP, UDP};
use crate::model::segmentation as common;

/// The longest packet with an Ethernet header (5.1.6.3), and room for a VLAN tag.
const LONGEST: usize = 65_550 + 4;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;

impl State {
    /// A whole buffer of the transmit queue of `pair`.
    pub(super) fn transmit(&mut self, pair: u16, bytes: &[u8]) {
        let size = Header::size(self.accepted);
        let (Some(header), Some(frame)) = (Header::parse(bytes), bytes.get(size..)) else {
            self.violation(format!("a transmitted buffer of {} bytes has no room for the header of {size} [5.1.6]", bytes.len()));
            return;
        };
        if bytes[12..size].iter().any(|byte| *byte != 0) {
            self.violation("a hash was reported for a transmitted packet [5.1.6.2]");
        }
        if frame.len() < ETHERNET_HEADER || frame.len() > LONGEST {
            self.violation(format!("a packet of {} bytes was transmitted [5.1.6.2]", frame.len()));
            return;
        }
        self.inspect_header(&header, frame);
        let mut frame = frame.to_vec();
        let (start, field) = (usize::from(header.csum_start), usize::from(header.csum_start) + usize::from(header.csum_offset));
        let frames = match header.gso_type & !GSO_ECN {
            GSO_NONE if header.flags & NEEDS_CSUM == 0 => vec![frame],
            GSO_NONE => {
                complete_checksum(&mut frame, start, field);
                vec![frame]
            }
            _ => match Layers::of(&frame) {
                Some(layers) if header.gso_size != 0 => segments(&frame, &layers, header.gso_size.into()),
                _ => Vec::new(),
            },
        };
        self.wire.extend(frames.into_iter().map(|frame| (pair, frame)));
    }

    fn inspect_header(&mut self, header: &Header, frame: &[u8]) {
        let accepted = self.accepted;
        let mut wrong: Vec<String> = Vec::new();
        let mut check = |bad: bool, what: &str| {
            if bad {
                wrong.push(format!("{what} [5.1.6.2.1]"));
            }
        };
        let gso = header.gso_type & !GSO_ECN;
        check(header.num_buffers != 0, "num_buffers of a transmitted packet is not 0");
        check(header.flags & (DATA_VALID | RSC_INFO) != 0, "DATA_VALID or RSC_INFO was set in a transmitted packet");
        check(header.flags & !(NEEDS_CSUM | DATA_VALID | RSC_INFO) != 0, "undefined flags were set in a transmitted packet");
        check(header.flags != 0 && !accepted.contains(Features::CSUM), "flags were set without VIRTIO_NET_F_CSUM");
        let needed = match gso {
            GSO_NONE => Features::empty(),
            GSO_TCPV4 => Features::HOST_TSO4,
            GSO_TCPV6 => Features::HOST_TSO6,
            GSO_UDP_L4 => Features::HOST_USO,
            _ => {
                check(true, "gso_type is one that the device does not offer");
                Features::empty()
            }
        };
        check(!accepted.contains(needed), "gso_type asks for a segmentation that was not negotiated");
        let layers = Layers::of(frame);
        if header.flags & NEEDS_CSUM != 0 {
            self.inspect_checksum(header, frame, layers, gso != GSO_NONE);
        }
        let mut check = |bad: bool, what: &str| {
            if bad {
                wrong.push(format!("{what} [5.1.6.2.1]"));
            }
        };
        if gso == GSO_NONE {
            check(header.gso_type & GSO_ECN != 0, "GSO_ECN was set without a segmentation");
            let most = usize::from(self.config.mtu) + ETHERNET_HEADER + if frame[12..14] == [0x81, 0] { VLAN_TAG } else { 0 };
            if accepted.contains(Features::MTU) && frame.len() > most {
                self.violation(format!("a packet of {} bytes is longer than the MTU, without a segmentation [5.1.4.2]", frame.len()));
            }
        } else {
            check(header.flags & NEEDS_CSUM == 0, "a segmentation was asked for without NEEDS_CSUM");
            check(header.gso_size == 0, "a segmentation was asked for with a gso_size of 0");
            let fits = layers.filter(|layers| match gso {
                GSO_TCPV4 => layers.protocol == TCP && !layers.ipv6,
                GSO_TCPV6 => layers.protocol == TCP && layers.ipv6,
                _ => layers.protocol == UDP,
            });
            check(fits.is_none(), "gso_type does not fit the headers of the packet");
            if let Some(layers) = fits {
                let said = usize::from(header.hdr_len);
                if accepted.contains(Features::GUEST_HDRLEN) {
                    check(said != layers.payload, "hdr_len is not the length of the headers, with VIRTIO_NET_F_GUEST_HDRLEN");
                } else {
                    check(said < layers.payload, "hdr_len is less than the length of the headers");
                }
                let cwr = layers.protocol == TCP && common::has_cwr(frame, layers.l4);
                let marked = header.gso_type & GSO_ECN != 0;
                check((cwr || marked) && !accepted.contains(Features::HOST_ECN), "a segmentation with ECN without VIRTIO_NET_F_HOST_ECN");
                check(cwr && !marked && accepted.contains(Features::HOST_ECN), "a segmentation of a packet with ECN without GSO_ECN");
                check(layers.end(frame) != frame.len(), "the IP length of a packet to be segmented is not that of the packet");
            }
        }
        wrong.into_iter().for_each(|what| self.violation(what));
    }

    /// NEEDS_CSUM: the device sums from `csum_start` to the end, and the field holds the pseudo-header's sum.
    fn inspect_checksum(&mut self, header: &Header, frame: &[u8], layers: Option<Layers>, segmented: bool) {
        let (start, field) = (usize::from(header.csum_start), usize::from(header.csum_start) + usize::from(header.csum_offset));
        if start >= frame.len() || field + 2 > frame.len() {
            self.violation("csum_start or csum_offset is beyond the packet [5.1.6.2.1]");
            return;
        }
        let Some(layers) = layers else { return };
        if start != layers.l4 || field != layers.checksum() {
            self.violation("csum_start and csum_offset are not those of the packet's TCP or UDP header [5.1.6.2.1]");
            return;
        }
        let end = if segmented { frame.len() } else { layers.end(frame) };
        let seed = u16::from_be_bytes([frame[field], frame[field + 1]]);
        // In one's complement 0 and 0xffff are the same number.
        if layers.pseudo_header(frame, end.saturating_sub(layers.l4)) % 0xffff != seed % 0xffff {
            self.violation("the checksum field does not hold the sum of the pseudo-header with the length [5.1.6.2.1]");
        }
    }
}

/// Sums from `start` to the end of the frame into `field`. A sum of 0 is written as 0xffff, the same number in one's complement, since 0 means
/// "none" to UDP; so do the back ends of QEMU and Linux.
pub(super) fn complete_checksum(frame: &mut [u8], start: usize, field: usize) {
    if checksum::insert(frame, start, field, 0).is_ok() {
        common::update_u16(frame, field, |sum| if sum == 0 { 0xffff } else { sum });
    }
}

/// The frames of a packet whose checksum field holds the pseudo-header's sum with the whole length, `mss` bytes of payload each.
pub(super) fn segments(packet: &[u8], layers: &Layers, mss: usize) -> Vec<Vec<u8>> {
    let (headers, payload) = packet.split_at(layers.payload);
    let whole = packet.len() - layers.l4;
    let mut sent = 0;
    let mut frames = Vec::new();
    for (number, chunk) in payload.chunks(mss).enumerate() {
        let mut frame = [headers, chunk].concat();
        if layers.ipv6 {
            common::update_ipv6(&mut frame, layers.ip);
        } else {
            common::update_ipv4(&mut frame, layers.ip, number);
            common::update_u16(&mut frame, layers.ip + 10, |_| 0);
            let _ = checksum::insert(&mut frame, layers.ip, layers.ip + 10, layers.l4 - 1);
        }
        if layers.protocol == TCP {
            common::update_tcp(&mut frame, layers.l4, sent, sent + chunk.len() == payload.len());
            if number > 0 {
                common::clear_cwr(&mut frame, layers.l4);
            }
        } else {
            common::update_udp(&mut frame, layers.l4);
        }
        // The seed counts the whole length: a segment has its own.
        let own = frame.len() - layers.l4;
        let difference = checksum::fold(u64::from(!(whole as u16)) + own as u64);
        common::update_u16(&mut frame, layers.checksum(), |seed| checksum::fold(u64::from(seed) + u64::from(difference)));
        complete_checksum(&mut frame, layers.l4, layers.checksum());
        sent += chunk.len();
        frames.push(frame);
    }
    frames
}
