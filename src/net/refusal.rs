//! "Port unreachable": nobody listens where a datagram has gone to (RFC 792, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr,
};

/// Code 3 of ICMPv4's unreachable, code 4 of ICMPv6's.
const PORT_V4: u8 = 3;
const PORT_V6: u8 = 4;
/// Where the quoted packet starts in the message.
const QUOTE: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// Whose UDP port a frame says to be unreachable, as far as it quotes one; `None` for every other frame. It is a hint: anybody may have sent it.
pub fn refused(frame: &[u8]) -> Option<SocketAddr> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            let header = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).ok()?;
            let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            let told = message.msg_type() == Icmpv4Message::DstUnreachable && message.msg_code() == PORT_V4 && message.verify_checksum();
            if header.next_header != IpProtocol::Icmp || !told {
                return None;
            }
            // As much of the packet as the sender likes, so its length says nothing.
            let quoted = packet.payload().get(QUOTE..).filter(|quoted| quoted.len() >= IPV4_LEN)?;
            let sent = Ipv4Packet::new_unchecked(quoted);
            let udp = quoted.get(usize::from(sent.header_len())..)?;
            (sent.version() == 4 && sent.next_header() == IpProtocol::Udp).then_some(())?;
            Some(SocketAddr::new(IpAddr::V4(sent.dst_addr()), destination(udp)?))
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            let header = Ipv6Repr::parse(&packet).ok()?;
            let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
            let told = message.msg_type() == Icmpv6Message::DstUnreachable && message.msg_code() == PORT_V6;
            if header.next_header != IpProtocol::Icmpv6 || !told || !message.verify_checksum(&header.src_addr, &header.dst_addr) {
                return None;
            }
            let quoted = packet.payload().get(QUOTE..).filter(|quoted| quoted.len() >= IPV6_LEN)?;
            let sent = Ipv6Packet::new_unchecked(quoted);
            (sent.version() == 6 && sent.next_header() == IpProtocol::Udp).then_some(())?;
            Some(SocketAddr::new(IpAddr::V6(sent.dst_addr()), destination(&quoted[IPV6_LEN..])?))
        }
        _ => None,
    }
}

/// The destination port of a UDP header.
fn destination(udp: &[u8]) -> Option<u16> {
    udp.get(2..4)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn datagram(ipv6: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if ipv6 {
            let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(49152, 9000);
            builder.write(&mut bytes, &[7; 100]).unwrap();
        } else {
            PacketBuilder::ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64).udp(49152, 9000).write(&mut bytes, &[7; 100]).unwrap();
        }
        bytes
    }

    fn told(ipv6: bool, code: icmpv4::DestUnreachableHeader, quoted: &[u8]) -> Vec<u8> {
        let (mut bytes, builder) = (Vec::new(), PacketBuilder::ethernet2(MAC, MAC));
        if ipv6 {
            let builder = builder.ipv6([2; 16], [1; 16], 64);
            builder.icmpv6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)).write(&mut bytes, quoted).unwrap();
        } else {
            let builder = builder.ipv4([127, 0, 0, 1], [10, 0, 2, 15], 64);
            builder.icmpv4(Icmpv4Type::DestinationUnreachable(code)).write(&mut bytes, quoted).unwrap();
        }
        bytes
    }

    #[test]
    fn the_port_that_nobody_listens_on_is_found_in_the_quoted_packet() {
        let port = icmpv4::DestUnreachableHeader::Port;
        for len in [28, 60, 128] {
            assert_eq!(refused(&told(false, port.clone(), &datagram(false)[..len])), Some("10.0.2.2:9000".parse().unwrap()));
        }
        let expected: SocketAddr = "[202:202:202:202:202:202:202:202]:9000".parse().unwrap();
        assert_eq!(refused(&told(true, port.clone(), &datagram(true))), Some(expected));
        assert_eq!(refused(&told(false, port.clone(), &datagram(false)[..22])), None, "the port is not quoted");
        assert_eq!(refused(&told(false, icmpv4::DestUnreachableHeader::Host, &datagram(false))), None);
        let mut damaged = told(false, port, &datagram(false));
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(refused(&damaged), None, "its checksum is wrong");
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(mut quoted in prop::collection::vec(any::<u8>(), 0..100), ipv6: bool, cut in 0_usize..200) {
            if let Some(first) = quoted.first_mut() {
                *first = *first & 0x0f | if ipv6 { 0x60 } else { 0x40 };
            }
            let frame = told(ipv6, icmpv4::DestUnreachableHeader::Port, &quoted);
            let _ = (refused(&frame), refused(&frame[..cut.min(frame.len())]), refused(&quoted));
        }
    }
}
