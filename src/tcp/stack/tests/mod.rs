//! Transfers through the real driver on the in-process model, with smoltcp as the peer.

mod bench;

use std::time::Duration;

use e1000::E1000Config;
use hal::OffloadFlags;

use self::bench::{Bench, file, serve, shared};
use super::*;
use crate::send::{CopyReason, PortConfig, Stability};
use crate::tcp::Piece;

#[test]
fn a_file_of_any_size_arrives_and_is_gathered_by_the_nic() {
    for len in [0, 1, 1460, 1461, 4097, 300_000, 3_000_000] {
        let (path, content) = file(len);
        let file = shared(&path, Stability::Auto);
        let mut bench = Bench::new();
        let (received, report) = bench.download(&mut serve(|stack, socket| {
            let mark = socket.sendfile(stack, &file, 0..len as u64).unwrap();
            assert_eq!(mark, len as u64);
        }));
        assert!(received == content, "{len} bytes, of which {} arrived", received.len());
        assert_eq!((report.bytes_gathered, report.bytes_copied, report.retransmitted), (len as u64, 0, 0));
        assert_eq!((report.accepted, report.dropped), (1, 0));
        bench.assert_clean();
    }
}

#[test]
fn what_is_longer_than_a_segment_is_cut_by_the_nic() {
    let (path, content) = file(3_000_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        socket.sendfile(stack, &file, 0..3_000_000).unwrap();
    }));
    assert!(received == content);
    let segments = bench.segments().filter(|segment| !segment.payload.is_empty()).count() as u64;
    assert!(segments >= 3_000_000 / 1460 && report.frames < segments / 4, "{segments} segments of {} frames", report.frames);
}

#[test]
fn a_head_a_file_and_a_tail_are_one_stream() {
    let (path, content) = file(100_000);
    let file = shared(&path, Stability::Auto);
    let mut bench = Bench::new();
    let (received, report) = bench.download(&mut serve(|stack, socket| {
        let pieces = [Piece::Bytes(b"head "), Piece::File(&file, 5..90_005), Piece::Bytes(b" tail "), Piece::File(&file, 0..10)];
        assert_eq!(socket.sendfilev(stack, &pieces).unwrap(), 90_021);
        assert_eq!(socket.send(stack, b".").unwrap(), 90_022);
    }));
    let expected = [b"head ", &content[5..90_005], b" tail ", &content[..10], b"."].concat();
    assert!(received == expected);
    assert_eq!((report.bytes_gathered, report.bytes_copied, report.bytes_program), (90_010, 0, 12));
    bench.assert_clean();
}

#[test]
fn what_the_nic_lacks_is_done_by_the_cpu_and_reported() {
    let (path, content) = file(200_000);
    let file = shared(&path, Stability::Auto);
    for (config, reason) in [
        (E1000Config { offloads: OffloadFlags::all() - OffloadFlags::SEGMENTATION, ..E1000Config::default() }, None),
        (E1000Config { offloads: OffloadFlags::empty(), ..E1000Config::default() }, Some(CopyReason::NoChecksumOffload)),
        (E1000Config { gather: false, ..E1000Config::default() }, Some(CopyReason::NoGather)),
    ] {
        let mut bench = Bench::with(config, PortConfig::default(), StackConfig::default(), "192.0.2.1/24", "192.0.2.2");
        let (received, report) = bench.download(&mut serve(|stack, socket| {
            socket.sendfilev(stack, &[Piece::Bytes(b"head"), Piece::File(&file, 0..200_000)]).unwrap();
        }));
        assert!(received == [b"head", &content[..]].concat());
        assert_eq!(report.bytes_program, 4);
        match reason {
            None => assert_eq!((report.bytes_gathered, report.bytes_copied), (200_000, 0)),
            Some(reason) => assert_eq!((report.bytes_gathered, report.copy_reasons[&reason]), (0, 200_000)),
        }
        bench.assert_clean();
    }
}
