//! What arrives: TCP segments for this station, and routers' complaints about packets that are too large.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hal::MacAddress;
use hal::receive::RxFlags;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetFrame, EthernetProtocol, IPV4_HEADER_LEN, IPV6_HEADER_LEN, Icmpv4Packet, Icmpv6Packet, IpProtocol,
    Ipv4Packet, Ipv6Packet, TcpPacket,
};

use super::segment::Segment;
use super::seq::Seq;
use crate::net::{Interface, is_station};

/// A packet that concerns connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival<'p> {
    /// A segment from `peer`, in a frame of `station`.
    Segment { station: MacAddress, peer: IpAddr, segment: Segment<'p> },
    /// A packet of ours to `peer`, with the segment `seq` of `local_port`, was larger than a link on its way carries: `mtu` bytes.
    TooBig { peer: SocketAddr, local_port: u16, seq: Seq, mtu: u16 },
}

/// The type and code of "fragmentation needed and DF set" (RFC 792, RFC 1191 4), and of "packet too big" (RFC 4443 3.2).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: u8 = 2;
/// The bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// The least that a router tells of the packet: ports and sequence number.
const QUOTED: usize = 8;

/// Whether the words of some bytes and `more` add up to what RFC 1071 asks for, in whatever order the bytes of a word are.
#[inline(always)]
pub(super) fn adds_up(words: &[[u8; 4]], more: u16) -> bool {
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>() + u64::from(more.to_be());
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) + (sum & 0xffff) == 0xffff
}

/// Reads a frame without a tag, if it is what nearly all are that come for connections: a whole IPv4 packet without options, for this station,
/// whose checksums are right; they are looked at here as far as the NIC says nothing of them (no virtio-net does of the IP header's, QEMU's e1000 of
/// none). Returns the sender's address, which nobody has looked at, and the segment. `None` for everything else: then [`parse`] says what it is.
#[inline]
pub(super) fn parse_usual<'p>(interface: &Interface, frame: &'p [u8], checked: RxFlags) -> Option<(Ipv4Addr, Segment<'p>)> {
    const HEADERS: usize = ETHERNET_HEADER_LEN + IPV4_HEADER_LEN;
    /// Type 0x0800, version 4 with 5 words of header.
    const USUAL: [u8; 3] = [0x08, 0x00, 0x45];
    let IpAddr::V4(own) = interface.address().address() else { return None };
    let head: &[u8; HEADERS] = frame.first_chunk()?;
    let usual = head[..6] == interface.mac().0
        && head[12..15] == USUAL
        // No fragment: neither more of them nor an offset.
        && u16::from_be_bytes([head[20], head[21]]) & 0x3fff == 0
        && head[23] == u8::from(IpProtocol::Tcp)
        && head[30..] == own.octets()
        && (checked.contains(RxFlags::IPV4_CHECKSUM_GOOD) || adds_up(head[ETHERNET_HEADER_LEN..].as_chunks().0, 0));
    if !usual {
        return None;
    }
    let end = ETHERNET_HEADER_LEN + usize::from(u16::from_be_bytes([head[16], head[17]]));
    let peer = Ipv4Addr::new(head[26], head[27], head[28], head[29]);
    let payload = frame.get(HEADERS..end)?;
    let good = checked.contains(RxFlags::L4_CHECKSUM_GOOD) || has_right_checksum(payload, peer.into(), own.into());
    let segment = Segment::parse(payload).ok().filter(|_| good)?;
    Some((peer, segment))
}

