//! What a NIC gets in front of a payload that it cuts.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket};

use super::*;
use crate::net::checker::{PEER, PEER_V4, PEER_V6, v4, v6};
use crate::tcp::{Seq, TcpOptions};

/// Where the checksum is in a TCP header.
const CHECKSUM: usize = 16;

/// The length and the IPv4 checksum that the IP header has (if any), the TCP checksum field, and the offload of a frame with `payload` bytes for a
/// NIC that cuts, with or without whole headers.
fn headers(whole_headers: bool, interface: &Interface, peer: IpAddr, payload: u64) -> (usize, Option<bool>, u16, Offload) {
    let capabilities = Capabilities {
        offloads: OffloadFlags::all(),
        max_segments: 17,
        max_frame: 1514,
        max_segmentation: 65_535,
        vlan_strip: false,
        whole_headers,
    };
    let framer = Framer::new(interface, &capabilities, true, 2048);
    let (flags, options) = (Flags::ACK, TcpOptions::default());
    let header = TcpHeader { source_port: 80, destination_port: 51000, seq: Seq(1), ack: Seq(2), flags, window: 3, options };
    let planned = Planned { header, payload: 0..payload, mss: 1460, copy: None, unmapped: CopyReason::NotMappable };
    let (headers, offload) = framer.headers(&planned, &Path::new(interface, PEER, peer).unwrap());
    // As a receiver of the one packet would read it.
    let mut packet = headers.block[..headers.len.into()].to_vec();
    packet.resize(packet.len() + payload as usize, 0);
    let field = usize::from(headers.l4_start) + CHECKSUM;
    let sum = u16::from_be_bytes([packet[field], packet[field + 1]]);
    match SlicedPacket::from_ethernet(&packet).map(|packet| packet.net) {
        Ok(Some(NetSlice::Ipv4(ip))) => {
            let header = ip.header();
            let right = header.header_checksum() == header.to_header().calc_header_checksum();
            (header.total_len().into(), Some(right), sum, offload)
        }
        Ok(Some(NetSlice::Ipv6(ip))) => (ip.header().payload_length().into(), None, sum, offload),
        // A length of 0 is none.
        _ => (usize::from(u16::from_be_bytes([packet[16], packet[17]])), Some(packet[24..26] != [0, 0]), sum, offload),
    }
}

/// The sum of the pseudo-header, by the rule (RFC 9293 3.1), not inverted.
fn pseudo(own: IpAddr, peer: IpAddr, len: u32) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bytes = [octets(own), octets(peer), len.to_be_bytes().to_vec(), vec![0, 6]].concat();
    let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn a_nic_that_wants_whole_headers_gets_those_of_one_packet() {
    for (interface, peer, ip_len, flag) in [
        (v4(), IpAddr::from(PEER_V4), 20, OffloadFlags::TCP4_SEGMENTATION),
        (v6(), IpAddr::from(PEER_V6), 0, OffloadFlags::TCP6_SEGMENTATION),
    ] {
        for payload in [2 * 1460, 64_000] {
            let (len, checksum, sum, offload) = headers(true, &interface, peer, payload);
            assert_eq!(len as u64, ip_len + 20 + payload);
            assert_ne!(checksum, Some(false), "the IPv4 checksum");
            assert_eq!(sum, pseudo(interface.address().address(), peer, 20 + payload as u32));
            assert_eq!((offload.flags, offload.mss, u64::from(offload.payload_start)), (flag, 1460, 14 + 20 + 20 + (20 - ip_len)));
        }
    }
}

#[test]
fn a_nic_that_does_not_gets_neither_lengths_nor_checksums() {
    let (len, checksum, sum, offload) = headers(false, &v4(), PEER_V4.into(), 64_000);
    assert_eq!((len, checksum, offload.mss), (0, Some(false), 1460));
    assert_eq!(sum, pseudo(v4().address().address(), PEER_V4.into(), 0));
}

#[test]
fn a_single_segment_has_whole_headers_for_every_nic() {
    for whole_headers in [true, false] {
        let (len, _, sum, offload) = headers(whole_headers, &v4(), PEER_V4.into(), 1460);
        assert_eq!((len, offload.mss), (1500, 0));
        assert_eq!(offload.flags, OffloadFlags::TCP_CHECKSUM | OffloadFlags::IPV4_CHECKSUM);
        assert_eq!(sum, pseudo(v4().address().address(), PEER_V4.into(), 1480));
    }
}
