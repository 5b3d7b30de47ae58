//! Checks frames as a receiver would, with a parser that shares no code with the drivers (etherparse).
//!
//! Lengths have to agree with each other and with the frame; every checksum is summed up over the bytes that arrived (RFC 1071).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use etherparse::checksum::Sum16BitWords;
use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice, ip_number};
use hal::MacAddress;

/// Frames up to this length, tags not counted, may have padding behind the packet: the minimum on Ethernet without its frame check sequence, in
/// bytes.
const PADDED_TO: usize = 60;
const IPV4_PROTOCOL: u16 = 0x0800;
const ARP_PROTOCOL: u16 = 0x0806;
const IPV6_PROTOCOL: u16 = 0x86dd;
const IPV6_HEADER_LEN: usize = 40;

/// What is in a frame that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The sender on the link.
    pub source_mac: MacAddress,
    /// The receiver on the link.
    pub destination_mac: MacAddress,
    /// The identifier of the outermost VLAN tag.
    pub vlan: Option<u16>,
    /// The sender's address; `None` unless it is IP.
    pub source: Option<IpAddr>,
    /// The receiver's address; `None` unless it is IP.
    pub destination: Option<IpAddr>,
    /// What the frame carries.
    pub protocol: Protocol,
    /// The ports of TCP and UDP, else 0.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// TCP's own fields.
    pub tcp: Option<TcpFields>,
    /// Where in the frame the payload of the protocol is: of TCP, UDP and ICMP behind their headers, else what the last known header
    /// carries. Without padding.
    pub payload: Range<usize>,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ARP
    Arp,
    /// TCP over IPv4 or IPv6
    Tcp,
    /// UDP over IPv4 or IPv6
    Udp,
    /// ICMP
    Icmp,
    /// ICMPv6
    Icmpv6,
    /// A fragment of an IP packet, whose checksum cannot be checked alone.
    Fragment,
    /// Another protocol over IP, by its number.
    OtherIp(u8),
    /// Another protocol over Ethernet, by its EtherType.
    Other(u16),
}

/// The fields of a TCP header that tests ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFields {
    /// The sequence number of the first payload byte (or of SYN).
    pub sequence: u32,
    /// The acknowledgment number.
    pub acknowledgment: u32,
    /// The window, not scaled.
    pub window: u16,
    /// SYN
    pub syn: bool,
    /// ACK
    pub ack: bool,
    /// PSH
    pub psh: bool,
    /// FIN
    pub fin: bool,
    /// RST
    pub rst: bool,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A header is cut off or contradicts itself.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A checksum is wrong.
    #[error("the {layer} checksum is wrong: {found:#06x} is in the frame")]
    Checksum {
        /// whose
        layer: &'static str,
        /// the field's value
        found: u16,
    },
    /// UDP over IPv4 without a checksum.
    #[error("the UDP checksum is absent (0)")]
    AbsentChecksum,
    /// Two lengths do not fit.
    #[error("the {layer} length is {said} bytes, but there are {found}")]
    Length {
        /// whose
        layer: &'static str,
        /// what the field says
        said: usize,
        /// what the rest of the frame says
        found: usize,
    },
    /// Bytes behind the packet in a frame that needs no padding.
    #[error("{0} bytes follow the packet in a frame that is longer than the minimum of 60 bytes")]
    Trailing(usize),
}

/// What is let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// UDP over IPv4 may come without a checksum (RFC 768).
    pub absent_udp_checksum: bool,
}

/// Checks a frame, without a frame check sequence, that must have all its checksums.
///
/// # Errors
/// The first thing that is wrong, from the outside in.
pub fn check(frame: &[u8]) -> Result<Checked, CheckError> {
    Rules::default().check(frame)
}

