//! Answers that let other stations find and test this one: ARP (RFC 826), neighbour discovery (RFC 4861 7.2.4) and echo (RFC 1122 3.2.2.6,
//! RFC 4443 4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hal::MacAddress;
use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress, Icmpv4Repr, Icmpv6Repr, Ipv4Repr, Ipv6Repr};

use super::address::unusable;
use super::emit::{self, Stations};
use super::interface::multicast_station;
use super::parse::{Content, parse};
use super::{Interface, ndisc};

/// The hop limit of echo replies.
const HOP_LIMIT: u8 = 64;

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An ARP request for the interface's address.
    Arp,
    /// A neighbour solicitation of the interface's address.
    NeighbourSolicitation,
    /// An ICMPv4 echo request.
    Icmpv4Echo,
    /// An ICMPv6 echo request.
    Icmpv6Echo,
}

/// Writes the answer to a received frame into `out`, a whole frame of at least 60 bytes with all checksums, which goes out as it is.
///
/// `None`, and `out` unchanged, for a frame that asks nothing of this interface, and for every one that must not be answered: to or from
/// groups (other than a solicitation to the group of the own address), from this station itself, fragments, packets with options or
/// extension headers, wrong checksums or lengths, and echoes that are longer than the MTU.
///
/// Frames are without an 802.1Q tag, here and in `out`: with a VLAN, the NIC or the [`Port`](crate::send::Port) strips and inserts it, and the
/// port drops those of other VLANs.
pub fn respond(interface: &Interface, frame: &[u8], out: &mut Vec<u8>) -> Option<Kind> {
    let parsed = parse(frame)?;
    let own = interface.mac();
    if parsed.source == own {
        return None;
    }
    let (asked, asker) = (parsed.destination, parsed.source);
    let back = Stations { source: own, destination: asker };
    match (parsed.content, interface.address().address()) {
        (Content::Arp(request), IpAddr::V4(address)) if asked == own || asked == MacAddress::BROADCAST => {
            let (destination, reply) = arp_reply(own, address, &request)?;
            emit::arp(out, Stations { source: own, destination }, &reply);
            Some(Kind::Arp)
        }
        (Content::Icmpv4(header, Icmpv4Repr::EchoRequest { ident, seq_no, data }), IpAddr::V4(address)) if asked == own => {
            let fits = header.buffer_len() + header.payload_len <= interface.mtu().into();
            if header.dst_addr != address || !is_station(interface, header.src_addr.into()) || !fits {
                return None;
            }
            let header = Ipv4Repr { src_addr: address, dst_addr: header.src_addr, hop_limit: HOP_LIMIT, ..header };
            emit::icmpv4(out, back, &header, &Icmpv4Repr::EchoReply { ident, seq_no, data });
            Some(Kind::Icmpv4Echo)
        }
        (Content::Icmpv6(header, Icmpv6Repr::EchoRequest { ident, seq_no, data }), IpAddr::V6(address)) if asked == own => {
            let fits = header.buffer_len() + header.payload_len <= interface.mtu().into();
            if header.dst_addr != address || !is_station(interface, header.src_addr.into()) || !fits {
                return None;
            }
            let header = Ipv6Repr { src_addr: address, dst_addr: header.src_addr, hop_limit: HOP_LIMIT, ..header };
            emit::icmpv6(out, back, &header, &Icmpv6Repr::EchoReply { ident, seq_no, data });
            Some(Kind::Icmpv6Echo)
        }
        (Content::Icmpv6(header, Icmpv6Repr::Ndisc(message)), IpAddr::V6(address)) => {
            let told = ndisc::valid(&header, &message)?;
            let group = ndisc::solicited_node(address);
            let to_us = header.dst_addr == address && asked == own
                || header.dst_addr == group && (asked == own || Some(asked) == multicast_station(group.into()));
            if !told.asks || told.target != address || !to_us {
                return None;
            }
            let (asker, destination) = asker_of(interface, &header, told.station.unwrap_or(asker))?;
            let (header, message) = ndisc::advertisement(own, address, asker);
            emit::icmpv6(out, Stations { source: own, destination }, &header, &message);
            Some(Kind::NeighbourSolicitation)
        }
        _ => None,
    }
}

/// Whom a solicitation is answered to: the asker at its station, or everyone when the asker has no address yet (RFC 4861 7.2.4).
fn asker_of(interface: &Interface, header: &Ipv6Repr, station: MacAddress) -> Option<(Option<Ipv6Addr>, MacAddress)> {
    if header.src_addr.is_unspecified() {
        return Some((None, multicast_station(ndisc::ALL_NODES.into())?));
    }
    let answerable = station != interface.mac() && is_station(interface, header.src_addr.into());
    answerable.then_some((Some(header.src_addr), station))
}

/// Whether `address` is another station's, so that it can be answered to: no group, no broadcast, not the own one.
pub(crate) fn is_station(interface: &Interface, address: IpAddr) -> bool {
    let cidr = interface.address();
    let stands_for_many = address.is_multicast()
        || address == Ipv4Addr::BROADCAST
        || [cidr.broadcast(), cidr.network()].into_iter().flatten().any(|many| address == many);
    address != cidr.address() && !stands_for_many && unusable(address).is_none()
}

/// The reply to a request for the address `own` of `station`, and the station that gets it.
///
/// A request from 0.0.0.0 probes whether the address is free (RFC 5227 2.1.1), and has to be answered. One from `own` announces it for
/// another station: nobody waits for an answer to that.
fn arp_reply(station: MacAddress, own: Ipv4Addr, request: &ArpRepr) -> Option<(MacAddress, ArpRepr)> {
    match *request {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: asker,
            source_protocol_addr: asker_address,
            target_protocol_addr,
            ..
        } if target_protocol_addr == own && asker_address != own => {
            let destination = MacAddress(asker.0);
            let odd = asker_address.is_multicast() || asker_address.is_broadcast() || asker_address.is_loopback();
            if !destination.is_valid_unicast() || destination == station || odd {
                return None;
            }
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: EthernetAddress(station.0),
                source_protocol_addr: own,
                target_hardware_addr: asker,
                target_protocol_addr: asker_address,
            };
            Some((destination, reply))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
