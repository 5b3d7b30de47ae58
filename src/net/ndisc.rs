//! Neighbour discovery messages (RFC 4861), and which of them are valid.

use std::net::Ipv6Addr;

use hal::MacAddress;
use smoltcp::wire::{Icmpv6Repr, IpProtocol, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

/// Only a station on the same link can send a packet that arrives with this hop limit: routers decrement it (RFC 4861 7.1).
const HOP_LIMIT: u8 = 255;

/// All stations of the link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A valid neighbour solicitation or advertisement.
pub(super) struct Neighbour {
    /// Whether it asks (a solicitation) or tells (an advertisement).
    pub asks: bool,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// The Ethernet address in its option: the sender's in a solicitation, the target's in an advertisement.
    pub station: Option<MacAddress>,
}

/// The group that a station with `address` listens to for solicitations (RFC 4291 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Reads a message that passes the checks of RFC 4861 7.1.1 and 7.1.2.
pub(super) fn valid(header: &Ipv6Repr, message: &NdiscRepr<'_>) -> Option<Neighbour> {
    if header.hop_limit != HOP_LIMIT || header.src_addr.is_multicast() {
        return None;
    }
    let (asks, target, option) = match *message {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
            // Who has no address yet asks whether the target is free: to the target's group, and without an option.
            if header.src_addr.is_unspecified() && (header.dst_addr != solicited_node(target_addr) || lladdr.is_some()) {
                return None;
            }
            (true, target_addr, lladdr)
        }
        NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            if header.src_addr.is_unspecified() || header.dst_addr.is_multicast() && solicited {
                return None;
            }
            (false, target_addr, lladdr)
        }
        _ => return None,
    };
    if target.is_multicast() {
        return None;
    }
    let station = match option {
        None => None,
        // An option with a group's address, or with one of another link type, makes the message worthless.
        Some(option) => {
            let address = MacAddress(option.as_bytes().try_into().ok()?);
            Some(address).filter(|address| address.is_valid_unicast())?.into()
        }
    };
    Some(Neighbour { asks, target, station })
}

/// A solicitation of `target`, from the station `source` with the address `own`, to the target's group.
pub(super) fn solicitation(source: MacAddress, own: Ipv6Addr, target: Ipv6Addr) -> (Ipv6Repr, Icmpv6Repr<'static>) {
    let lladdr = Some(RawHardwareAddress::from_bytes(&source.0));
    packet(own, solicited_node(target), NdiscRepr::NeighborSolicit { target_addr: target, lladdr })
}

/// An advertisement of the address `own` of the station `source`: to `asker`, or to all when it has no address yet.
pub(super) fn advertisement(source: MacAddress, own: Ipv6Addr, asker: Option<Ipv6Addr>) -> (Ipv6Repr, Icmpv6Repr<'static>) {
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::SOLICITED, asker.is_some());
    let lladdr = Some(RawHardwareAddress::from_bytes(&source.0));
    packet(own, asker.unwrap_or(ALL_NODES), NdiscRepr::NeighborAdvert { flags, target_addr: own, lladdr })
}

fn packet(src_addr: Ipv6Addr, dst_addr: Ipv6Addr, message: NdiscRepr<'static>) -> (Ipv6Repr, Icmpv6Repr<'static>) {
    let next_header = IpProtocol::Icmpv6;
    let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len: message.buffer_len(), hop_limit: HOP_LIMIT };
    (header, Icmpv6Repr::Ndisc(message))
}
