//! What can go wrong with addresses and neighbours, and what to do about it.

use std::net::IpAddr;
use std::time::Duration;

use super::address::Family;

/// An address, a quantity or a neighbour that cannot be used. Every text says what is wrong and what to write or do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A text is not a target.
    #[error(
        "{text:?} is not a target: {reason}; write udp://HOST:PORT or tcp://HOST:PORT, as in udp://192.0.2.7:9000 or tcp://[2001:db8::7]:9000"
    )]
    Target {
        /// the text
        text: String,
        /// what is wrong with it
        reason: String,
    },
    /// A text is not an address with its prefix, or no interface can have it.
    #[error("{text:?} cannot be an interface's address: {reason}; write ADDR/PREFIX, as in 10.0.2.15/24 or 2001:db8::15/64")]
    Cidr {
        /// the text
        text: String,
        /// what is wrong with it
        reason: String,
    },
    /// A text is not a rate.
    #[error(
        "{text:?} is not a rate: {reason}; \
         write a number and one of bit, kbit, Mbit, Gbit, Tbit, B, kB, MB, GB, TB (a second, factors of 1000), as in 200Mbit or 25MB/s"
    )]
    Rate {
        /// the text
        text: String,
        /// what is wrong with it
        reason: String,
    },
    /// A text is not a size.
    #[error(
        "{text:?} is not a size: {reason}; write bytes, or a number and one of KiB, MiB, GiB, TiB (factors of 1024; \
         K, M, G, T are the same) or kB, MB, GB, TB (factors of 1000), as in 4096 or 1.5GiB"
    )]
    Size {
        /// the text
        text: String,
        /// what is wrong with it
        reason: String,
    },
    /// The system found no address for a name.
    #[error("the name {name:?} cannot be resolved: {reason}; check its spelling and the name server, or give an address instead")]
    Name {
        /// the name
        name: String,
        /// what the system said
        reason: String,
    },
    /// The NIC's Ethernet address is a group's or all zeros.
    #[error("{mac} cannot be a NIC's Ethernet address; give a unicast address, as in 52:54:00:12:34:56")]
    Mac {
        /// the address
        mac: hal::MacAddress,
    },
    /// The MTU is outside the family's range.
    #[error(
        "an MTU of {mtu} is outside {least}..=16110 bytes, the least being what {family} needs; give one in this range (1500 is usual)"
    )]
    Mtu {
        /// the MTU in bytes
        mtu: u16,
        /// the least MTU of the family
        least: u16,
        /// the family
        family: Family,
    },
    /// The tag control information names a VLAN that frames cannot be sent in.
    #[error("the 802.1Q tag {tag:#06x} names VLAN {identifier}, which is reserved; give one of 1..=4094")]
    Vlan {
        /// the tag control information
        tag: u16,
        /// its VLAN identifier
        identifier: u16,
    },
    /// The gateway cannot be reached from the interface.
    #[error("{gateway} cannot be the gateway of {interface}: {reason}; give the address of a router in this network")]
    Gateway {
        /// the gateway
        gateway: IpAddr,
        /// the interface's address and prefix
        interface: String,
        /// why
        reason: String,
    },
    /// Source and target are of different families.
    #[error(
        "{target} is not an {family} address, but the interface has {interface}; \
         give a target of the same family, or the interface an address of the target's"
    )]
    OtherFamily {
        /// the target
        target: IpAddr,
        /// the interface's address and prefix
        interface: String,
        /// the interface's family
        family: Family,
    },
    /// The target is the interface itself.
    #[error("{0} is this interface's own address, and a NIC cannot send to itself; give the address of another station")]
    OwnAddress(IpAddr),
    /// The target is no address that a datagram can be sent to.
    #[error("nothing can be sent to {target}: {reason}; give the address of a station, a broadcast or a multicast group")]
    NoStation {
        /// the target
        target: IpAddr,
        /// why
        reason: &'static str,
    },
    /// The target is in another network and no gateway is known.
    #[error(
        "{target} is outside this interface's network {interface}; give --gateway with the address of a router in it, or another prefix"
    )]
    NoGateway {
        /// the target
        target: IpAddr,
        /// the interface's address and prefix
        interface: String,
    },
    /// A neighbour did not tell its Ethernet address.
    #[error(
        "{} {address} did not answer {} for {waited:?}: is it on, in this network{}, and does the wire reach it?",
        if *gateway { "the gateway" } else { "the station" },
        if address.is_ipv4() { "ARP" } else { "neighbour discovery" },
        if *gateway { "" } else { " (if not, give a longer prefix and --gateway)" },
    )]
    NoAnswer {
        /// who was asked
        address: IpAddr,
        /// whether it was asked as the gateway, not as the target
        gateway: bool,
        /// for how long
        waited: Duration,
    },
    /// A port of 0.
    #[error("the {which} port is 0, which is no port; give one of 1..=65535")]
    Port {
        /// `source` or `destination`
        which: &'static str,
    },
    /// The Ethernet address of the destination is all zeros.
    #[error("{0} is no station's Ethernet address; resolve the next hop first")]
    Destination(hal::MacAddress),
    /// The NIC does not insert 802.1Q tags, and they are not in the headers.
    #[error("this NIC does not insert 802.1Q tags; let Interface::offered write the tag of VLAN {} into the headers", .0 & 0xfff)]
    NoVlanTag(u16),
    /// The bytes between UDP header and file data do not fit the header block.
    #[error("a prefix of {0} bytes does not fit the header block; use at most 30")]
    Prefix(usize),
}
