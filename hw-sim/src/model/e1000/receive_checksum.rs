//! What the receive unit finds out about checksums: the frame check sequence, and those of IPv4, TCP and UDP (3.2.9).

use super::descriptor::{RxErrors, RxStatus};
use super::transmit::FCS;
use crate::model::checksum::{fold, sum};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The frame check sequence of IEEE 802.3, 3.2.9.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const REFLECTED_POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { REFLECTED_POLYNOMIAL } else { 0 })
    })
}

/// Checks what can be checked of a packet with its check sequence. IXSM is set where the result is to be ignored: with all checks off, and for
/// packets that are neither IPv4 nor IPv6 (3.2.9, table 3-5).
pub(super) fn verify(packet: &[u8], tagged: bool, ip: bool, l4: bool) -> (RxStatus, RxErrors) {
    let ignored = (RxStatus::IXSM, RxErrors::empty());
    let start = if tagged { 18 } else { 14 };
    let frame = &packet[..packet.len().saturating_sub(FCS)];
    let (Some([.., high, low]), Some(rest)) = (frame.get(..start), frame.get(start..)) else { return ignored };
    if !ip && !l4 {
        return ignored;
    }
    match u16::from_be_bytes([*high, *low]) {
        ETHERTYPE_IPV4 => verify_ipv4(rest, ip, l4),
        // IPv6 has no checksum of its own, and headers behind its first one are not looked at.
        ETHERTYPE_IPV6 if l4 => verify_ipv6(rest),
        _ => None,
    }
    .unwrap_or(ignored)
}

fn verify_ipv4(packet: &[u8], ip: bool, l4: bool) -> Option<(RxStatus, RxErrors)> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if first >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    let packet = packet.get(..total)?;
    let (mut status, mut errors) = (RxStatus::empty(), RxErrors::empty());
    if ip {
        status |= RxStatus::IPCS;
        errors.set(RxErrors::IPE, sum(&packet[..header]) != 0xffff);
    }
    // A fragment has no whole TCP or UDP packet.
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    if l4 && !fragment {
        verify_l4(packet[9], &packet[12..20], &packet[header..], &mut status, &mut errors);
    }
    Some((status, errors))
}

fn verify_ipv6(packet: &[u8]) -> Option<(RxStatus, RxErrors)> {
    let payload = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let packet = packet.get(..40 + payload)?;
    let (mut status, mut errors) = (RxStatus::empty(), RxErrors::empty());
    if packet[0] >> 4 == 6 {
        verify_l4(packet[6], &packet[8..40], &packet[40..], &mut status, &mut errors);
    }
    Some((status, errors))
}

fn verify_l4(protocol: u8, addresses: &[u8], segment: &[u8], status: &mut RxStatus, errors: &mut RxErrors) {
    let shortest = match protocol {
        TCP => 20,
        UDP => 8,
        _ => return,
    };
    // A UDP checksum of 0 means that there is none.
    if segment.len() < shortest || protocol == UDP && segment[6..8] == [0, 0] {
        return;
    }
    let pseudo = u64::from(sum(addresses)) + u64::from(protocol) + segment.len() as u64;
    *status |= RxStatus::TCPCS;
    errors.set(RxErrors::TCPE, fold(pseudo + u64::from(sum(segment))) != 0xffff);
}
