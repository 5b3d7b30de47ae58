//! Checksums between smoltcp and a NIC.

use hal::receive::RxFlags;
use hal::{Offload, OffloadFlags};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket, checksum::pseudo_header,
};

const ETHERNET: usize = 14;

/// An IP packet in a frame, as far as checksums go.
struct Packet {
    source: IpAddress,
    destination: IpAddress,
    protocol: IpProtocol,
    /// Where the transport header starts in the frame, and its data ends.
    start: usize,
    end: usize,
    is_ipv4: bool,
    /// A part of a packet: its checksum is that of the whole.
    fragment: bool,
}

fn parse(frame: &[u8]) -> Option<Packet> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            Some(Packet {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header(),
                start: ETHERNET + usize::from(ip.header_len()),
                end: ETHERNET + usize::from(ip.total_len()),
                is_ipv4: true,
                fragment: ip.more_frags() || ip.frag_offset() > 0,
            })
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            Some(Packet {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                protocol: ip.next_header(),
                start: ETHERNET + ip.header_len(),
                end: ETHERNET + ip.total_len(),
                is_ipv4: false,
                fragment: false,
            })
        }
        _ => None,
    }
}

/// Whether the checksums that smoltcp is told not to look at are right: by the NIC's word, or computed.
pub fn is_intact(frame: &[u8], known: RxFlags) -> bool {
    let Some(packet) = parse(frame) else { return true };
    if packet.is_ipv4
        && !known.contains(RxFlags::IPV4_CHECKSUM_GOOD)
        && !Ipv4Packet::new_checked(&frame[ETHERNET..]).is_ok_and(|ip| ip.verify_checksum())
    {
        return false;
    }
    if packet.fragment || known.contains(RxFlags::L4_CHECKSUM_GOOD) {
        return true;
    }
    let transport = &frame[packet.start..packet.end];
    match packet.protocol {
        IpProtocol::Tcp => TcpPacket::new_checked(transport).is_ok_and(|tcp| tcp.verify_checksum(&packet.source, &packet.destination)),
        IpProtocol::Udp => UdpPacket::new_checked(transport).is_ok_and(|udp| udp.verify_checksum(&packet.source, &packet.destination)),
        _ => true,
    }
}

/// What the NIC has to fill in a frame that smoltcp has built for it, where it `can`; the checksum fields get the sums to start from.
pub fn request(frame: &mut [u8], can: OffloadFlags) -> Offload {
    let Some(packet) = parse(frame) else { return Offload::NONE };
    let mut flags = if packet.is_ipv4 { OffloadFlags::IPV4_CHECKSUM & can } else { OffloadFlags::empty() };
    let transport = match packet.protocol {
        IpProtocol::Udp => Some((OffloadFlags::UDP_CHECKSUM, 6)),
        IpProtocol::Tcp => Some((OffloadFlags::TCP_CHECKSUM, 16)),
        _ => None,
    };
    if let Some((flag, field)) = transport
        && can.contains(flag)
        && !packet.fragment
    {
        let len = (packet.end - packet.start) as u32;
        let seed = pseudo_header(&packet.source, &packet.destination, packet.protocol, len);
        frame[packet.start + field..packet.start + field + 2].copy_from_slice(&seed.to_be_bytes());
        flags |= flag;
    }
    Offload { flags, ip_start: ETHERNET as u8, l4_start: packet.start as u8, ..Offload::NONE }
}
