//! Headers of frames to send, written as the offloads want them: seeds instead of checksums, zeros instead of a segmentation's lengths.
#![allow(dead_code)] // each test program uses a part

use std::net::{Ipv4Addr, Ipv6Addr};

use hal::{Offload, OffloadFlags};

pub const STATION: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
pub const PEER: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x01];

const SOURCE4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const DESTINATION4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);
const DESTINATION6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// PSH, ACK and FIN.
const LAST_FLAGS: u8 = 0x19;

/// What the first segment of a segmentation has in its header.
pub const SEQUENCE: u32 = 0xffff_f000;
pub const IDENTIFICATION: u16 = 0xfffe;

/// The one's complement sum of 16-bit words, folded, not complemented (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total: u64 = bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn ethernet(ether_type: u16) -> Vec<u8> {
    let mut header = [PEER, STATION].concat();
    header.extend(ether_type.to_be_bytes());
    header
}

fn ipv4(protocol: u8, total_len: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(total_len.to_be_bytes());
    header.extend(IDENTIFICATION.to_be_bytes());
    header.extend([0x40, 0, 64, protocol, 0, 0]);
    header.extend(SOURCE4.octets());
    header.extend(DESTINATION4.octets());
    header
}

fn ipv6(protocol: u8, payload_len: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(payload_len.to_be_bytes());
    header.extend([protocol, 64]);
    header.extend(SOURCE6.octets());
    header.extend(DESTINATION6.octets());
    header
}

fn seed4(protocol: u8, len: u16) -> u16 {
    sum(&[&SOURCE4.octets()[..], &DESTINATION4.octets(), &[0, protocol], &len.to_be_bytes()].concat())
}

fn seed6(protocol: u8, len: u16) -> u16 {
    sum(&[&SOURCE6.octets()[..], &DESTINATION6.octets(), &[0, protocol], &len.to_be_bytes()].concat())
}

fn udp(len: u16, seed: u16) -> Vec<u8> {
    [4000_u16, 9000, len, seed].into_iter().flat_map(u16::to_be_bytes).collect()
}

fn tcp(seed: u16) -> Vec<u8> {
    let mut header: Vec<u8> = [1000_u16, 2000].into_iter().flat_map(u16::to_be_bytes).collect();
    header.extend(SEQUENCE.to_be_bytes());
    header.extend([0, 3, 0x64, 0x0e, 0x50, LAST_FLAGS, 0xff, 0xff]);
    header.extend(seed.to_be_bytes());
    header.extend([0, 0]);
    header
}

/// Headers of 42 bytes for `payload` bytes of UDP over IPv4, both checksums left to the NIC.
pub fn udp4(payload: usize) -> (Vec<u8>, Offload) {
    let len = (UDP_HEADER + payload) as u16;
    let header = [ethernet(0x0800), ipv4(UDP, 20 + len), udp(len, seed4(UDP, len))].concat();
    (header, offload(OffloadFlags::IPV4_CHECKSUM | OffloadFlags::UDP_CHECKSUM, 34))
}

/// Headers of 62 bytes for `payload` bytes of UDP over IPv6.
pub fn udp6(payload: usize) -> (Vec<u8>, Offload) {
    let len = (UDP_HEADER + payload) as u16;
    let header = [ethernet(0x86dd), ipv6(UDP, len), udp(len, seed6(UDP, len))].concat();
    (header, offload(OffloadFlags::UDP_CHECKSUM, 54))
}

/// Headers of 54 bytes for `payload` bytes of TCP over IPv4, both checksums left to the NIC.
pub fn tcp4(payload: usize) -> (Vec<u8>, Offload) {
    let len = (TCP_HEADER + payload) as u16;
    let header = [ethernet(0x0800), ipv4(TCP, 20 + len), tcp(seed4(TCP, len))].concat();
    (header, offload(OffloadFlags::IPV4_CHECKSUM | OffloadFlags::TCP_CHECKSUM, 34))
}

/// Headers of 74 bytes for `payload` bytes of TCP over IPv6.
pub fn tcp6(payload: usize) -> (Vec<u8>, Offload) {
    let len = (TCP_HEADER + payload) as u16;
    let header = [ethernet(0x86dd), ipv6(TCP, len), tcp(seed6(TCP, len))].concat();
    (header, offload(OffloadFlags::TCP_CHECKSUM, 54))
}

/// Headers of 54 bytes to be segmented over IPv4: no lengths, no IP checksum, the seed without the length.
pub fn tso4(mss: u16) -> (Vec<u8>, Offload) {
    let header = [ethernet(0x0800), ipv4(TCP, 0), tcp(seed4(TCP, 0))].concat();
    (header, Offload { payload_start: 54, mss, ..offload(OffloadFlags::TCP4_SEGMENTATION, 34) })
}

/// Headers of 74 bytes to be segmented over IPv6.
pub fn tso6(mss: u16) -> (Vec<u8>, Offload) {
    let header = [ethernet(0x86dd), ipv6(TCP, 0), tcp(seed6(TCP, 0))].concat();
    (header, Offload { payload_start: 74, mss, ..offload(OffloadFlags::TCP6_SEGMENTATION, 54) })
}

fn offload(flags: OffloadFlags, l4_start: u8) -> Offload {
    Offload { flags, ip_start: 14, l4_start, ..Offload::NONE }
}

/// The same request with a VLAN tag.
pub fn tagged(offload: Offload, tag: u16) -> Offload {
    Offload { flags: offload.flags | OffloadFlags::VLAN_TAG, vlan_tag: tag, ..offload }
}

/// A frame of `len` bytes between `to` and the peer, of an experimental type; `number` tells it from others.
pub fn plain(to: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut frame = [to, PEER].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend(content(number, len.saturating_sub(18)));
    frame.truncate(len);
    frame
}

/// `len` bytes that differ from place to place, and from one `number` to the next.
pub fn content(number: u32, len: usize) -> Vec<u8> {
    (number..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).take(len).collect()
}
