//! The NIC as a station of its network, and which station a datagram goes to next.

use std::net::{IpAddr, Ipv4Addr};

use hal::{MacAddress, Offload, OffloadFlags};

use super::NetError;
use super::address::{Cidr, Family, unusable};
use super::ndisc::{ALL_NODES, solicited_node};

/// The largest MTU: a frame of the 8254x has at most 16128 bytes with its Ethernet header and checksum.
pub const MAX_MTU: u16 = 16110;

/// The addresses of the NIC. Valid by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    mac: MacAddress,
    address: Cidr,
    gateway: Option<IpAddr>,
    mtu: u16,
    vlan: Option<u16>,
    /// The tag stands in the headers, since the NIC does not insert it.
    tagged: bool,
}

/// Whom to hand a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// The station or stations with this Ethernet address: a broadcast or multicast one, which follows from the IP address.
    Station(MacAddress),
    /// The station with this address in the own network, whose Ethernet address is found by a [`Resolution`](super::Resolution).
    Resolve(IpAddr),
}

impl Interface {
    /// A station with these addresses.
    ///
    /// `mtu` is the most bytes of an IP packet: 68..=16110 (RFC 791), for IPv6 1280..=16110 (RFC 8200 5). `vlan` is the tag control
    /// information of IEEE 802.1Q: the VLAN, with priority in the upper four bits. The NIC inserts and strips the tag,
    /// if it can: see [`offered`](Self::offered).
    ///
    /// # Errors
    /// [`NetError::Mac`], [`NetError::Mtu`], [`NetError::Vlan`], and [`NetError::Gateway`] for a gateway that is no station of the network.
    pub fn new(mac: MacAddress, address: Cidr, gateway: Option<IpAddr>, mtu: u16, vlan: Option<u16>) -> Result<Self, NetError> {
        if !mac.is_valid_unicast() {
            return Err(NetError::Mac { mac });
        }
        let family = address.family();
        let least = least_mtu(family);
        if !(least..=MAX_MTU).contains(&mtu) {
            return Err(NetError::Mtu { mtu, least, family });
        }
        if let Some(tag) = vlan.filter(|tag| tag & VLAN_IDENTIFIER == VLAN_IDENTIFIER) {
            return Err(NetError::Vlan { tag, identifier: tag & VLAN_IDENTIFIER });
        }
        let interface = Self { mac, address, gateway, mtu, vlan, tagged: false };
        if let Some(gateway) = gateway {
            interface.check_gateway(gateway)?;
        }
        Ok(interface)
    }

    /// The Ethernet address.
    pub const fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The IP address and its network's prefix.
    pub const fn address(&self) -> Cidr {
        self.address
    }

    /// The router to other networks.
    pub const fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// The most bytes of an IP packet.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The 802.1Q tag control information of every frame.
    pub const fn vlan(&self) -> Option<u16> {
        self.vlan
    }

    /// The same station at a NIC that does no more than `offered`: if it does not insert tags, that of the interface's VLAN is part of all
    /// headers that are made for it, and nothing is asked of the NIC.
    pub const fn offered(mut self, offered: OffloadFlags) -> Self {
        self.tagged = self.vlan.is_some() && !offered.contains(OffloadFlags::VLAN_TAG);
        self
    }

    /// The tag control information that stands in the headers, since the NIC does not insert it.
    pub(crate) const fn written_tag(&self) -> Option<u16> {
        if self.tagged { self.vlan } else { None }
    }

    /// What to ask the NIC for with a frame that is finished but for its tag: those of [`Resolution`](super::Resolution) and
    /// [`respond`](super::respond()).
    pub fn offload(&self) -> Offload {
        match self.vlan {
            Some(vlan_tag) if !self.tagged => Offload { flags: OffloadFlags::VLAN_TAG, vlan_tag, ..Offload::NONE },
            _ => Offload::NONE,
        }
    }

    /// The Ethernet addresses of the groups that this station has to hear, for a NIC's filter: with IPv6, those that neighbours ask for it
    /// through (RFC 4291 2.8).
    pub fn groups(&self) -> impl Iterator<Item = MacAddress> {
        let groups = match self.address.address() {
            IpAddr::V4(_) => [None, None],
            IpAddr::V6(own) => [ALL_NODES, solicited_node(own)].map(Some),
        };
        groups.into_iter().flatten().filter_map(|group| multicast_station(group.into()))
    }

