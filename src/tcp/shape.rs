//! What all ACKs of a download look like: of a frame of 66 bytes they differ in a few fields, so that a comparison of some words recognises one, and
//! only those fields have to be read.

use hal::receive::RxFlags;
use smoltcp::wire::{ETHERNET_HEADER_LEN, IPV4_HEADER_LEN};

use super::inbound::adds_up;
use super::segment::{Flags, TCP_HEADER_LEN, TcpHeader};
use super::seq::Seq;

/// Ethernet, IPv4 without options, TCP with timestamps as everybody aligns them (RFC 7323 appendix A).
const LEN: usize = ETHERNET_HEADER_LEN + IPV4_HEADER_LEN + TCP_HEADER_LEN + 12;
/// Where the TCP header starts.
const TCP: usize = ETHERNET_HEADER_LEN + IPV4_HEADER_LEN;
/// Where the addresses are that the TCP checksum includes, directly in front of the TCP header; and the protocol's number, which it includes, too.
const PSEUDO_HEADER: usize = TCP - 8;
const PROTOCOL: u16 = 6;
/// So many words are compared: up to the kind of the timestamps.
const WORDS: usize = 7;

/// The bytes of these words that are the same in each: all but the sender's station, the type of service, the identification, DF, the time to live,
/// checksums, ACK, PSH and the control bits that nobody looks at, window and urgent pointer.
const SAME: [u64; WORDS] = {
    let mut same = [0; WORDS];
    let mut at = 0;
    while at < 8 * WORDS {
        let byte = match at {
            6..=11 | 15 | 18 | 19 | 22 | 24 | 25 | 42..=45 | 48..=53 => 0,
            20 => 0x3f,
            47 => Flags::FIN.union(Flags::SYN).union(Flags::RST).union(Flags::ACK).bits(),
            _ => 0xff,
        };
        same[at / 8] |= (byte as u64) << (8 * (at % 8));
        at += 1;
    }
    same
};
/// What follows them: the rest of the timestamps option's head.
const LAST: [u8; 2] = [8, 10];

/// The bytes that the ACKs of one connection have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape([u64; WORDS]);

/// Those that are of this one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub ack: Seq,
    pub window: u16,
    /// The peer's clock, and what it echoes.
    pub value: u32,
    pub echo: u32,
}

impl Shape {
    /// The shape of a frame that is [usual](super::inbound::parse_usual) and acknowledges, and does nothing else. `None` where it has other options
    /// than timestamps, or they lie elsewhere.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let known: &[u8; LEN] = frame.first_chunk()?;
        let shape = Self(std::array::from_fn(|index| word(known, index)));
        shape
            .fields(frame, RxFlags::all())
            .filter(|_| frame[TCP + TCP_HEADER_LEN..][..2] == [1, 1] && frame[TCP + 12] >> 4 == 8)
            .map(|_| shape)
    }

    /// The fields of a frame of this shape, whose checksums are right: as far as `checked` does not say it they are looked at.
    #[inline]
    pub fn fields(&self, frame: &[u8], checked: RxFlags) -> Option<Fields> {
        let frame: &[u8; LEN] = frame.first_chunk()?;
        // One after the other, in the order of what differs most often: all of them are the same mostly.
        if !(0..WORDS).rev().all(|index| word(frame, index) == self.0[index]) || frame[8 * WORDS..][..2] != LAST {
            return None;
        }
        let (ip, tcp) = (frame[ETHERNET_HEADER_LEN..TCP].as_chunks().0, frame[PSEUDO_HEADER..].as_chunks().0);
        let intact = (checked.contains(RxFlags::IPV4_CHECKSUM_GOOD) || adds_up(ip, 0))
            && (checked.contains(RxFlags::L4_CHECKSUM_GOOD) || adds_up(tcp, PROTOCOL + (LEN - TCP) as u16));
        if !intact {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        Some(Fields {
            ack: Seq(word(TCP + 8)),
            window: u16::from_be_bytes([frame[TCP + 14], frame[TCP + 15]]),
            value: word(LEN - 8),
            echo: word(LEN - 4),
        })
    }
}

