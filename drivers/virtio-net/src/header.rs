//! The header in front of every frame (5.1.6), and hal's requests in its terms.
//!
//! It is three little-endian words: flags, segmentation and header length; segment size and where the checksum starts; where the checksum is, and
//! in how many buffers a received packet lies.

use hal::receive::{About, RxFlags};
use hal::{NicError, Offload, OffloadFlags};

/// The words of a header, and of one with the flow's hash (HASH_REPORT).
pub(crate) const WORDS: usize = 3;
pub(crate) const WORDS_WITH_HASH: usize = 5;

/// A header without the flow's hash.
pub(crate) type Header = [u32; WORDS];

/// Their lengths in bytes.
pub(crate) const HEADER: u32 = len([0; WORDS]);
pub(crate) const HEADER_WITH_HASH: u32 = len([0; WORDS_WITH_HASH]);

/// The length of a header in bytes.
#[inline(always)]
pub(crate) const fn len<const N: usize>(_: [u32; N]) -> u32 {
    (N * size_of::<u32>()) as u32
}

/// The header as one of `N` words.
#[inline(always)]
pub(crate) fn extend<const N: usize>(header: Header) -> [u32; N] {
    std::array::from_fn(|word| header.get(word).copied().unwrap_or(0))
}

/// Flags: the checksum is to be filled in; the checksum was checked.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// Kinds of segmentation.
const NO_SEGMENTATION: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
/// A bit beside the kind: the first segment has a congestion mark.
const CONGESTION: u8 = 0x80;

/// The checksum's place in a header, from the header's start.
const UDP_CHECKSUM: u16 = 6;
const TCP_CHECKSUM: u16 = 16;

/// A request in the device's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub header: Header,
    /// The shortest frame that the request fits.
    pub least: u32,
}

fn unsupported(what: &str) -> NicError {
    NicError::UnsupportedOffload(what.to_owned())
}

fn words(flags: u8, kind: u8, header_len: u16, segment: u16, start: u16, offset: u16, buffers: u16) -> Header {
    let word = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    [word(u16::from_le_bytes([flags, kind]), header_len), word(segment, start), word(offset, buffers)]
}

/// What the device is told about a frame with this request, where it can do what is `offered`.
pub(crate) fn prepare(offload: &Offload, offered: OffloadFlags) -> Result<Prepared, NicError> {
    let Offload { flags, ip_start, l4_start, payload_start, mss, .. } = *offload;
    let missing = flags - offered;
    if let Some(name) = missing.names().next() {
        return Err(unsupported(name));
    }
    let tcp = flags.intersects(OffloadFlags::TCP_CHECKSUM | OffloadFlags::SEGMENTATION);
    let udp = flags.intersects(OffloadFlags::UDP_CHECKSUM | OffloadFlags::UDP_SEGMENTATION);
    if !tcp && !udp {
        return Ok(Prepared { header: [0; 3], least: 1 });
    }
    if tcp && udp {
        return Err(unsupported("work on UDP and on TCP at once"));
    }
    if ip_start < 14 || l4_start < ip_start.saturating_add(20) {
        return Err(unsupported("a checksum outside the frame's headers"));
    }
    let (offset, shortest) = if tcp { (TCP_CHECKSUM, 20) } else { (UDP_CHECKSUM, 8) };
    let l4 = u32::from(l4_start);
    let cutting = flags & OffloadFlags::CUTTING;
    if cutting.is_empty() {
        let header = words(NEEDS_CHECKSUM, NO_SEGMENTATION, 0, 0, l4_start.into(), offset, 0);
        return Ok(Prepared { header, least: l4 + u32::from(offset) + 2 });
    }
    let kind = match cutting {
        OffloadFlags::TCP4_SEGMENTATION => TCP4,
        OffloadFlags::TCP6_SEGMENTATION => TCP6,
        OffloadFlags::UDP_SEGMENTATION => UDP,
        _ => return Err(unsupported("several kinds of segmentation at once")),
    };
    if mss == 0 || u32::from(payload_start) < l4 + shortest {
        return Err(unsupported("segments without a payload, or with a payload inside the headers"));
    }
    let header = words(NEEDS_CHECKSUM, kind, payload_start.into(), mss, l4_start.into(), offset, 0);
    Ok(Prepared { header, least: u32::from(payload_start) + 1 })
}

/// In how many buffers a received packet lies.
#[inline(always)]
pub(crate) fn buffers(header: Header) -> u16 {
    buffers_of(header[2])
}

/// The same, of the last word alone.
#[inline(always)]
pub(crate) fn buffers_of(word: u32) -> u16 {
    (word >> 16) as u16
}

/// What the device says about a received packet of `bytes` bytes; `None` when it names a place outside the packet.
#[inline(always)]
pub(crate) fn about(header: Header, bytes: u32) -> Option<About> {
    if header[0] as u16 == 0 {
        return Some(About::default());
    }
    about_any(header, bytes)
}

fn about_any(header: Header, bytes: u32) -> Option<About> {
    let [flags, kind] = (header[0] as u16).to_le_bytes();
    let (segment, start, offset) = (header[1] as u16, (header[1] >> 16) as u16, header[2] as u16);
    let header_len = (header[0] >> 16) as u16;
    let mut about = About::default();
    if flags & NEEDS_CHECKSUM != 0 {
        if u32::from(start) + u32::from(offset) + 2 > bytes {
            return None;
        }
        // Data from this machine: not damaged, whatever the field holds.
        about.flags |= RxFlags::L4_CHECKSUM_GOOD;
        about.offload = request(kind, segment, header_len, start, offset, bytes);
    } else if flags & DATA_VALID != 0 {
        about.flags |= RxFlags::L4_CHECKSUM_GOOD;
    }
    Some(about)
}