impl Rules {
    /// As [`check`], by these rules.
    ///
    /// # Errors
    /// The first thing that is wrong, from the outside in.
    pub fn check(self, frame: &[u8]) -> Result<Checked, CheckError> {
        let packet = SlicedPacket::from_ethernet(frame).map_err(|error| CheckError::Malformed(error.to_string()))?;
        let Some(LinkSlice::Ethernet2(link)) = &packet.link else {
            return Err(CheckError::Malformed("no Ethernet header".to_owned()));
        };
        let tags = packet.link_exts.iter().map(|extension| extension.header_len()).sum::<usize>();
        let start = 14 + tags;
        // A NIC pads first and tags then.
        let padded_to = PADDED_TO + tags;
        let inner = packet.payload_ether_type().map_or(0, |ether_type| ether_type.0);
        let mut checked = Checked {
            source_mac: MacAddress(link.source()),
            destination_mac: MacAddress(link.destination()),
            vlan: packet.vlan_ids().first().map(|id| id.value()),
            source: None,
            destination: None,
            protocol: Protocol::Other(inner),
            source_port: 0,
            destination_port: 0,
            tcp: None,
            payload: start..frame.len(),
        };
        let Some(net) = &packet.net else {
            // What is known has been parsed: an EtherType that promises more is a header that the parser stopped at.
            return match inner {
                IPV4_PROTOCOL | ARP_PROTOCOL | IPV6_PROTOCOL => Err(CheckError::Malformed(format!("no packet of type {inner:#06x}"))),
                _ => Ok(checked),
            };
        };
        let (end, pseudo_header) = match net {
            NetSlice::Arp(arp) => {
                checked.protocol = Protocol::Arp;
                (start + arp.slice().len(), None)
            }
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                if residue(Sum16BitWords::new().add_slice(header.slice())) {
                    return Err(CheckError::Checksum { layer: "IPv4 header", found: header.header_checksum() });
                }
                checked.source = Some(header.source_addr().into());
                checked.destination = Some(header.destination_addr().into());
                (start + usize::from(header.total_len()), Some(PseudoHeader::V4(header.source_addr(), header.destination_addr())))
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let said = usize::from(header.payload_length());
                // The parser takes 0 as a jumbogram, which no wire here carries.
                if said == 0 && !ip.payload().payload.is_empty() && frame.len() > padded_to {
                    return Err(CheckError::Length { layer: "IPv6 payload", said, found: frame.len() - start - IPV6_HEADER_LEN });
                }
                checked.source = Some(header.source_addr().into());
                checked.destination = Some(header.destination_addr().into());
                (start + IPV6_HEADER_LEN + said, Some(PseudoHeader::V6(header.source_addr(), header.destination_addr())))
            }
        };
        if frame.len() > end && frame.len() > padded_to {
            return Err(CheckError::Trailing(frame.len() - end));
        }
        checked.payload = start..end;
        if let (Some(pseudo_header), Some(ip)) = (pseudo_header, packet.ip_payload()) {
            checked.payload = end - ip.payload.len().min(end)..end;
            checked.protocol = if ip.fragmented { Protocol::Fragment } else { Protocol::OtherIp(ip.ip_number.0) };
            if let Some(transport) = packet.transport.as_ref().filter(|_| !ip.fragmented) {
                self.check_transport(transport, ip.payload, &pseudo_header, &mut checked)?;
            }
        }
        Ok(checked)
    }

    /// `segment` is the whole payload of the IP packet.
    fn check_transport(
        self,
        transport: &TransportSlice<'_>,
        segment: &[u8],
        pseudo_header: &PseudoHeader,
        checked: &mut Checked,
    ) -> Result<(), CheckError> {
        let with_pseudo_header = |protocol: u8| residue(pseudo_header.sum(protocol, segment.len()).add_slice(segment));
        let (protocol, wrong, layer, found, payload) = match transport {
            TransportSlice::Tcp(tcp) => {
                (checked.source_port, checked.destination_port) = (tcp.source_port(), tcp.destination_port());
                checked.tcp = Some(TcpFields {
                    sequence: tcp.sequence_number(),
                    acknowledgment: tcp.acknowledgment_number(),
                    window: tcp.window_size(),
                    syn: tcp.syn(),
                    ack: tcp.ack(),
                    psh: tcp.psh(),
                    fin: tcp.fin(),
                    rst: tcp.rst(),
                });
                (Protocol::Tcp, with_pseudo_header(ip_number::TCP.0), "TCP", tcp.checksum(), tcp.payload())
            }
            TransportSlice::Udp(udp) => {
                (checked.source_port, checked.destination_port) = (udp.source_port(), udp.destination_port());
                if usize::from(udp.length()) != segment.len() {
                    return Err(CheckError::Length { layer: "UDP", said: udp.length().into(), found: segment.len() });
                }
                let absent = udp.checksum() == 0;
                if absent && !(self.absent_udp_checksum && matches!(pseudo_header, PseudoHeader::V4(..))) {
                    return Err(CheckError::AbsentChecksum);
                }
                (Protocol::Udp, !absent && with_pseudo_header(ip_number::UDP.0), "UDP", udp.checksum(), udp.payload())
            }
            TransportSlice::Icmpv4(icmp) => {
                (Protocol::Icmp, residue(Sum16BitWords::new().add_slice(segment)), "ICMP", icmp.checksum(), icmp.payload())
            }
            TransportSlice::Icmpv6(icmp) => {
                (Protocol::Icmpv6, with_pseudo_header(ip_number::IPV6_ICMP.0), "ICMPv6", icmp.checksum(), icmp.payload())
            }
            // Left as another protocol over IP.
            TransportSlice::Igmp(_) => return Ok(()),
        };
        if wrong {
            return Err(CheckError::Checksum { layer, found });
        }
        checked.protocol = protocol;
        checked.payload.start = checked.payload.end - payload.len();
        Ok(())
    }
}

/// The addresses that TCP, UDP and ICMPv6 sum up with their own bytes.
enum PseudoHeader {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl PseudoHeader {
    fn sum(&self, protocol: u8, len: usize) -> Sum16BitWords {
        // At most 65,535 bytes, since the length of the IP packet fits 16 bits.
        let words = Sum16BitWords::new().add_2bytes([0, protocol]).add_2bytes((len as u16).to_be_bytes());
        match self {
            Self::V4(source, destination) => words.add_slice(&source.octets()).add_slice(&destination.octets()),
            Self::V6(source, destination) => words.add_slice(&source.octets()).add_slice(&destination.octets()),
        }
    }
}

/// Whether a sum that includes its checksum is not what it has to be.
fn residue(sum: Sum16BitWords) -> bool {
    sum.ones_complement() != 0
}
