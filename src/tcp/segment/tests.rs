//! Headers, against etherparse and against themselves.

use etherparse::{TcpHeader as Other, TcpHeaderSlice, TcpOptionElement};
use proptest::prelude::*;

use super::*;
use crate::tcp::{MAX_TCP_HEADER_LEN, Timestamps};

fn options(syn: bool) -> impl Strategy<Value = TcpOptions> {
    let stamps = proptest::option::of((any::<u32>(), any::<u32>()).prop_map(|(value, echo)| Timestamps { value, echo }));
    let blocks = proptest::collection::vec((any::<u32>(), any::<u32>()), 0..=4);
    (proptest::option::of(any::<u16>()), proptest::option::of(0..=14u8), any::<bool>(), blocks, stamps).prop_map(
        move |(mss, window_scale, sack_permitted, blocks, timestamps)| {
            if syn {
                return TcpOptions { mss, window_scale, sack_permitted, timestamps, ..TcpOptions::default() };
            }
            let mut options = TcpOptions { timestamps, ..TcpOptions::default() };
            for (from, to) in blocks.into_iter().take(crate::tcp::SackBlocks::room(timestamps.is_some())) {
                assert!(options.sack.push(Seq(from), Seq(to)));
            }
            options
        },
    )
}

fn headers() -> impl Strategy<Value = TcpHeader> {
    (0..32u8).prop_flat_map(|bits| {
        let flags = Flags::from_bits_truncate(bits);
        (any::<[u16; 3]>(), any::<[u32; 2]>(), options(flags.contains(Flags::SYN))).prop_map(
            move |([source_port, destination_port, window], [seq, ack], options)| TcpHeader {
                source_port,
                destination_port,
                seq: Seq(seq),
                ack: Seq(ack),
                flags,
                window,
                options,
            },
        )
    })
}

/// The bytes of a header.
fn bytes(header: &TcpHeader) -> Vec<u8> {
    let mut bytes = [0xee; MAX_TCP_HEADER_LEN];
    let len = header.emit(&mut bytes);
    bytes[..len].to_vec()
}