    /// The station that a datagram for `target` is handed to (RFC 1122 3.3.1, RFC 4861 5.2).
    ///
    /// # Errors
    /// [`NetError::OtherFamily`], [`NetError::OwnAddress`], [`NetError::NoStation`], and [`NetError::NoGateway`] for a target outside the
    /// own network.
    pub fn next_hop(&self, target: IpAddr) -> Result<NextHop, NetError> {
        if Family::of(target) != self.address.family() {
            return Err(NetError::OtherFamily { target, interface: self.address.to_string(), family: self.address.family() });
        }
        if target == self.address.address() {
            return Err(NetError::OwnAddress(target));
        }
        let refused = |reason| Err(NetError::NoStation { target, reason });
        if let Some(reason) = unusable(target) {
            return refused(reason);
        }
        if let Some(station) = multicast_station(target) {
            // Scope 0 is reserved, scope 1 is the interface itself (RFC 4291 2.7).
            return match target {
                IpAddr::V6(group) if group.octets()[1] & 0xf <= 1 => refused("groups of this scope never leave a host"),
                _ => Ok(NextHop::Station(station)),
            };
        }
        if target == Ipv4Addr::BROADCAST || Some(target) == self.address.broadcast().map(IpAddr::V4) {
            return Ok(NextHop::Station(MacAddress::BROADCAST));
        }
        if Some(target) == self.address.network().map(IpAddr::V4) {
            return refused("it stands for the network itself");
        }
        if self.on_link(target) {
            return Ok(NextHop::Resolve(target));
        }
        self.gateway.map(NextHop::Resolve).ok_or_else(|| NetError::NoGateway { target, interface: self.address.to_string() })
    }

    /// Whether `address` is reached without a router: in the own network, or link-local (RFC 3927 2.6.2, RFC 4861 5.1).
    fn on_link(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        link_local || self.address.contains(address)
    }

    fn check_gateway(&self, gateway: IpAddr) -> Result<(), NetError> {
        let error = |reason: String| Err(NetError::Gateway { gateway, interface: self.address.to_string(), reason });
        let family = self.address.family();
        if Family::of(gateway) != family {
            return error(format!("it is not an {family} address"));
        }
        if gateway == self.address.address() {
            return error("it is the interface itself".into());
        }
        match self.next_hop(gateway) {
            _ if !self.on_link(gateway) => error("it is outside this network".into()),
            Ok(NextHop::Resolve(_)) => Ok(()),
            _ => error("it is not a station's address".into()),
        }
    }
}

/// The part of the tag control information that names the VLAN; all ones are reserved (IEEE 802.1Q 9.6).
const VLAN_IDENTIFIER: u16 = 0xfff;

/// What every link must carry in one packet: RFC 791 3.2, RFC 8200 5.
const fn least_mtu(family: Family) -> u16 {
    match family {
        Family::V4 => 68,
        Family::V6 => 1280,
    }
}

