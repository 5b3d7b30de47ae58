use hal::{Burst, Nic, NicError, Offload, OffloadFlags};
use hw_sim::wire::check;
use pagewire_e1000::E1000Config;

use crate::bench::{BUFFERS, Bench, Window};
use crate::headers::{IDENTIFICATION, PEER, SEQUENCE, plain, tagged, tso4, udp4};

/// Puts the payload of segments together, and checks that each header is what it has to be.
#[track_caller]
fn joined(segments: &[Vec<u8>], mss: usize, vlan: Option<u16>) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let checked = check(segment).unwrap();
        let tcp = checked.tcp.unwrap();
        let last = number + 1 == segments.len();
        assert_eq!(checked.vlan, vlan);
        assert_eq!(tcp.sequence, SEQUENCE.wrapping_add(payload.len() as u32));
        assert_eq!((tcp.psh, tcp.fin, tcp.ack), (last, last, true), "segment {number}");
        let ip = 14 + if vlan.is_some() { 4 } else { 0 };
        assert_eq!(segment[ip + 4..ip + 6], IDENTIFICATION.wrapping_add(number as u16).to_be_bytes());
        assert!(checked.payload.len() == mss || last, "segment {number} has {} bytes", checked.payload.len());
        payload.extend(&segment[checked.payload]);
    }
    payload
}

fn segmented<'w>(bench: &mut Bench, window: &'w Window, pieces: &[(usize, usize)], offload: Offload) -> (Burst<'w>, Vec<u8>) {
    let mut burst = Burst::default();
    burst.push(bench.buffer(&tso4(offload.mss).0), offload);
    let mut expected = Vec::new();
    for (offset, len) in pieces {
        burst.gather(window.segment(*offset, *len));
        expected.extend(&window.content[*offset..offset + len]);
    }
    (burst, expected)
}

#[test]
fn a_frame_gathered_at_odd_offsets_is_cut_into_segments() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 200_000);
    for (pieces, mss) in [
        (vec![(4197, 5001), (65_545, 5239), (199_999, 1)], 1448),
        (vec![(1, 1448)], 1448),
        (vec![(1, 1449)], 1448),
        (vec![(4095, 2), (8191, 2), (12_287, 2)], 1),
        (vec![(3, 65_000)], 1460),
        ((0..60).map(|number| (number * 3001, number + 1)).collect(), 77),
    ] {
        let (burst, expected) = segmented(&mut bench, &window, &pieces, tso4(mss).1);
        let sent = bench.send(burst);
        assert_eq!(joined(&sent, mss.into(), None), expected);
        assert_eq!(sent.len(), expected.len().div_ceil(mss.into()));
    }
    drop(window);
    bench.finish();
}

#[test]
fn a_payload_of_a_few_bytes_is_not_padded_into_the_segment() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 4096);
    for len in 1..10 {
        let (burst, expected) = segmented(&mut bench, &window, &[(7, len)], tso4(1448).1);
        let sent = bench.send(burst);
        assert_eq!((joined(&sent, 1448, None), sent[0].len()), (expected, 60.max(54 + len)), "{len} bytes");
    }
    drop(window);
    bench.finish();
}

#[test]
fn the_largest_frame_to_be_segmented_fits_the_field_and_the_ring() {
    for descriptors in [80, 256, 4096] {
        let mut bench = Bench::with(E1000Config { tx_descriptors: descriptors, ..E1000Config::default() });
        let most = bench.nic.capabilities().max_segmentation as usize;
        let window = Window::new(bench.nic.space(), most + 2);
        let (burst, expected) = segmented(&mut bench, &window, &[(1, most - 54)], tso4(1448).1);
        let sent = bench.send(burst);
        assert!(joined(&sent, 1448, None) == expected, "{descriptors} descriptors");
        let (mut burst, _) = segmented(&mut bench, &window, &[(1, most - 53)], tso4(1448).1);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::FrameTooLong { .. })));
        drop(burst);
        drop(window);
        bench.finish();
    }
}

#[test]
fn a_segment_longer_than_the_mtu_is_refused() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 100_000);
    for mss in [1465, 9000, u16::MAX] {
        let (mut burst, _) = segmented(&mut bench, &window, &[(0, 70_000)], tso4(mss).1);
        let posted = bench.nic.tx(0).post(&mut burst);
        assert!(matches!(posted, Err(NicError::UnsupportedOffload(_) | NicError::FrameTooLong { .. })), "{mss}: {posted:?}");
    }
    drop(window);
    bench.finish();
}

