//! Where to send.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::str::FromStr;

use super::super::NetError;
use super::Family;

/// How file bytes are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In UDP datagrams (RFC 768).
    Udp,
    /// In a TCP connection (RFC 9293).
    Tcp,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Udp { "udp" } else { "tcp" })
    }
}

/// The station of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name that the system's resolver knows.
    Name(String),
}

/// Where to send: `udp://HOST:PORT`. An IPv6 address stands in brackets; the port is 1..=65535 (the URL syntax of RFC 3986 3.2).
///
/// ```
/// # use pagewire::net::{Family, Target};
/// let target: Target = "udp://[2001:db8::7]:9000".parse()?;
/// assert_eq!(target.resolve(Family::V6)?, "[2001:db8::7]:9000".parse().unwrap());
/// # Ok::<(), pagewire::net::NetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: NonZeroU16,
}

impl Target {
    /// How the bytes are carried.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The station.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 1..=65535.
    pub const fn port(&self) -> u16 {
        self.port.get()
    }

    /// The station's address: of a name the first address of the family `prefer`, otherwise its first address. A name is looked up by the
    /// system's resolver, which blocks for seconds when it gets no answer.
    ///
    /// # Errors
    /// [`NetError::Name`] with what the resolver said.
    pub fn resolve(&self, prefer: Family) -> Result<SocketAddr, NetError> {
        let name = match &self.host {
            Host::Address(address) => return Ok(SocketAddr::new(*address, self.port())),
            Host::Name(name) => name,
        };
        let error = |reason: String| NetError::Name { name: name.clone(), reason };
        let mut first = None;
        for address in (name.as_str(), self.port()).to_socket_addrs().map_err(|system| error(system.to_string()))? {
            if Family::of(address.ip()) == prefer {
                return Ok(address);
            }
            first = first.or(Some(address));
        }
        first.ok_or_else(|| error("it has no address".into()))
    }
}

impl FromStr for Target {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        parse(text).map_err(|reason| NetError::Target { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Target, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it does not begin with udp:// or tcp://")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "udp" => Scheme::Udp,
        "tcp" => Scheme::Tcp,
        _ => return Err(format!("{scheme:?} is not a way to send that pagewire knows")),
    };
    if rest.contains(['/', '?', '#', '@']) {
        return Err("it has more than a host and a port".into());
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or("the closing bracket is missing")?;
            if address.contains('%') {
                return Err("it has a zone, which the choice of the NIC already decides".into());
            }
            let address: Ipv6Addr = address.parse().map_err(|_| format!("{address:?} is not an IPv6 address"))?;
            (Host::Address(address.into()), behind.strip_prefix(':').ok_or("the port is missing behind the bracket")?)
        }
        None => {
            let (host, port) = rest.rsplit_once(':').ok_or("the port is missing")?;
            if host.contains(':') {
                return Err("an IPv6 address has to stand in brackets".into());
            }
            (named(host)?, port)
        }
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("the port {port:?} is not a number"));
    }
    let port: u16 = port.parse().map_err(|_| format!("the port {port} is above 65535"))?;
    let port = NonZeroU16::new(port).ok_or("port 0 is reserved, so nothing can listen on it")?;
    Ok(Target { scheme, host, port })
}

/// An IPv4 address or a name.
fn named(host: &str) -> Result<Host, String> {
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    // The system's resolver takes 10.1 and 0xa000001 for addresses too. Such a text is a slip, and no name ends in a number.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        return Err(format!("{host:?} is not an IPv4 address"));
    }
    if host.len() > 253 || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(format!("{host:?} is neither an address nor a name"));
    }
    Ok(Host::Name(host.to_owned()))
}

impl fmt::Display for Host {
    /// As in a target: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_names_a_way_a_host_and_a_port() {
        for text in ["udp://192.0.2.7:9000", "udp://[2001:db8::7]:1", "tcp://host.example:65535", "udp://localhost:9", "udp://a_b-c:80"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("UDP://192.0.2.7:9".parse::<Target>().unwrap().scheme(), Scheme::Udp);
    }

    #[test]
    fn what_is_not_a_target_is_refused_with_the_reason_and_the_grammar() {
        for (text, reason) in [
            ("", "begin with udp://"),
            ("192.0.2.7:9000", "begin with udp://"),
            ("http://192.0.2.7:80", "not a way to send"),
            ("udp://192.0.2.7", "the port is missing"),
            ("udp://[2001:db8::7]", "the port is missing"),
            ("udp://[2001:db8::7]9000", "the port is missing"),
            ("udp://2001:db8::7:9000", "in brackets"),
            ("udp://[2001:db8::7:9000", "closing bracket"),
            ("udp://[192.0.2.7]:9000", "not an IPv6 address"),
            ("udp://[fe80::1%eth0]:9000", "a zone"),
            ("udp://:9000", "the host is missing"),
            ("udp://192.0.2.7:0", "port 0 is reserved"),
            ("udp://192.0.2.7:65536", "above 65535"),
            ("udp://192.0.2.7:+9", "not a number"),
            ("udp://192.0.2.7:", "not a number"),
            ("udp://192.0.2.7:9000/file", "more than a host and a port"),
            ("udp://me@192.0.2.7:9000", "more than a host and a port"),
            ("udp://192.0.2.256:9000", "not an IPv4 address"),
            ("udp://192.0.2:9000", "not an IPv4 address"),
            ("udp://0xc0000207:9000", "not an IPv4 address"),
            ("udp://a b:9000", "neither an address nor a name"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(
                error.contains("udp://HOST:PORT or tcp://HOST:PORT, as in udp://192.0.2.7:9000 or tcp://[2001:db8::7]:9000"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_address_resolves_to_itself() {
        let target: Target = "udp://192.0.2.7:9000".parse().unwrap();
        assert_eq!(target.resolve(Family::V6).unwrap().to_string(), "192.0.2.7:9000");
    }

    #[test]
    fn a_name_resolves_to_an_address_of_the_preferred_family() {
        let target: Target = "udp://localhost:9000".parse().unwrap();
        assert_eq!(target.resolve(Family::V4).unwrap().to_string(), "127.0.0.1:9000");
    }

    #[test]
    fn a_name_that_does_not_exist_says_what_to_check() {
        // No label has more than 63 bytes (RFC 1035 2.3.4), so the resolver asks nobody.
        let target: Target = format!("udp://{}.invalid:9000", "a".repeat(64)).parse().unwrap();
        let error = target.resolve(Family::V4).unwrap_err().to_string();
        assert!(error.contains(".invalid") && error.contains("name server"), "{error}");
    }

    proptest! {
        #[test]
        fn a_target_reads_back_from_its_text(address: IpAddr, port in 1..=u16::MAX) {
            let text = format!("udp://{}", SocketAddr::new(address, port));
            let target: Target = text.parse().unwrap();
            prop_assert_eq!(target.host(), &Host::Address(address));
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", near in "udp://[\\[\\]0-9a-f:.]{0,20}") {
            let _ = text.parse::<Target>();
            let _ = near.parse::<Target>();
        }
    }
}
