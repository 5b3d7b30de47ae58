//! TCP segmentation (3.5): one frame for every MSS bytes of payload, each behind a copy of the prototype header that is brought up to date.

use super::descriptor::{ContextCommand, ContextDescriptor, Options};
use crate::model::checksum;
use crate::model::segmentation::{self as common, update_u16};

/// The model's own limit, for contexts with a tiny MSS: 1 MiB in segments of 64 bytes.
const MOST_SEGMENTS: usize = 16_384;

/// The length of the IPv4 header at `start`, if there is one.
pub(super) fn ipv4_header(data: &[u8], start: usize) -> Option<usize> {
    let first = *data.get(start)?;
    (first >> 4 == 4 && first & 0xf >= 5).then_some(usize::from(first & 0xf) * 4)
}

/// The frames of a segmentation. `data` is header and payload as gathered.
pub(super) fn segments(context: &ContextDescriptor, options: Options, data: &[u8], ipv6_length_right: bool) -> Vec<Vec<u8>> {
    let (header, mss) = (usize::from(context.hdrlen), usize::from(context.mss.get()));
    if mss == 0 || header >= data.len() {
        return Vec::new();
    }
    let (prototype, payload) = data.split_at(header);
    let chunks = payload.chunks(mss).take(MOST_SEGMENTS).enumerate();
    chunks
        .map(|(number, chunk)| {
            let mut frame = [prototype, chunk].concat();
            // PAYLEN says which segment is the last, not the descriptors (3.3.6).
            let last = number * mss + chunk.len() == context.paylen();
            update_ip(&mut frame, context, number, ipv6_length_right);
            update_l4(&mut frame, context, number * mss, last);
            if options.contains(Options::TXSM) {
                add_length_to_seed(&mut frame, context);
                let _ = checksum::insert(&mut frame, context.tucss.into(), context.tucso.into(), context.tucse.get().into());
            }
            if options.contains(Options::IXSM) {
                let _ = checksum::insert(&mut frame, context.ipcss.into(), context.ipcso.into(), context.ipcse.get().into());
            }
            frame
        })
        .collect()
}

/// 3.5.9: TUCMD.IP tells IPv4 from IPv6.
fn update_ip(frame: &mut [u8], context: &ContextDescriptor, number: usize, ipv6_length_right: bool) {
    let start = usize::from(context.ipcss);
    if context.command().contains(ContextCommand::IP) {
        common::update_ipv4(frame, start, number);
    } else {
        common::update_ipv6(frame, start);
        if !ipv6_length_right {
            update_u16(frame, start + 4, |length| length.wrapping_add(common::IPV6_HEADER as u16));
        }
    }
}

/// 3.5.9: TUCMD.TCP tells TCP from UDP.
fn update_l4(frame: &mut [u8], context: &ContextDescriptor, sent: usize, last: bool) {
    let start = usize::from(context.tucss);
    if context.command().contains(ContextCommand::TCP) {
        common::update_tcp(frame, start, sent, last);
    } else {
        common::update_udp(frame, start);
    }
}

/// The driver's seed is the pseudo-header without the length, which differs from segment to segment (3.5.8).
fn add_length_to_seed(frame: &mut [u8], context: &ContextDescriptor) {
    let length = frame.len().saturating_sub(context.tucss.into());
    update_u16(frame, context.tucso.into(), |seed| checksum::fold(u64::from(seed) + length as u64));
}

/// What is wrong with the prototype header (3.5.5, 3.5.6).
pub(super) fn inspect(context: &ContextDescriptor, data: &[u8], ends: &[usize]) -> Vec<String> {
    let (header, ip, l4) = (usize::from(context.hdrlen), usize::from(context.ipcss), usize::from(context.tucss));
    let mut wrong = Vec::new();
    let Some(header_bytes) = data.get(..header) else {
        return vec![format!("the descriptors of a segmentation hold less than its header of {header} bytes [3.5.6]")];
    };
    for end in ends.iter().filter(|end| **end < header && ![ip, l4].contains(end)) {
        wrong.push(format!("a descriptor of a segmentation ends at byte {end}, inside a header [3.5.6]"));
    }
    let word = |at: usize| header_bytes.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let version = header_bytes.get(ip).map_or(0, |first| first >> 4);
    if context.command().contains(ContextCommand::IP) {
        if ipv4_header(header_bytes, ip).is_none_or(|length| ip + length != l4) {
            wrong.push("the header of a segmentation has no IPv4 header from IPCSS up to TUCSS [3.3.6]".to_owned());
        }
        if word(ip + 2) != 0 || word(ip + 10) != 0 {
            wrong.push("the IPv4 length or checksum in the header of a segmentation is not 0 [3.5.5]".to_owned());
        }
    } else {
        if version != 6 {
            wrong.push("TUCMD.IP is clear, but the header of a segmentation has no IPv6 header at IPCSS [3.3.6.1]".to_owned());
        }
        if word(ip + 4) != 0 {
            wrong.push("the IPv6 payload length in the header of a segmentation is not 0 [3.5.5]".to_owned());
        }
    }
    if version == 4 || version == 6 {
        let (addresses, protocol) = if version == 4 { (ip + 12..ip + 20, ip + 9) } else { (ip + 8..ip + 40, ip + 6) };
        let seed = header_bytes
            .get(addresses)
            .zip(header_bytes.get(protocol))
            .map(|(addresses, protocol)| checksum::fold(u64::from(checksum::sum(addresses)) + u64::from(*protocol)));
        // In one's complement 0 and 0xffff are the same number.
        if seed.is_some_and(|seed| seed % 0xffff != word(context.tucso.into()) % 0xffff) {
            wrong.push("the checksum in the header of a segmentation is not the pseudo-header's sum without the length [3.5.5]".to_owned());
        }
    }
    wrong
}