/// Reads a frame without a tag. `None` for everything else than an [`Arrival`] for this station: fragments, wrong lengths, and wrong checksums
/// as far as `checked` does not say that they are right.
pub(super) fn parse<'p>(interface: &Interface, frame: &'p [u8], checked: RxFlags) -> Option<Arrival<'p>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let station = MacAddress(ethernet.src_addr().0);
    if ethernet.dst_addr().0 != interface.mac().0 || !station.is_valid_unicast() {
        return None;
    }
    let packet = &frame[ETHERNET_HEADER_LEN..];
    let own = interface.address().address();
    let (peer, to, protocol, payload) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let header = Ipv4Packet::new_checked(packet).ok()?;
            let whole = header.version() == 4 && !header.more_frags() && header.frag_offset() == 0;
            if !whole || !(checked.contains(RxFlags::IPV4_CHECKSUM_GOOD) || header.verify_checksum()) {
                return None;
            }
            let payload = packet.get(header.header_len().into()..header.total_len().into())?;
            (IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()), header.next_header(), payload)
        }
        EthernetProtocol::Ipv6 => {
            let header = Ipv6Packet::new_checked(packet).ok().filter(|header| header.version() == 6)?;
            let payload = packet.get(IPV6_HEADER_LEN..header.total_len())?;
            (IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()), header.next_header(), payload)
        }
        _ => return None,
    };
    if to != own {
        return None;
    }
    match protocol {
        IpProtocol::Tcp if is_station(interface, peer) => {
            let good = checked.contains(RxFlags::L4_CHECKSUM_GOOD) || has_right_checksum(payload, peer, own);
            let segment = Segment::parse(payload).ok().filter(|_| good)?;
            Some(Arrival::Segment { station, peer, segment })
        }
        IpProtocol::Icmp => {
            let message = Icmpv4Packet::new_checked(payload).ok().filter(Icmpv4Packet::verify_checksum)?;
            if [message.msg_type().into(), message.msg_code()] != FRAGMENTATION_NEEDED {
                return None;
            }
            too_big(own, payload.get(ICMP_HEADER..)?, u16::from_be_bytes([payload[6], payload[7]]))
        }
        IpProtocol::Icmpv6 => {
            let (IpAddr::V6(from), IpAddr::V6(own_v6)) = (peer, own) else { return None };
            let message = Icmpv6Packet::new_checked(payload).ok().filter(|message| message.verify_checksum(&from, &own_v6))?;
            if u8::from(message.msg_type()) != PACKET_TOO_BIG {
                return None;
            }
            too_big(own, payload.get(ICMP_HEADER..)?, u16::try_from(message.pkt_too_big_mtu()).unwrap_or(u16::MAX))
        }
        _ => None,
    }
}

fn has_right_checksum(segment: &[u8], peer: IpAddr, own: IpAddr) -> bool {
    TcpPacket::new_checked(segment).is_ok_and(|packet| packet.verify_checksum(&peer.into(), &own.into()))
}