/// The request that sends a received packet on as it is; nothing for what hal has no request for.
fn request(kind: u8, segment: u16, header_len: u16, start: u16, offset: u16, bytes: u32) -> Offload {
    let Ok(l4_start) = u8::try_from(start) else { return Offload::NONE };
    let checksum = match offset {
        UDP_CHECKSUM => OffloadFlags::UDP_CHECKSUM,
        TCP_CHECKSUM => OffloadFlags::TCP_CHECKSUM,
        _ => return Offload::NONE,
    };
    let plain = Offload { flags: checksum, ip_start: 14, l4_start, ..Offload::NONE };
    let (cutting, shortest) = match (kind & !CONGESTION, checksum) {
        (TCP4, OffloadFlags::TCP_CHECKSUM) => (OffloadFlags::TCP4_SEGMENTATION, 20),
        (TCP6, OffloadFlags::TCP_CHECKSUM) => (OffloadFlags::TCP6_SEGMENTATION, 20),
        (UDP, OffloadFlags::UDP_CHECKSUM) => (OffloadFlags::UDP_SEGMENTATION, 8),
        _ => return plain,
    };
    // The header length is a hint, which may cover more than the headers.
    let payload_start = u8::try_from(header_len).ok().filter(|len| *len >= l4_start.saturating_add(shortest) && u32::from(*len) < bytes);
    match payload_start {
        Some(payload_start) if segment > 0 => Offload { flags: cutting, payload_start, mss: segment, ..plain },
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: OffloadFlags = OffloadFlags::all();

    fn tcp(flags: OffloadFlags) -> Offload {
        Offload { flags, ip_start: 14, l4_start: 34, payload_start: 54, mss: 1448, vlan_tag: 0 }
    }

    fn bytes(header: Header) -> Vec<u8> {
        header.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn requests_are_laid_out_as_in_the_specification() {
        // 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
        let none = prepare(&Offload::NONE, ALL).unwrap();
        assert_eq!((bytes(none.header), none.least), (vec![0; 12], 1));
        let checksum = prepare(&tcp(OffloadFlags::TCP_CHECKSUM), ALL).unwrap();
        assert_eq!((bytes(checksum.header), checksum.least), (vec![1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], 52));
        let cut = prepare(&tcp(OffloadFlags::TCP4_SEGMENTATION), ALL).unwrap();
        assert_eq!((bytes(cut.header), cut.least), (vec![1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0], 55));
        let uso = prepare(&Offload { payload_start: 42, ..tcp(OffloadFlags::UDP_SEGMENTATION) }, ALL).unwrap();
        assert_eq!(bytes(uso.header), [1, 5, 42, 0, 0xa8, 5, 34, 0, 6, 0, 0, 0]);
    }

    #[test]
    fn a_request_that_cannot_be_right_is_refused() {
        let wrong = [
            tcp(OffloadFlags::TCP_CHECKSUM | OffloadFlags::UDP_CHECKSUM),
            tcp(OffloadFlags::TCP4_SEGMENTATION | OffloadFlags::TCP6_SEGMENTATION),
            Offload { ip_start: 13, ..tcp(OffloadFlags::TCP_CHECKSUM) },
            Offload { l4_start: 33, ..tcp(OffloadFlags::TCP_CHECKSUM) },
            Offload { mss: 0, ..tcp(OffloadFlags::TCP4_SEGMENTATION) },
            Offload { payload_start: 53, ..tcp(OffloadFlags::TCP4_SEGMENTATION) },
        ];
        for offload in wrong {
            assert!(matches!(prepare(&offload, ALL), Err(NicError::UnsupportedOffload(_))), "{offload:?}");
        }
        assert!(prepare(&tcp(OffloadFlags::TCP_CHECKSUM), OffloadFlags::UDP_CHECKSUM).is_err(), "not offered");
    }

    #[test]
    fn what_was_received_can_be_asked_for_again() {
        for flags in [OffloadFlags::TCP_CHECKSUM, OffloadFlags::TCP4_SEGMENTATION, OffloadFlags::TCP6_SEGMENTATION] {
            let mut offload = tcp(flags);
            if flags == OffloadFlags::TCP_CHECKSUM {
                (offload.mss, offload.payload_start) = (0, 0);
            }
            let about = about(prepare(&offload, ALL).unwrap().header, 3000).unwrap();
            assert_eq!((about.offload, about.flags), (offload, RxFlags::L4_CHECKSUM_GOOD));
        }
    }

    #[test]
    fn a_checksum_outside_the_packet_is_noticed() {
        let header = words(NEEDS_CHECKSUM, 0, 0, 0, 34, 16, 1);
        assert!(about(header, 51).is_none());
        assert!(about(header, 52).is_some());
        assert!(about(words(NEEDS_CHECKSUM, 0, 0, 0, u16::MAX, u16::MAX, 1), 0xffff).is_none());
        // What hal cannot name is no request; nor are header lengths that cannot be.
        assert_eq!(about(words(NEEDS_CHECKSUM, 0, 0, 0, 300, 16, 1), 1000).unwrap().offload, Offload::NONE);
        assert_eq!(about(words(NEEDS_CHECKSUM, TCP4, 10, 1000, 34, 16, 1), 3000).unwrap().offload.flags, OffloadFlags::TCP_CHECKSUM);
        assert_eq!(about(words(DATA_VALID, 0, 0, 0, 999, 999, 1), 60).unwrap().flags, RxFlags::L4_CHECKSUM_GOOD);
    }
}
