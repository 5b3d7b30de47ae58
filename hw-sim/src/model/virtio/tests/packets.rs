//! Packets that etherparse builds: right in all their checksums.

use etherparse::PacketBuilder;

use super::{MAC, PEER};

/// Ports of all packets here.
const PORTS: (u16, u16) = (1000, 2000);

pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|byte| (byte * 7) as u8).collect()
}

/// TCP over IPv4, with PSH and FIN.
pub fn tcp4(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
    builder.tcp(PORTS.0, PORTS.1, 0xffff_ff00, 500).ack(7).psh().fin().write(&mut packet, &payload(len)).unwrap();
    packet
}

/// TCP over IPv6.
pub fn tcp6(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv6([0x20; 16], [0x30; 16], 64);
    builder.tcp(PORTS.0, PORTS.1, 5, 500).ack(7).psh().write(&mut packet, &payload(len)).unwrap();
    packet
}

/// UDP over IPv4.
pub fn udp4(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
    builder.udp(PORTS.0, PORTS.1).write(&mut packet, &payload(len)).unwrap();
    packet
}

/// UDP over IPv6.
pub fn udp6(len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv6([0x20; 16], [0x30; 16], 64);
    builder.udp(PORTS.0, PORTS.1).write(&mut packet, &payload(len)).unwrap();
    packet
}

/// The same packet to this station.
pub fn inbound(mut packet: Vec<u8>) -> Vec<u8> {
    packet[..6].copy_from_slice(&MAC.0);
    packet[6..12].copy_from_slice(&PEER);
    packet
}

/// Where TCP or UDP starts, and where in it the checksum is.
pub fn places(packet: &[u8]) -> (usize, usize) {
    let (start, protocol) = if packet[14] >> 4 == 4 { (34, packet[23]) } else { (54, packet[20]) };
    (start, if protocol == 6 { 16 } else { 6 })
}

/// The packet with the pseudo-header's sum in its checksum field, as a driver hands it over, summed up once more here.
pub fn partial(mut packet: Vec<u8>) -> Vec<u8> {
    let (start, offset) = places(&packet);
    let addresses = if start == 34 { 26..34 } else { 22..54 };
    let protocol = if offset == 16 { 6 } else { 17 };
    let mut sum = protocol + (packet.len() - start) as u32;
    for pair in packet[addresses].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[start + offset..start + offset + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    packet
}

/// A header: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
pub fn header(flags: u8, gso_type: u8, words: [u16; 5]) -> Vec<u8> {
    let mut bytes = vec![flags, gso_type];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}