/// Reads what a router quotes of a packet: its IP header, and what stands behind it, which the router may have cut off.
fn too_big(own: IpAddr, quoted: &[u8], mtu: u16) -> Option<Arrival<'static>> {
    let (from, peer, protocol, header_len) = match own {
        IpAddr::V4(_) if quoted.len() >= IPV4_HEADER_LEN => {
            let header = Ipv4Packet::new_unchecked(quoted);
            (IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()), header.next_header(), usize::from(header.header_len()))
        }
        IpAddr::V6(_) if quoted.len() >= IPV6_HEADER_LEN => {
            let header = Ipv6Packet::new_unchecked(quoted);
            (IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()), header.next_header(), IPV6_HEADER_LEN)
        }
        _ => return None,
    };
    let ports: [u8; QUOTED] = quoted.get(header_len..header_len + QUOTED)?.try_into().ok()?;
    if from != own || protocol != IpProtocol::Tcp {
        return None;
    }
    let [a, b, c, d, seq @ ..] = ports;
    let (local_port, peer_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some(Arrival::TooBig { peer: SocketAddr::new(peer, peer_port), local_port, seq: Seq(u32::from_be_bytes(seq)), mtu })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::net::checker::{OWN, OWN_V4, OWN_V6, PEER, PEER_V4, PEER_V6, v4, v6};
    use crate::tcp::segment::Flags;

    fn tcp_v4(data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4(PEER_V4, OWN_V4, 64).tcp(51000, 80, 7, 1000).syn();
        packet.write(&mut frame, data).unwrap();
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn tcp_v6(data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(PEER.0, OWN.0).ipv6(PEER_V6, OWN_V6, 64).tcp(51000, 80, 7, 1000).ack(9).write(&mut frame, data).unwrap();
        frame
    }

    fn icmp_v4(quoted: &[u8], mtu: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4([10, 0, 2, 1], OWN_V4, 64);
        let [a, b] = mtu.to_be_bytes();
        packet.icmpv4_raw(3, 4, [0, 0, a, b]).write(&mut frame, quoted).unwrap();
        frame
    }

    #[test]
    fn a_segment_is_read_without_the_frame_s_padding() {
        for (interface, frame, peer) in [(v4(), tcp_v4(b"abc"), PEER_V4.into()), (v6(), tcp_v6(b"abc"), IpAddr::from(PEER_V6))] {
            let Some(Arrival::Segment { station, peer: from, segment }) = parse(&interface, &frame, RxFlags::empty()) else {
                panic!("a segment")
            };
            assert_eq!((station, from, segment.payload), (PEER, peer, &b"abc"[..]));
            assert_eq!((segment.header.source_port, segment.header.destination_port, segment.header.seq), (51000, 80, Seq(7)));
            assert_eq!(segment.header.flags.contains(Flags::SYN), interface == v4());
        }
    }

    #[test]
    fn a_wrong_checksum_is_seen_unless_the_nic_has_verified_it() {
        for (interface, mut frame) in [(v4(), tcp_v4(b"abc")), (v6(), tcp_v6(b"abc"))] {
            let last = if interface == v4() { 14 + 40 } else { 14 + 60 };
            frame[last] ^= 1;
            assert_eq!(parse(&interface, &frame, RxFlags::empty()), None);
            assert!(parse(&interface, &frame, RxFlags::L4_CHECKSUM_GOOD).is_some());
        }
        let mut frame = tcp_v4(b"");
        frame[14 + 8] ^= 1;
        assert_eq!(parse(&v4(), &frame, RxFlags::L4_CHECKSUM_GOOD), None);
    }

    #[test]
    fn the_usual_way_reads_what_the_general_one_reads() {
        let whole = tcp_v4(b"abc");
        let good = RxFlags::IPV4_CHECKSUM_GOOD | RxFlags::L4_CHECKSUM_GOOD;
        let (peer, segment) = parse_usual(&v4(), &whole, good).expect("a usual frame");
        assert_eq!(parse(&v4(), &whole, good), Some(Arrival::Segment { station: PEER, peer: peer.into(), segment }));
        assert_eq!(segment.payload, b"abc");
        for checked in [RxFlags::empty(), RxFlags::IPV4_CHECKSUM_GOOD, RxFlags::L4_CHECKSUM_GOOD] {
            assert_eq!(parse_usual(&v4(), &whole, checked), Some((peer, segment)));
            for at in 14..57 {
                let mut other = whole.clone();
                other[at] ^= 0x20;
                let known = if at < 34 { RxFlags::IPV4_CHECKSUM_GOOD } else { RxFlags::L4_CHECKSUM_GOOD };
                if !checked.contains(known) {
                    assert_eq!(parse_usual(&v4(), &other, checked), None, "byte {at}, which the NIC has not checked");
                }
            }
        }
        assert_eq!(parse_usual(&v6(), &tcp_v6(b"abc"), good), None);
        // Another station, type, header length, fragment, protocol, address; lengths behind the frame's end, and before the header's.
        for (at, value) in [(5, 0xff), (12, 0x86), (14, 0x46), (20, 0x20), (21, 1), (23, 17), (33, 99), (16, 0xff), (17, 19), (17, 39)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!(parse_usual(&v4(), &other, good), None, "byte {at}");
        }
        for len in 0..14 + 43 {
            assert_eq!(parse_usual(&v4(), &whole[..len], good), None, "{len} bytes");
        }
    }

    #[test]
    fn what_is_not_for_this_station_is_not_taken() {
        let frame = tcp_v4(b"abc");
        for (at, value) in [(5, 0xff), (14 + 19, 99), (14 + 6, 0x20), (14 + 9, 17), (12, 0x86)] {
            let mut other = frame.clone();
            other[at] = value;
            crate::net::fill_ipv4_header(&mut other, 14);
            assert_eq!(parse(&v4(), &other, RxFlags::L4_CHECKSUM_GOOD), None, "byte {at}");
        }
        // A sender that is no station.
        for sender in [[224, 0, 0, 1], OWN_V4, [10, 0, 2, 255], [0; 4]] {
            let mut other = frame.clone();
            other[14 + 12..14 + 16].copy_from_slice(&sender);
            crate::net::fill_ipv4_header(&mut other, 14);
            assert_eq!(parse(&v4(), &other, RxFlags::L4_CHECKSUM_GOOD), None, "{}", Ipv4Addr::from(sender));
        }
    }

    #[test]
    fn a_router_s_complaint_names_the_connection_and_the_mtu() {
        let mut quoted = Vec::new();
        PacketBuilder::ipv4(OWN_V4, PEER_V4, 64).tcp(80, 51000, 0x0102_0304, 1000).write(&mut quoted, &[0; 1400]).unwrap();
        // Routers quote as little as the ports and the sequence number.
        for len in [28, 60] {
            let expected = Arrival::TooBig { peer: (PEER_V4, 51000).into(), local_port: 80, seq: Seq(0x0102_0304), mtu: 1400 };
            assert_eq!(parse(&v4(), &icmp_v4(&quoted[..len], 1400), RxFlags::empty()), Some(expected));
        }
        assert_eq!(parse(&v4(), &icmp_v4(&quoted[..27], 1400), RxFlags::empty()), None);
        quoted[15] = 99;
        assert_eq!(parse(&v4(), &icmp_v4(&quoted[..60], 1400), RxFlags::empty()), None, "not a packet of ours");

        let (mut quoted, mut frame) = (Vec::new(), Vec::new());
        PacketBuilder::ipv6(OWN_V6, PEER_V6, 64).tcp(80, 51000, 5, 1000).write(&mut quoted, &[0; 1400]).unwrap();
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv6(PEER_V6, OWN_V6, 64);
        packet.icmpv6_raw(2, 0, 1300_u32.to_be_bytes()).write(&mut frame, &quoted[..1200]).unwrap();
        let expected = Arrival::TooBig { peer: (PEER_V6, 51000).into(), local_port: 80, seq: Seq(5), mtu: 1300 };
        assert_eq!(parse(&v6(), &frame, RxFlags::empty()), Some(expected));
    }

    proptest! {
        #[test]
        fn a_sum_is_the_rfc_s(mut words: [[u8; 4]; 10], more: u16, right: bool) {
            use smoltcp::wire::checksum;
            if right {
                words[4] = [0; 4];
                let rest = !checksum::combine(&[checksum::data(words.as_flattened()), more]);
                words[4][2..].copy_from_slice(&rest.to_be_bytes());
            }
            let sum = checksum::combine(&[checksum::data(words.as_flattened()), more]);
            prop_assert_eq!(adds_up(&words, more), sum == 0xffff);
            prop_assert!(!right || adds_up(&words, more));
        }

        #[test]
        fn no_frame_makes_it_panic(at in 0..100_usize, with in proptest::collection::vec(any::<u8>(), 0..8), cut in 0..120_usize) {
            let mut quoted = Vec::new();
            PacketBuilder::ipv4(OWN_V4, PEER_V4, 64).tcp(80, 51000, 5, 1000).write(&mut quoted, &[0; 40]).unwrap();
            for (interface, mut frame) in [(v4(), tcp_v4(&[1; 60])), (v6(), tcp_v6(&[1; 60])), (v4(), icmp_v4(&quoted, 1400))] {
                frame.truncate(cut);
                for (place, value) in frame.iter_mut().skip(at).zip(&with) {
                    *place = *value;
                }
                for flags in [RxFlags::empty(), RxFlags::all()] {
                    let general = parse(&interface, &frame, flags);
                    if let Some((from, read)) = parse_usual(&interface, &frame, flags)
                        && let Some(arrival) = general
                    {
                        let Arrival::Segment { peer, segment, .. } = arrival else { panic!("{arrival:?}") };
                        prop_assert_eq!((IpAddr::V4(from), read), (peer, segment));
                    }
                }
            }
        }
    }
}
