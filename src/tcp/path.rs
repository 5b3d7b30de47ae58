//! The way to one peer: the headers in front of its segments.

use std::net::IpAddr;

use hal::MacAddress;
use smoltcp::wire::{ETHERNET_HEADER_LEN, IPV4_HEADER_LEN, IpProtocol, checksum};

use super::segment::{MAX_TCP_HEADER_LEN, TcpHeader};
use crate::net::ip::{self, MAX_HEADERS, Written};
use crate::net::{Interface, NetError};

/// The most bytes of headers.
pub(super) const MOST_HEADERS: usize = MAX_HEADERS + MAX_TCP_HEADER_LEN;
/// Where the checksum is in a TCP header, and in an IPv4 header.
const CHECKSUM: usize = 16;
const IPV4_CHECKSUM: usize = 10;

/// The way to one peer: its Ethernet and IP headers, computed once.
#[derive(Clone, Debug)]
pub(super) struct Path {
    headers: [u8; MAX_HEADERS],
    ip_len: u8,
    /// The folded sums of the pseudo-header and of the IPv4 header, both without the length.
    pseudo: u16,
    ip_sum: u16,
}

/// The bytes of a frame's headers.
pub(super) struct Headers {
    /// The headers, and zeros.
    pub block: [u8; MOST_HEADERS],
    /// Where the TCP header starts, and the payload.
    pub l4_start: u8,
    pub len: u8,
}

impl Path {
    /// The way from `interface` to `peer`, in frames to `station`.
    pub fn new(interface: &Interface, station: MacAddress, peer: IpAddr) -> Result<Self, NetError> {
        let mut headers = [0; MAX_HEADERS];
        let Written { ip_len, pseudo } = ip::write_headers(interface, station, peer, IpProtocol::Tcp, &mut headers)?;
        ip::set_length(&mut headers[ETHERNET_HEADER_LEN..], ip_len, None, false);
        let ip_sum = checksum::data(&headers[ETHERNET_HEADER_LEN..][..ip_len]);
        Ok(Self { headers, ip_len: ip_len as u8, pseudo, ip_sum })
    }

    /// Whether it is one of IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        usize::from(self.ip_len) == IPV4_HEADER_LEN
    }

    /// The headers of a frame with `payload` bytes behind them. The IP header has their length, if the frame is `one_packet`, as has the sum of the
    /// pseudo-header in the TCP header's checksum field; those of several packets the NIC completes ([`hal::OffloadFlags`] has the convention). An
    /// IPv4 header has its checksum, if `sums` says so, and is to be for the length that it has.
    #[inline]
    pub fn headers(&self, header: &TcpHeader, payload: u64, one_packet: bool, sums: bool) -> Headers {
        let mut block = [0; MOST_HEADERS];
        block[..MAX_HEADERS].copy_from_slice(&self.headers);
        let l4_start = ETHERNET_HEADER_LEN + usize::from(self.ip_len);
        let header_len = header.emit(&mut block[l4_start..]);
        let len = (header_len as u64 + payload) as u16;
        ip::set_length(&mut block[ETHERNET_HEADER_LEN..], self.ip_len.into(), one_packet.then_some(len), false);
        if sums && self.is_ipv4() {
            let total = if one_packet { IPV4_HEADER_LEN as u16 + len } else { 0 };
            put(&mut block, ETHERNET_HEADER_LEN + IPV4_CHECKSUM, !checksum::combine(&[self.ip_sum, total]));
        }
        put(&mut block, l4_start + CHECKSUM, if one_packet { checksum::combine(&[self.pseudo, len]) } else { self.pseudo });
        Headers { block, l4_start: l4_start as u8, len: (l4_start + header_len) as u8 }
    }
}

#[inline]
fn put(block: &mut [u8; MOST_HEADERS], at: usize, value: u16) {
    block[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4HeaderSlice, NetSlice, SlicedPacket};

    use super::*;
    use crate::net::checker::{OWN_V4, PEER, PEER_V4, PEER_V6, v4, v6};
    use crate::tcp::{Flags, Seq, TcpOptions, Timestamps};

    #[test]
    fn etherparse_finds_the_lengths_and_the_ipv4_checksum_right() {
        let options = TcpOptions { timestamps: Some(Timestamps { value: 1, echo: 2 }), ..TcpOptions::default() };
        let (seq, ack) = (Seq(7), Seq(9));
        let header = TcpHeader { source_port: 80, destination_port: 51000, seq, ack, flags: Flags::ACK, window: 100, options };
        for payload in [0, 1, 1448, 65_160] {
            let path = Path::new(&v4(), PEER, PEER_V4.into()).unwrap();
            let Headers { block, l4_start, len } = path.headers(&header, payload, true, true);
            assert_eq!((l4_start, len), (34, 66));
            let ip = Ipv4HeaderSlice::from_slice(&block[14..]).unwrap();
            assert_eq!((ip.header_checksum(), u64::from(ip.total_len())), (ip.to_header().calc_header_checksum(), 52 + payload));
            assert_eq!((ip.source(), ip.destination()), (OWN_V4, PEER_V4));
            let unsummed = path.headers(&header, payload, true, false).block;
            assert_eq!((&unsummed[24..26], &unsummed[26..]), (&[0; 2][..], &block[26..]));
        }
        let path = Path::new(&v6(), PEER, IpAddr::from(PEER_V6)).unwrap();
        let Headers { block, l4_start, len } = path.headers(&header, 0, true, true);
        assert_eq!((l4_start, len), (54, 86));
        let Some(NetSlice::Ipv6(ip)) = SlicedPacket::from_ethernet(&block[..86]).unwrap().net else { panic!("IPv6") };
        assert_eq!(ip.header().payload_length(), 32);
    }

    #[test]
    fn what_the_nic_cuts_has_neither_length_nor_checksum() {
        let path = Path::new(&v4(), PEER, PEER_V4.into()).unwrap();
        let options = TcpOptions::default();
        let header = TcpHeader { source_port: 1, destination_port: 2, seq: Seq(0), ack: Seq(0), flags: Flags::ACK, window: 0, options };
        let [one, several] = [true, false].map(|one_packet| path.headers(&header, 3000, one_packet, false).block);
        assert_eq!((&several[16..18], &several[24..26]), (&[0; 2][..], &[0; 2][..]));
        let sum = |block: &[u8; MOST_HEADERS]| u16::from_be_bytes([block[50], block[51]]);
        assert_eq!(sum(&one), checksum::combine(&[sum(&several), 3020]));
    }
}