/// What etherparse reads in option bytes, as ours. It stops at what it does not like, as we do.
fn other_options(other: &Other, syn: bool) -> TcpOptions {
    let mut options = TcpOptions::default();
    for option in other.options_iterator() {
        match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) if syn => options.mss = Some(mss),
            Ok(TcpOptionElement::WindowScale(scale)) if syn => options.window_scale = Some(scale.min(14)),
            Ok(TcpOptionElement::SelectiveAcknowledgementPermitted) if syn => options.sack_permitted = true,
            Ok(TcpOptionElement::SelectiveAcknowledgement(first, more)) => {
                options.sack = Default::default();
                for (from, to) in std::iter::once(first).chain(more.into_iter().flatten()) {
                    options.sack.push(Seq(from), Seq(to));
                }
            }
            Ok(TcpOptionElement::Timestamp(value, echo)) => options.timestamps = Some(Timestamps { value, echo }),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    options
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(header in headers(), payload in proptest::collection::vec(any::<u8>(), 0..50)) {
        let mut all = bytes(&header);
        prop_assert_eq!(all.len(), header.len());
        prop_assert!(all.len().is_multiple_of(4) && all.len() <= MAX_TCP_HEADER_LEN);
        all.extend(&payload);
        let segment = Segment::parse(&all).unwrap();
        prop_assert_eq!(segment, Segment { header, payload: &payload });
    }

    #[test]
    fn another_parser_reads_the_same(header in headers()) {
        let bytes = bytes(&header);
        let (other, rest) = Other::from_slice(&bytes).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!((other.source_port, other.destination_port), (header.source_port, header.destination_port));
        prop_assert_eq!((other.sequence_number, other.acknowledgment_number), (header.seq.0, header.ack.0));
        prop_assert_eq!((other.window_size, other.checksum, other.urgent_pointer), (header.window, 0, 0));
        let mut flags = Flags::empty();
        for (set, flag) in [
            (other.fin, Flags::FIN), (other.syn, Flags::SYN), (other.rst, Flags::RST), (other.psh, Flags::PSH), (other.ack, Flags::ACK),
        ] {
            flags.set(flag, set);
        }
        prop_assert_eq!(flags, header.flags);
        prop_assert!(!other.urg && !other.ece && !other.cwr && !other.ns);
        prop_assert!(other.options_iterator().all(|option| option.is_ok()));
        prop_assert_eq!(other_options(&other, flags.contains(Flags::SYN)), header.options);
    }

    #[test]
    fn arbitrary_bytes_are_read_as_another_parser_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let other = TcpHeaderSlice::from_slice(&bytes);
        match Segment::parse(&bytes) {
            Ok(segment) => {
                let other = other.unwrap();
                prop_assert_eq!(segment.payload, &bytes[other.slice().len()..]);
                prop_assert_eq!(segment.header.seq.0, other.sequence_number());
                prop_assert_eq!(segment.header.flags.contains(Flags::RST), other.rst());
            }
            Err(_) => prop_assert!(other.is_err()),
        }
    }

    /// Bytes that look like options more often than random ones do.
    #[test]
    fn damaged_options_are_read_as_far_as_another_parser_reads_them(
        mut options in proptest::collection::vec(prop_oneof![Just(1u8), Just(2), Just(4), Just(8), Just(10), 0..40u8], 0..=10),
        syn: bool,
    ) {
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = [0; TCP_HEADER_LEN].to_vec();
        bytes[12] = ((TCP_HEADER_LEN + options.len()) as u8 / 4) << 4;
        bytes[13] = if syn { 2 } else { 16 };
        bytes.extend(&options);
        let ours = Segment::parse(&bytes).unwrap().header.options;
        let (other, _) = Other::from_slice(&bytes).unwrap();
        // The other parser also gives up on kinds that it does not know, and on lengths that ours skips.
        let known = other.options_iterator().all(|option| option.is_ok());
        if known {
            prop_assert_eq!(ours, other_options(&other, syn));
        }
    }

    #[test]
    fn a_refusal_is_acceptable_to_the_one_that_gets_it(header in headers(), len in 0..2000usize) {
        let payload = vec![0; len];
        let segment = Segment { header, payload: &payload };
        let Some(answer) = refuse(&segment) else {
            prop_assert!(header.flags.contains(Flags::RST));
            return Ok(());
        };
        prop_assert_eq!((answer.source_port, answer.destination_port), (header.destination_port, header.source_port));
        if header.flags.contains(Flags::ACK) {
            prop_assert_eq!((answer.flags, answer.seq), (Flags::RST, header.ack));
        } else {
            prop_assert_eq!((answer.flags, answer.ack), (Flags::RST | Flags::ACK, header.seq + segment.sequence_len()));
        }
    }
}

#[test]
fn the_options_of_a_syn_are_laid_out_as_linux_lays_them_out() {
    let options = TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 1, echo: 0 }),
        ..TcpOptions::default()
    };
    let mut bytes = [0; 40];
    assert_eq!(options.emit(&mut bytes), 20);
    assert_eq!(bytes[..20], [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
}

#[test]
fn unknown_options_are_skipped_and_wrong_lengths_end_it() {
    let fast_open_and_mss = [34, 4, 9, 9, 2, 4, 0, 99];
    assert_eq!(TcpOptions::parse(&fast_open_and_mss, true).mss, Some(99));
    assert_eq!(TcpOptions::parse(&fast_open_and_mss, false).mss, None);
    for wrong in [[34, 0, 2, 4, 0, 99], [34, 1, 2, 4, 0, 99], [34, 7, 2, 4, 0, 99]] {
        assert_eq!(TcpOptions::parse(&wrong, true), TcpOptions::default());
    }
    // A block too many does not fit a header; half a block is none.
    let half = [5, 6, 0, 0, 0, 1, 1, 1];
    assert!(TcpOptions::parse(&half, false).sack.is_empty());
    assert_eq!(TcpOptions::parse(&[3, 3, 15], true).window_scale, Some(14));
}
