//! An address with the prefix of its network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::super::NetError;

/// Which internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// A unicast address and the length of its network's prefix in bits (RFC 4632, RFC 4291 2.3), as an interface has them.
///
/// ```
/// # use pagewire::net::Cidr;
/// let address: Cidr = "10.0.2.15/24".parse()?;
/// assert!(address.contains("10.0.2.2".parse().unwrap()));
/// # Ok::<(), pagewire::net::NetError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// An address in a network whose prefix has `prefix` bits: 0..=32, for IPv6 0..=128.
    ///
    /// # Errors
    /// [`NetError::Cidr`] when the prefix is longer than the address, and for an address that no interface can have: a group's, the
    /// unspecified one, a loopback address, and those that stand for an IPv4 network or all its stations.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetError> {
        let error = |reason: String| NetError::Cidr { text: format!("{address}/{prefix}"), reason };
        let cidr = Self { address, prefix };
        if prefix > cidr.bits() {
            return Err(error(format!("an {} prefix has at most {} bits", cidr.family(), cidr.bits())));
        }
        if address.is_multicast() {
            return Err(error("a multicast address belongs to a group, not to one interface".into()));
        }
        if let Some(reason) = unusable(address) {
            return Err(error(reason.into()));
        }
        if address == IpAddr::V4(Ipv4Addr::BROADCAST) || Some(address) == cidr.broadcast().map(IpAddr::V4) {
            return Err(error("a broadcast address stands for every station of a network".into()));
        }
        if Some(address) == cidr.network().map(IpAddr::V4) {
            return Err(error("with all bits behind the prefix zero it stands for the network itself".into()));
        }
        Ok(cidr)
    }

    /// The address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the network's prefix in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The family of the address.
    pub const fn family(self) -> Family {
        Family::of(self.address)
    }

    /// Whether `other` is of the same family and has the same prefix.
    pub fn contains(self, other: IpAddr) -> bool {
        let shift = u32::from(self.bits() - self.prefix);
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0,
            _ => false,
        }
    }

    /// The broadcast address of the IPv4 network (RFC 919); none for prefixes of 31 (RFC 3021) and 32 bits, and for IPv6.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        self.network().map(|network| Ipv4Addr::from_bits(network.to_bits() | u32::MAX >> self.prefix))
    }

    /// The address of the IPv4 network itself; none for prefixes of 31 and 32 bits, and for IPv6.
    pub fn network(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(own) if self.prefix <= 30 => Some(Ipv4Addr::from_bits(own.to_bits() & !(u32::MAX >> self.prefix))),
            _ => None,
        }
    }

    /// The bits of an address of this family.
    const fn bits(self) -> u8 {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::BITS as u8,
            IpAddr::V6(_) => Ipv6Addr::BITS as u8,
        }
    }
}

/// Why an address is never on a wire, neither as a source nor as a destination.
pub(in super::super) fn unusable(address: IpAddr) -> Option<&'static str> {
    let this_network = matches!(address, IpAddr::V4(address) if address.octets()[0] == 0);
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    if address.is_unspecified() {
        Some("it is the unspecified address")
    } else if this_network {
        Some("the network 0.0.0.0/8 has no stations (RFC 1122 3.2.1.3)")
    } else if address.is_loopback() {
        Some("loopback addresses never leave a host")
    } else if mapped {
        Some("IPv4-mapped addresses are for sockets, not for the wire")
    } else {
        None
    }
}

impl FromStr for Cidr {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let error = |reason: String| NetError::Cidr { text: text.to_owned(), reason };
        let (address, prefix) = text.split_once('/').ok_or_else(|| error("the prefix is missing".into()))?;
        let address = address.parse().map_err(|_| error(format!("{address:?} is not an IP address")))?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error(format!("the prefix {prefix:?} is not a number of bits")));
        }
        // A number that has no room in a byte is too long for any address.
        Self::new(address, prefix.parse().unwrap_or(u8::MAX))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_has_its_prefix_behind_a_slash() {
        for text in ["10.0.2.15/24", "192.0.2.1/32", "192.0.2.0/31", "192.0.2.1/31", "169.254.3.4/16", "2001:db8::15/64", "fe80::1/128"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_interface_address_is_refused_with_the_reason_and_the_grammar() {
        for (text, reason) in [
            ("10.0.2.15", "the prefix is missing"),
            ("10.0.2.15/", "not a number of bits"),
            ("10.0.2.15/+8", "not a number of bits"),
            ("10.0.2.15/33", "at most 32 bits"),
            ("10.0.2.15/256", "at most 32 bits"),
            ("2001:db8::1/129", "at most 128 bits"),
            ("10.0.2/24", "not an IP address"),
            ("host/24", "not an IP address"),
            ("0.0.0.0/24", "unspecified"),
            ("0.1.2.3/24", "no stations"),
            ("::/64", "unspecified"),
            ("127.0.0.1/8", "loopback"),
            ("::1/128", "loopback"),
            ("::ffff:10.0.2.15/96", "IPv4-mapped"),
            ("224.0.0.1/24", "multicast"),
            ("ff02::1/64", "multicast"),
            ("255.255.255.255/32", "broadcast"),
            ("10.0.2.255/24", "broadcast"),
            ("10.0.2.0/24", "the network itself"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains("ADDR/PREFIX"), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        let v4: Cidr = "10.0.2.15/24".parse().unwrap();
        let v6: Cidr = "2001:db8::15/64".parse().unwrap();
        let all: Cidr = "10.0.2.15/0".parse().unwrap();
        for (network, address, within) in [
            (v4, "10.0.2.200", true),
            (v4, "10.0.3.1", false),
            (v4, "2001:db8::1", false),
            (v6, "2001:db8::ffff:0:0:1", true),
            (v6, "2001:db8:0:1::1", false),
            (all, "203.0.113.1", true),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), within, "{network} {address}");
        }
    }

    #[test]
    fn networks_of_one_or_two_stations_have_no_broadcast() {
        let broadcast = |text: &str| text.parse::<Cidr>().unwrap().broadcast().map(|address| address.to_string());
        assert_eq!(broadcast("10.0.2.15/24").as_deref(), Some("10.0.2.255"));
        assert_eq!(broadcast("10.0.2.1/30").as_deref(), Some("10.0.2.3"));
        assert_eq!(broadcast("10.0.2.1/0").as_deref(), Some("255.255.255.255"));
        assert_eq!([broadcast("10.0.2.1/31"), broadcast("10.0.2.1/32"), broadcast("2001:db8::1/64")], [None, None, None]);
    }

    proptest! {
        #[test]
        fn an_address_reads_back_from_its_text(address: IpAddr, prefix in 0u8..=128) {
            if let Ok(cidr) = Cidr::new(address, prefix) {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
                prop_assert!(cidr.contains(cidr.address()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", near in "[0-9a-f:.]{0,20}/[0-9]{0,4}") {
            let _ = text.parse::<Cidr>();
            let _ = near.parse::<Cidr>();
        }
    }
}