/// The Ethernet address of a multicast group: RFC 1112 6.4, RFC 2464 7.
pub(super) fn multicast_station(group: IpAddr) -> Option<MacAddress> {
    match group {
        IpAddr::V4(group) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            Some(MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(group) if group.is_multicast() => {
            let [.., a, b, c, d] = group.octets();
            Some(MacAddress([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn interface(address: &str, gateway: Option<&str>) -> Result<Interface, NetError> {
        Interface::new(MAC, address.parse().unwrap(), gateway.map(|gateway| gateway.parse().unwrap()), 1500, None)
    }

    fn hop(address: &str, gateway: Option<&str>, target: &str) -> Result<NextHop, String> {
        interface(address, gateway).unwrap().next_hop(target.parse().unwrap()).map_err(|error| error.to_string())
    }

    fn resolve(address: &str) -> Result<NextHop, String> {
        Ok(NextHop::Resolve(address.parse().unwrap()))
    }

    fn station(mac: &str) -> Result<NextHop, String> {
        Ok(NextHop::Station(mac.parse().unwrap()))
    }

    #[test]
    fn stations_of_the_own_network_are_reached_directly_and_others_through_the_gateway() {
        let (v4, v6) = ("10.0.2.15/24", "2001:db8::15/64");
        assert_eq!(hop(v4, None, "10.0.2.2"), resolve("10.0.2.2"));
        assert_eq!(hop(v4, Some("10.0.2.1"), "192.0.2.7"), resolve("10.0.2.1"));
        assert_eq!(hop(v6, None, "2001:db8::7"), resolve("2001:db8::7"));
        assert_eq!(hop(v6, Some("fe80::1"), "2001:db8:1::7"), resolve("fe80::1"));
        assert_eq!(hop("192.0.2.0/31", None, "192.0.2.1"), resolve("192.0.2.1"));
    }

    #[test]
    fn link_local_stations_are_never_behind_a_router() {
        assert_eq!(hop("10.0.2.15/24", Some("10.0.2.1"), "169.254.1.2"), resolve("169.254.1.2"));
        assert_eq!(hop("2001:db8::15/64", None, "fe80::2"), resolve("fe80::2"));
    }

    #[test]
    fn a_station_with_ipv6_hears_the_groups_that_it_is_asked_through() {
        assert_eq!(interface("10.0.2.15/24", None).unwrap().groups().count(), 0);
        let groups: Vec<String> = interface("2001:db8::12:3456/64", None).unwrap().groups().map(|group| group.to_string()).collect();
        assert_eq!(groups, ["33:33:00:00:00:01", "33:33:ff:12:34:56"]);
    }

    #[test]
    fn broadcasts_go_to_every_station() {
        assert_eq!(hop("10.0.2.15/24", None, "255.255.255.255"), station("ff:ff:ff:ff:ff:ff"));
        assert_eq!(hop("10.0.2.15/24", None, "10.0.2.255"), station("ff:ff:ff:ff:ff:ff"));
        assert_eq!(hop("10.0.2.15/24", Some("10.0.2.1"), "10.0.3.255"), resolve("10.0.2.1"));
    }

    #[test]
    fn multicast_groups_have_an_ethernet_address_of_their_own() {
        assert_eq!(hop("10.0.2.15/24", None, "239.129.2.3"), station("01:00:5e:01:02:03"));
        assert_eq!(hop("10.0.2.15/24", None, "224.0.0.251"), station("01:00:5e:00:00:fb"));
        assert_eq!(hop("fe80::1/64", None, "ff02::1:ff12:3456"), station("33:33:ff:12:34:56"));
    }

    #[test]
    fn a_target_that_cannot_be_reached_says_why_and_what_to_give() {
        for (address, target, reason) in [
            ("10.0.2.15/24", "192.0.2.7", "give --gateway"),
            ("2001:db8::15/64", "2001:db8:1::7", "give --gateway"),
            ("10.0.2.15/24", "10.0.2.15", "cannot send to itself"),
            ("10.0.2.15/24", "2001:db8::7", "not an IPv4 address"),
            ("2001:db8::15/64", "10.0.2.2", "not an IPv6 address"),
            ("10.0.2.15/24", "0.0.0.0", "unspecified"),
            ("2001:db8::15/64", "::", "unspecified"),
            ("10.0.2.15/24", "127.0.0.1", "loopback"),
            ("10.0.2.15/24", "10.0.2.0", "the network itself"),
            ("2001:db8::15/64", "ff01::1", "never leave a host"),
        ] {
            let error = hop(address, None, target).expect_err(target);
            assert!(error.contains(reason), "{target}: {error}");
        }
    }

    #[test]
    fn a_gateway_is_another_station_of_the_network() {
        for (address, gateway, reason) in [
            ("10.0.2.15/24", "10.0.3.1", "outside this network"),
            ("10.0.2.15/24", "2001:db8::1", "not an IPv4 address"),
            ("10.0.2.15/24", "10.0.2.15", "the interface itself"),
            ("10.0.2.15/24", "10.0.2.255", "not a station's address"),
            ("10.0.2.15/24", "0.0.0.0", "outside this network"),
            ("2001:db8::15/64", "ff02::2", "outside this network"),
        ] {
            let error = interface(address, Some(gateway)).expect_err(gateway).to_string();
            assert!(error.contains(reason) && error.contains("a router in this network"), "{gateway}: {error}");
        }
    }

    #[test]
    fn an_mtu_outside_the_range_names_the_range() {
        let with = |address: &str, mtu| Interface::new(MAC, address.parse().unwrap(), None, mtu, None).map_err(|error| error.to_string());
        assert!(with("10.0.2.15/24", 68).is_ok() && with("10.0.2.15/24", 16110).is_ok() && with("fe80::1/64", 1280).is_ok());
        assert!(with("10.0.2.15/24", 67).unwrap_err().contains("68..=16110"));
        assert!(with("10.0.2.15/24", 16111).unwrap_err().contains("68..=16110"));
        assert!(with("fe80::1/64", 1279).unwrap_err().contains("1280..=16110"));
    }

    #[test]
    fn group_addresses_and_reserved_vlans_are_refused() {
        let address = "10.0.2.15/24".parse().unwrap();
        for mac in [MacAddress::BROADCAST, MacAddress([0; 6]), MacAddress([1, 0, 0x5e, 0, 0, 1])] {
            assert_eq!(Interface::new(mac, address, None, 1500, None), Err(NetError::Mac { mac }));
        }
        let tagged = Interface::new(MAC, address, None, 1500, Some(0x6064)).unwrap().offload();
        assert_eq!((tagged.flags, tagged.vlan_tag), (OffloadFlags::VLAN_TAG, 0x6064));
        let at = |offered| Interface::new(MAC, address, None, 1500, Some(0x6064)).unwrap().offered(offered);
        assert_eq!((at(OffloadFlags::all()).offload(), at(OffloadFlags::all()).written_tag()), (tagged, None));
        assert_eq!((at(OffloadFlags::empty()).offload(), at(OffloadFlags::empty()).written_tag()), (Offload::NONE, Some(0x6064)));
        assert_eq!(Interface::new(MAC, address, None, 1500, None).unwrap().offload(), Offload::NONE);
        assert!(Interface::new(MAC, address, None, 1500, Some(0x6fff)).unwrap_err().to_string().contains("VLAN 4095"));
    }
}
