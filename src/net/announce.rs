//! A station that has come tells the others, so that nobody has to ask for it first, and nobody goes on sending to one that had its address
//! before.

use std::net::IpAddr;

use super::emit::{self, Stations};
use super::interface::multicast_station;
use super::{Interface, ndisc};

/// Writes into `out` the frame that tells everybody on the link of `interface`: an ARP announcement (RFC 5227 2.3), or an unsolicited neighbour
/// advertisement (RFC 4861 7.2.6). It is whole, and without a tag.
pub fn announce(interface: &Interface, out: &mut Vec<u8>) {
    let source = interface.mac();
    match interface.address().address() {
        IpAddr::V4(own) => emit::arp_request(out, source, own, own),
        IpAddr::V6(own) => {
            let (header, message) = ndisc::advertisement(source, own, None);
            let destination = multicast_station(header.dst_addr.into()).expect("all nodes are a group");
            emit::icmpv6(out, Stations { source, destination }, &header, &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::ArpOperation;
    use hal::MacAddress;

    use super::*;
    use crate::net::checker::*;

    #[test]
    fn over_ipv4_it_asks_everybody_for_its_own_address() {
        let mut frame = Vec::new();
        announce(&v4(), &mut frame);
        assert_eq!(frame, arp(MacAddress::BROADCAST, ArpOperation::REQUEST, (OWN, OWN_V4), (MacAddress([0; 6]), OWN_V4)));
    }

    #[test]
    fn over_ipv6_it_tells_all_nodes() {
        let mut frame = Vec::new();
        announce(&v6(), &mut frame);
        let packet = check(&frame);
        assert_eq!(stations(&packet), [OWN, ALL_MAC]);
        assert_eq!(v6_of(&packet), ([OWN_V6, ALL_V6], 255));
        // Nobody has asked for it.
        assert_eq!(icmpv6_of(&packet), (ADVERTISEMENT, OVERRIDE, &[&OWN_V6[..], &link_layer(2, OWN)].concat()[..]));
    }
}
