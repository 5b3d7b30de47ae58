//! Where the headers of a frame are.

use super::checksum::{fold, sum};
use super::segmentation::IPV6_HEADER;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// An IP packet with TCP or UDP in a frame, which may have one VLAN tag. Offsets in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    pub ip: usize,
    pub ipv6: bool,
    pub l4: usize,
    pub protocol: u8,
    /// Where TCP's or UDP's payload starts.
    pub payload: usize,
}

impl Layers {
    /// `None` for anything else, for fragments, and behind IPv6 extension headers.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let ip = if word(12)? == 0x8100 { 18 } else { 14 };
        let first = *frame.get(ip)?;
        let (ipv6, l4, protocol) = match (word(ip - 2)?, first >> 4) {
            (0x0800, 4) if first & 0xf >= 5 && word(ip + 6)? & 0x3fff == 0 => {
                (false, ip + usize::from(first & 0xf) * 4, *frame.get(ip + 9)?)
            }
            (0x86dd, 6) => (true, ip + IPV6_HEADER, *frame.get(ip + 6)?),
            _ => return None,
        };
        let payload = match protocol {
            TCP => l4 + usize::from(frame.get(l4 + 12)? >> 4) * 4,
            UDP => l4 + 8,
            _ => return None,
        };
        (payload >= l4 + 8 && payload <= frame.len()).then_some(Self { ip, ipv6, l4, protocol, payload })
    }

    /// Where the checksum is.
    pub(super) fn checksum(&self) -> usize {
        self.l4 + if self.protocol == TCP { 16 } else { 6 }
    }

    /// The folded sum of the pseudo-header for `length` bytes of TCP or UDP (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1).
    pub(super) fn pseudo_header(&self, frame: &[u8], length: usize) -> u16 {
        let addresses = if self.ipv6 { self.ip + 8..self.ip + 40 } else { self.ip + 12..self.ip + 20 };
        let addresses = frame.get(addresses).map_or(0, sum);
        fold(u64::from(addresses) + u64::from(self.protocol) + length as u64)
    }

    /// The end of the packet by its own length field, at most that of the frame.
    pub(super) fn end(&self, frame: &[u8]) -> usize {
        let at = if self.ipv6 { self.ip + 4 } else { self.ip + 2 };
        let length = frame.get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        (self.ip + length + if self.ipv6 { IPV6_HEADER } else { 0 }).min(frame.len())
    }

    /// Whether the checksum of TCP or UDP is right. A UDP datagram without one has none to be right.
    pub(super) fn verifies(&self, frame: &[u8]) -> bool {
        let end = self.end(frame);
        let Some(packet) = frame.get(self.l4..end) else { return false };
        let absent = self.protocol == UDP && frame.get(self.checksum()..self.checksum() + 2) == Some(&[0, 0]);
        !absent && fold(u64::from(self.pseudo_header(frame, packet.len())) + u64::from(sum(packet))) == 0xffff
    }
}
