//! From an IP address to an Ethernet address: ARP (RFC 826) and neighbour discovery (RFC 4861 7.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hal::MacAddress;
use smoltcp::wire::{ArpOperation, ArpRepr, Icmpv6Repr};

use super::emit::{self, Stations};
use super::interface::multicast_station;
use super::ndisc::{self, ALL_NODES};
use super::parse::{Content, parse};
use super::{Interface, NetError, NextHop};

/// After the first request. A neighbour answers within milliseconds; a request that is lost was most likely sent before a switch or the
/// simulator's receiver was ready, which takes up to a second, so the second request comes early.
pub const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// After every further request (`RETRANS_TIMER` of RFC 4861 10, and RFC 1122 2.3.2.1's most for ARP).
pub const INTERVAL: Duration = Duration::from_secs(1);

/// After the start, when the resolution fails: six requests, of which four come after the second that a receiver may need to start.
pub const TIME_OUT: Duration = Duration::from_secs(5);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send the frame in `out`, then poll again.
    Send,
    /// Hand over received frames until then, then poll again.
    Wait {
        /// when the next poll has something to do
        until: Duration,
    },
    /// This is the Ethernet address.
    Resolved(MacAddress),
    /// Nobody answered: [`Resolution::no_answer`].
    TimedOut,
}

/// The resolution of one address.
///
/// ```
/// # use std::time::Duration;
/// # use pagewire::net::{Interface, Resolution, Step};
/// let interface = Interface::new("52:54:00:12:34:56".parse().unwrap(), "10.0.2.15/24".parse()?, None, 1500, None)?;
/// let mut resolution = Resolution::new(&interface, "10.0.2.2".parse().unwrap(), Duration::ZERO)?;
/// let mut out = Vec::new();
/// assert_eq!(resolution.poll(Duration::ZERO, &mut out), Step::Send);
/// assert_eq!(resolution.poll(Duration::ZERO, &mut out), Step::Wait { until: Duration::from_millis(500) });
/// # Ok::<(), pagewire::net::NetError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resolution {
    interface: Interface,
    neighbour: IpAddr,
    answer: Option<MacAddress>,
    requests: u32,
    next: Duration,
    deadline: Duration,
}

impl Resolution {
    /// Starts at `now` to find the station that datagrams for `target` are handed to: the target, or the gateway to it. Broadcasts and
    /// groups are resolved at once.
    ///
    /// # Errors
    /// Those of [`Interface::next_hop`].
    pub fn new(interface: &Interface, target: IpAddr, now: Duration) -> Result<Self, NetError> {
        let (neighbour, answer) = match interface.next_hop(target)? {
            NextHop::Station(station) => (target, Some(station)),
            NextHop::Resolve(neighbour) => (neighbour, None),
        };
        Ok(Self { interface: *interface, neighbour, answer, requests: 0, next: now, deadline: now.saturating_add(TIME_OUT) })
    }

    /// Who is asked: the target or the gateway.
    pub fn neighbour(&self) -> IpAddr {
        self.neighbour
    }

    /// What to do at `now`. `out` is changed by [`Step::Send`] alone, and is then a whole frame of at least 60 bytes.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<u8>) -> Step {
        if let Some(station) = self.answer {
            return Step::Resolved(station);
        }
        if now >= self.deadline {
            return Step::TimedOut;
        }
        if now < self.next {
            return Step::Wait { until: self.next.min(self.deadline) };
        }
        self.next = now.saturating_add(if self.requests == 0 { FIRST_INTERVAL } else { INTERVAL });
        self.requests += 1;
        self.request(out);
        Step::Send
    }

    /// Looks at a received frame without a tag. Frames that tell nothing about the neighbour are ignored, whatever is in them.
    pub fn receive(&mut self, frame: &[u8]) {
        // The first answer counts: a later one cannot redirect what is being sent.
        if self.answer.is_none() {
            self.answer = self.told(frame).filter(|station| *station != self.interface.mac());
        }
    }

    /// The error for [`Step::TimedOut`].
    pub fn no_answer(&self) -> NetError {
        NetError::NoAnswer { address: self.neighbour, gateway: self.interface.gateway() == Some(self.neighbour), waited: TIME_OUT }
    }

    fn request(&self, out: &mut Vec<u8>) {
        let source = self.interface.mac();
        match (self.interface.address().address(), self.neighbour) {
            (IpAddr::V4(own), IpAddr::V4(neighbour)) => emit::arp_request(out, source, own, neighbour),
            (IpAddr::V6(own), IpAddr::V6(neighbour)) => {
                let (header, message) = ndisc::solicitation(source, own, neighbour);
                let destination = multicast_station(header.dst_addr.into()).expect("the solicited-node address is a group");
                emit::icmpv6(out, Stations { source, destination }, &header, &message);
            }
            _ => unreachable!("next_hop returns addresses of the interface's family"),
        }
    }

    /// The neighbour's Ethernet address, if the frame tells it.
    fn told(&self, frame: &[u8]) -> Option<MacAddress> {
        let parsed = parse(frame)?;
        match (parsed.content, self.neighbour, self.interface.address().address()) {
            (Content::Arp(packet), IpAddr::V4(neighbour), _) => {
                let to_us = [self.interface.mac(), MacAddress::BROADCAST].contains(&parsed.destination);
                arp_sender(&packet, neighbour).filter(|_| to_us)
            }
            (Content::Icmpv6(header, Icmpv6Repr::Ndisc(message)), IpAddr::V6(neighbour), IpAddr::V6(own)) => {
                let told = ndisc::valid(&header, &message)?;
                let address = if told.asks { header.src_addr } else { told.target };
                let to_us = self.hears(own, header.dst_addr, parsed.destination);
                told.station.filter(|_| to_us && address == neighbour)
            }
            _ => None,
        }
    }

    /// Whether a packet for `address` in a frame for `station` is for this interface: for itself, its group, or all.
    fn hears(&self, own: Ipv6Addr, address: Ipv6Addr, station: MacAddress) -> bool {
        let ours = address == own || address == ALL_NODES || address == ndisc::solicited_node(own);
        ours && (station == self.interface.mac() || Some(station) == multicast_station(address.into()))
    }
}

/// The Ethernet address of `neighbour` when it is the sender. Requests tell it as replies do (RFC 826, "merge"), and
/// gratuitous ones are among both.
fn arp_sender(packet: &ArpRepr, neighbour: Ipv4Addr) -> Option<MacAddress> {
    match *packet {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request | ArpOperation::Reply,
            source_hardware_addr: station,
            source_protocol_addr: address,
            ..
        } if address == neighbour => Some(MacAddress(station.0)).filter(|station| station.is_valid_unicast()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
