//! Ports of the host that lead to the device, in QEMU's own grammar.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A port of this host that leads to a port of the device on the [`user`](super::HostWire::User) wire: QEMU's `hostfwd=`.
///
/// ```
/// # use pagewire_hw_sim::wire::HostForward;
/// let forward: HostForward = "tcp:127.0.0.1:8080-:80".parse()?;
/// assert_eq!((forward.host_port, forward.device_port), (8080, 80));
/// assert_eq!(forward.to_string(), "tcp:127.0.0.1:8080-:80");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostForward {
    /// TCP or UDP.
    pub protocol: ForwardProtocol,
    /// The address of this host to listen at; `None` for all of them.
    pub host_address: Option<Ipv4Addr>,
    /// The port to listen at, from 1 on.
    pub host_port: u16,
    /// The device's address; `None` for 10.0.2.15.
    pub device_address: Option<Ipv4Addr>,
    /// The device's port, from 1 on.
    pub device_port: u16,
}

/// What a [`HostForward`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProtocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// A text that is no [`HostForward`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host forward; write tcp|udp:[HOST-ADDRESS]:HOST-PORT-[DEVICE-ADDRESS]:DEVICE-PORT with IPv4 addresses and ports from 1 \
     to 65535, as in tcp:127.0.0.1:8080-:80"
)]
pub struct ParseForwardError(String);

impl FromStr for HostForward {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseForwardError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<HostForward> {
    let (protocol, rest) = text.split_once(':')?;
    let protocol = match protocol {
        "tcp" => ForwardProtocol::Tcp,
        "udp" => ForwardProtocol::Udp,
        _ => return None,
    };
    let (host, device) = rest.split_once('-')?;
    let ((host_address, host_port), (device_address, device_port)) = (endpoint(host)?, endpoint(device)?);
    Some(HostForward { protocol, host_address, host_port, device_address, device_port })
}

fn endpoint(text: &str) -> Option<(Option<Ipv4Addr>, u16)> {
    let (address, port) = text.split_once(':')?;
    let address = if address.is_empty() { None } else { Some(address.parse().ok()?) };
    // `u16` would also read a sign.
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok().filter(|&port| port != 0)?;
    Some((address, port))
}

impl fmt::Display for HostForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            ForwardProtocol::Tcp => "tcp",
            ForwardProtocol::Udp => "udp",
        };
        let text = |address: Option<Ipv4Addr>| address.map(|address| address.to_string()).unwrap_or_default();
        write!(f, "{protocol}:{}:{}-{}:{}", text(self.host_address), self.host_port, text(self.device_address), self.device_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_agree() {
        for text in ["tcp:127.0.0.1:8080-:80", "udp::53-10.0.2.15:5353", "tcp:0.0.0.0:65535-10.0.2.99:1"] {
            assert_eq!(text.parse::<HostForward>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_text_is_refused_with_the_grammar() {
        for text in [
            "",
            "8080-:80",
            "tcp:8080-:80",
            "tcp:127.0.0.1:8080",
            "tcp:127.0.0.1:8080-80",
            "sctp:127.0.0.1:1-:1",
            "tcp:localhost:8080-:80",
            "tcp:127.0.0.1:+80-:80",
            "tcp:127.0.0.1:0-:80",
            "tcp:127.0.0.1:80-:65536",
            "tcp:127.0.0.1:80-:80,restrict=on",
        ] {
            let error = text.parse::<HostForward>().unwrap_err().to_string();
            assert!(error.contains("tcp:127.0.0.1:8080-:80") && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