#[test]
fn segmentation_and_checksums_alternate() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 20_000);
    let (udp, udp_offload) = udp4(0);
    for round in 0..50 {
        let (mut burst, expected) = segmented(&mut bench, &window, &[(round, 10_000)], tso4(1000).1);
        burst.push(bench.buffer(&udp), udp_offload);
        let sent = bench.send(burst);
        assert_eq!(joined(&sent[..10], 1000, None), expected);
        check(&sent[10]).unwrap();
    }
    // The device keeps the two contexts apart: each was written once.
    assert_eq!(bench.model.context_descriptors(), 2);
    drop(window);
    bench.finish();
}

#[test]
fn a_burst_of_segmentations_of_different_lengths_has_one_doorbell() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 40_000);
    let mut burst = Burst::default();
    let lengths = [5000, 5000, 1, 1448, 30_000, 5000];
    for len in lengths {
        burst.push(bench.buffer(&tso4(1448).0), tso4(1448).1);
        burst.gather(window.segment(5, len));
    }
    let sent = bench.send(burst);
    let mut rest = sent.as_slice();
    for len in lengths {
        let (own, others) = rest.split_at(len.div_ceil(1448));
        assert_eq!(joined(own, 1448, None), &window.content[5..5 + len]);
        rest = others;
    }
    assert!(rest.is_empty());
    assert_eq!((bench.doorbells(), bench.model.context_descriptors()), (1, 5));
    drop(window);
    bench.finish();
}

#[test]
fn every_segment_gets_the_vlan_tag() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 20_000);
    for mss in [1448, 500] {
        let (burst, expected) = segmented(&mut bench, &window, &[(11, 3000), (9001, 3001)], tagged(tso4(mss).1, 0xe123));
        let sent = bench.send(burst);
        assert_eq!(joined(&sent, mss.into(), Some(0x123)), expected);
        assert!(sent.iter().all(|segment| segment[14..16] == [0xe1, 0x23]));
    }
    drop(window);
    bench.finish();
}

#[test]
fn segmentation_over_ipv6_is_not_offered_and_refused() {
    let mut bench = Bench::new();
    assert!(!bench.nic.capabilities().offloads.contains(OffloadFlags::TCP6_SEGMENTATION));
    let (mut header, offload) = crate::headers::tso6(1000);
    header.resize(2000, 0);
    let mut burst = bench.burst(&[(header, offload)]);
    assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnsupportedOffload(_))));
    burst.clear();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    bench.finish();
}

/// Linux' workaround for parts that report a descriptor before they have read it: the last bytes come in one of their own.
#[test]
fn a_segmentation_and_the_frame_behind_it_end_in_a_descriptor_of_four_bytes() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 20_000);
    let (mut udp, offload) = udp4(100);
    udp.resize(udp.len() + 100, 7);
    let len = udp.len();
    let segments = |bench: &mut Bench, pieces: &[(usize, usize)]| {
        let (burst, _) = segmented(bench, &window, pieces, tso4(1448).1);
        bench.send(burst);
        bench.model.last_packet()
    };
    assert_eq!(segments(&mut bench, &[(5, 5000)]), [54, 4096, 900, 4]);
    // The first frame behind it, and no other one.
    for expected in [vec![len - 4, 4], vec![len], vec![len]] {
        bench.send_bytes(&udp, offload);
        assert_eq!(bench.model.last_packet(), expected);
    }
    assert_eq!(segments(&mut bench, &[(5, 10), (100, 20)]), [54, 10, 16, 4]);
    // Padding is a descriptor of its own already.
    bench.send_bytes(&plain(PEER, 1, 20), Offload::NONE);
    assert_eq!(bench.model.last_packet(), [20, 40]);
    // Too little to take something away.
    assert_eq!(segments(&mut bench, &[(5, 8)]), [54, 8]);
    // A reset ends it.
    bench.nic.reset().unwrap();
    bench.send_bytes(&udp, offload);
    assert_eq!(bench.model.last_packet(), [len]);
    drop(window);
    bench.finish();
}

#[test]
fn no_descriptor_has_more_than_four_segments() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 20_000);
    let (burst, expected) = segmented(&mut bench, &window, &[(0, 3000)], tso4(200).1);
    assert_eq!(joined(&bench.send(burst), 200, None), expected);
    assert_eq!(bench.model.last_packet(), [54, 800, 800, 800, 596, 4]);
    drop(window);
    bench.finish();
}
