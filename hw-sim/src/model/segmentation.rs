//! What changes in the headers from one segment to the next, whatever device cuts (RFC 9293, RFC 791, RFC 8200).

/// CWR among the TCP flags, and FIN with PSH.
const CWR: u8 = 0b1000_0000;
const FIN_PSH: u8 = 0b1001;
pub(super) const IPV6_HEADER: usize = 40;

/// Changes the 16 bits at `at`; nothing beyond the frame.
pub(super) fn update_u16(frame: &mut [u8], at: usize, update: impl FnOnce(u16) -> u16) {
    if let Some(Ok(bytes)) = frame.get_mut(at..at + 2).map(<&mut [u8; 2]>::try_from) {
        *bytes = update(u16::from_be_bytes(*bytes)).to_be_bytes();
    }
}

/// Total length, and an identification of its own for segment `number`. The header is at `start`.
pub(super) fn update_ipv4(frame: &mut [u8], start: usize, number: usize) {
    let length = frame.len().saturating_sub(start);
    update_u16(frame, start + 2, |_| length as u16);
    update_u16(frame, start + 4, |identification| identification.wrapping_add(number as u16));
}

/// The payload length, which does not count the header.
pub(super) fn update_ipv6(frame: &mut [u8], start: usize) {
    let length = frame.len().saturating_sub(start + IPV6_HEADER);
    update_u16(frame, start + 4, |_| length as u16);
}

/// The length of a UDP datagram from `start` on.
pub(super) fn update_udp(frame: &mut [u8], start: usize) {
    let length = frame.len().saturating_sub(start);
    update_u16(frame, start + 4, |_| length as u16);
}

/// The sequence number behind `sent` bytes; FIN and PSH stay in the last segment alone.
pub(super) fn update_tcp(frame: &mut [u8], start: usize, sent: usize, last: bool) {
    if let Some(Ok(bytes)) = frame.get_mut(start + 4..start + 8).map(<&mut [u8; 4]>::try_from) {
        *bytes = u32::from_be_bytes(*bytes).wrapping_add(sent as u32).to_be_bytes();
    }
    if let Some(flags) = frame.get_mut(start + 13).filter(|_| !last) {
        *flags &= !FIN_PSH;
    }
}

/// CWR stays in the first segment alone (RFC 3168, 6.1.2): `start` is the TCP header of another one.
pub(super) fn clear_cwr(frame: &mut [u8], start: usize) {
    if let Some(flags) = frame.get_mut(start + 13) {
        *flags &= !CWR;
    }
}

/// Whether the TCP header at `start` has CWR.
pub(super) fn has_cwr(frame: &[u8], start: usize) -> bool {
    frame.get(start + 13).is_some_and(|flags| flags & CWR != 0)
}
