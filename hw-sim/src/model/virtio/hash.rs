//! The hash of a packet (5.1.6.4.3): Toeplitz, over what the enabled hash types say.

use crate::model::layers::{Layers, TCP};

/// Bits of the hash types, and the report of each.
const IPV4: (u32, u16) = (1 << 0, 1);
const TCPV4: (u32, u16) = (1 << 1, 2);
const UDPV4: (u32, u16) = (1 << 2, 3);
const IPV6: (u32, u16) = (1 << 3, 4);
const TCPV6: (u32, u16) = (1 << 4, 5);
const UDPV6: (u32, u16) = (1 << 5, 6);

/// Value and report of TCP and UDP packets without IPv6 extension headers; `None` when no enabled type fits.
pub(super) fn hash(frame: &[u8], types: u32, key: &[u8]) -> Option<(u32, u16)> {
    let layers = Layers::of(frame)?;
    let (addresses, network) = if layers.ipv6 { (layers.ip + 8..layers.ip + 40, IPV6) } else { (layers.ip + 12..layers.ip + 20, IPV4) };
    let transport = match (layers.protocol == TCP, layers.ipv6) {
        (true, false) => TCPV4,
        (false, false) => UDPV4,
        (true, true) => TCPV6,
        (false, true) => UDPV6,
    };
    let mut input = frame.get(addresses)?.to_vec();
    if types & transport.0 != 0 {
        input.extend(frame.get(layers.l4..layers.l4 + 4)?);
        return Some((toeplitz(key, &input), transport.1));
    }
    (types & network.0 != 0).then(|| (toeplitz(key, &input), network.1))
}

/// For every set bit of the input, the 32 bits of the key that start at the same place.
pub(super) fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |at: usize| key.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 != 0);
    let mut window = (0..32).fold(0_u32, |window, at| window << 1 | u32::from(bit(at)));
    let mut value = 0;
    for (number, byte) in input.iter().enumerate() {
        for shift in 0..8 {
            if byte >> (7 - shift) & 1 != 0 {
                value ^= window;
            }
            window = window << 1 | u32::from(bit(32 + number * 8 + shift));
        }
    }
    value
}
