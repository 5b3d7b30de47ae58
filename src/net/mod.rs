//! Addresses, neighbours and headers: what a NIC driver needs of IP to reach its neighbours, and no more.
//!
//! | room | holds |
//! |---|---|
//! | [`address`] | what a user writes: [`Target`], [`Cidr`], [`Rate`], [`Size`] |
//! | [`interface`] | the NIC's own addresses, and [`NextHop`]: which station a datagram goes to |
//! | [`neighbour`] | [`Resolution`]: an IP address becomes an Ethernet address, by ARP or neighbour discovery |
//! | [`refusal`] | [`refused`]: the answer that nobody listens on a port |
//! | [`responder`] | [`respond`]: answers to ARP, neighbour discovery and ping, so that others find this station |
//! | [`mod@announce`] | [`announce()`]: a station that has come tells the others |
//! | [`udp`] | [`UdpFlow`]: the precomputed headers of a UDP flow, for a NIC that fills the checksums |
//! | [`checksum`] | the checksums in software, for a NIC that does not |
//!
//! Nothing here reads a clock or prints, and nothing that is called for each datagram allocates. Time is an argument, `now`, measured
//! from an epoch of the caller's choice. All frames are Ethernet II. The tag of an [`Interface`] with a VLAN is inserted and stripped by the
//! NIC; for one that does not, it stands in the headers ([`Interface::offered`]), and a [`Port`](crate::send::Port) does it to all other frames.

pub mod address;
pub mod announce;
pub mod checksum;
pub mod interface;
pub mod neighbour;
pub mod refusal;
pub mod responder;
pub mod udp;

mod emit;
mod error;
pub(crate) mod ip;
mod ndisc;
mod parse;
pub(crate) mod vlan;

#[cfg(test)]
pub(crate) mod checker;

pub use address::{Cidr, Family, Host, Rate, Scheme, Size, Target};
pub use announce::announce;
pub use checksum::{fill_ipv4_header, finish_in_software};
pub use error::NetError;
pub use interface::{Interface, NextHop};
pub use neighbour::{Resolution, Step};
pub use refusal::refused;
pub(crate) use responder::is_station;
pub use responder::{Kind, respond};
pub use udp::{HEADER_ROOM, UdpFlow};