/// What has to be the same of a word of a frame.
#[inline(always)]
fn word(frame: &[u8; LEN], index: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| frame[8 * index + byte])) & SAME[index]
}

impl Fields {
    /// The header with these fields, of which the rest is known.
    #[inline]
    pub fn put(self, header: &mut TcpHeader) {
        (header.ack, header.window) = (self.ack, self.window);
        if let Some(stamps) = &mut header.options.timestamps {
            (stamps.value, stamps.echo) = (self.value, self.echo);
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::net::checker::{OWN, OWN_V4, PEER, PEER_V4, v4};
    use crate::tcp::inbound::parse_usual;

    fn frame(ack: u32, window: u16, value: u32, echo: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4(PEER_V4, OWN_V4, 64).tcp(51000, 80, 7, window).ack(ack);
        let options = [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat();
        packet.options_raw(&options).unwrap().write(&mut frame, &[]).unwrap();
        frame
    }

    #[test]
    fn what_differs_in_other_fields_has_another_shape() {
        let first = frame(1000, 500, 1, 2);
        let shape = Shape::of(&first).expect("a shape");
        assert_eq!(shape.fields(&frame(2000, 70, 3, 4), RxFlags::empty()), Some(Fields { ack: Seq(2000), window: 70, value: 3, echo: 4 }));
        let same = [6, 11, 15, 18, 19, 22, 24, 25, 42, 45, 48, 49, 50, 51, 52, 53, 58, 61, 62, 65];
        for at in 0..LEN {
            let mut other = first.clone();
            other[at] ^= 1;
            let differs = !(same.contains(&at) || (42..46).contains(&at) || (58..66).contains(&at) || (6..12).contains(&at));
            assert_eq!(shape.fields(&other, RxFlags::all()).is_none(), differs, "byte {at}");
            // What checksums cover cannot be changed alone.
            assert!(at < 14 || shape.fields(&other, RxFlags::empty()).is_none(), "byte {at}");
        }
        for (at, bit, differs) in [(20, 0x40, false), (20, 0x20, true), (47, 8, false), (47, 0xc0, false), (47, 2, true), (46, 0x10, true)]
        {
            let mut other = first.clone();
            other[at] ^= bit;
            assert_eq!(shape.fields(&other, RxFlags::all()).is_none(), differs, "byte {at}, bit {bit:#x}");
        }
        assert_eq!(shape.fields(&first[..LEN - 1], RxFlags::all()), None);
    }

    #[test]
    fn only_timestamps_in_their_usual_place_make_a_shape() {
        let plain = frame(1000, 500, 1, 2);
        for (at, value) in [(46, 0x90), (54, 0), (55, 5), (56, 5), (57, 8)] {
            let mut other = plain.clone();
            other[at] = value;
            assert!(Shape::of(&other).is_none(), "byte {at}");
        }
        assert!(Shape::of(&plain[..60]).is_none());
    }

    proptest! {
        #[test]
        fn it_reads_what_the_parser_reads(
            ack: u32,
            window: u16,
            value: u32,
            echo: u32,
            changes in proptest::collection::vec((0..LEN, any::<u8>()), 0..3),
        ) {
            let first = frame(1000, 500, 1, 2);
            let shape = Shape::of(&first).expect("a shape");
            let (_, known) = parse_usual(&v4(), &first, RxFlags::empty()).expect("a usual frame");
            let mut other = frame(ack, window, value, echo);
            for (at, value) in changes {
                other[at] = value;
            }
            for checked in [RxFlags::empty(), RxFlags::IPV4_CHECKSUM_GOOD, RxFlags::L4_CHECKSUM_GOOD, RxFlags::all()] {
                let Some(fields) = shape.fields(&other, checked) else { continue };
                let mut header = known.header;
                fields.put(&mut header);
                let (_, read) = parse_usual(&v4(), &other, checked).expect("a usual frame");
                header.flags = read.header.flags;
                prop_assert_eq!((header, read.payload), (read.header, &[][..]));
                prop_assert_eq!(read.header.flags - Flags::PSH, Flags::ACK);
            }
        }
    }
}
