use hal::{Burst, Nic, NicError, Offload, OffloadFlags};
use hw_sim::wire::check;
use hw_sim::wire::check::Protocol;
use pagewire_e1000::E1000Config;

use crate::bench::{Bench, Window};
use crate::headers::{PEER, plain, sum, tagged, tcp4, tcp6, tso4, tso6, udp4, udp6};

/// Headers for a payload of so many bytes.
type Headers = fn(usize) -> (Vec<u8>, Offload);

const KINDS: [(Headers, Protocol); 4] = [(udp4, Protocol::Udp), (tcp4, Protocol::Tcp), (udp6, Protocol::Udp), (tcp6, Protocol::Tcp)];

#[test]
fn checksums_are_right_for_payload_gathered_from_a_file() {
    let mut bench = Bench::new();
    let window = Window::new(bench.nic.space(), 8192);
    for (headers, protocol) in KINDS {
        for (offset, len) in [(0, 1), (1, 2), (4095, 3), (7, 1400), (4096, 17)] {
            let (header, offload) = headers(len);
            let mut burst = Burst::default();
            burst.push(bench.buffer(&header), offload);
            // An odd cut inside the payload: the checksum runs over it.
            let first = len.div_ceil(2);
            burst.gather(window.segment(offset, first));
            if len > first {
                burst.gather(window.segment(offset + first, len - first));
            }
            let sent = bench.send(burst);
            let checked = check(&sent[0]).unwrap();
            assert_eq!(checked.protocol, protocol);
            assert_eq!(&sent[0][checked.payload], &window.content[offset..offset + len]);
        }
    }
    drop(window);
    bench.finish();
}

#[test]
fn short_frames_are_padded_and_their_checksums_right() {
    let mut bench = Bench::new();
    for (headers, _) in KINDS {
        for len in 0..20 {
            let (mut frame, offload) = headers(len);
            frame.extend(vec![0xa5; len]);
            let sent = bench.send_bytes(&frame, offload);
            assert_eq!(sent[0].len(), frame.len().max(60));
            let checked = check(&sent[0]).unwrap();
            assert_eq!(sent[0][checked.payload], vec![0xa5; len]);
            assert!(sent[0][frame.len()..].iter().all(|byte| *byte == 0));
        }
    }
    bench.finish();
}

#[test]
fn the_ip_checksum_alone_is_filled_in_also_in_a_fragment_of_a_few_bytes() {
    let mut bench = Bench::new();
    for len in [8, 100, 4, 0] {
        let (mut frame, offload) = udp4(0);
        frame.truncate(34);
        frame.extend(vec![1; len]);
        // The last fragment of a datagram.
        frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&[0x00, 0x10]);
        let sent = bench.send_bytes(&frame, Offload { flags: OffloadFlags::IPV4_CHECKSUM, ..offload });
        assert_eq!(sum(&sent[0][14..34]), 0xffff, "{len} bytes");
        assert_eq!(sent[0][34..34 + len], vec![1; len]);
    }
    bench.finish();
}

#[test]
fn a_context_is_written_once_while_it_fits() {
    let mut bench = Bench::new();
    let mut contexts = 0;
    for (headers, _) in KINDS {
        let frames: Vec<_> = (0..30)
            .map(headers)
            .map(|(mut frame, offload)| {
                let len = frame.len();
                frame.resize(len + 30, 0);
                (frame, offload)
            })
            .collect();
        for _ in 0..3 {
            let burst = bench.burst(&frames);
            assert_eq!(bench.send(burst).len(), 30);
        }
        contexts += 1;
        assert_eq!(bench.model.context_descriptors(), contexts);
    }
    // A frame without a request between them needs none and spoils none.
    let frames: Vec<_> = (0..10).flat_map(|number| [(plain(PEER, number, 60), Offload::NONE), tcp6(0)]).collect();
    let burst = bench.burst(&frames);
    bench.send(burst);
    assert_eq!(bench.model.context_descriptors(), contexts);
    bench.finish();
}

#[test]
fn frames_that_ask_for_different_things_alternate() {
    let mut bench = Bench::new();
    let frames: Vec<_> = (0..60).map(|number| KINDS[number % 4].0(0)).collect();
    let burst = bench.burst(&frames);
    for (sent, (_, protocol)) in bench.send(burst).iter().zip(KINDS.into_iter().cycle()) {
        assert_eq!(check(sent).unwrap().protocol, protocol);
    }
    assert_eq!(bench.model.context_descriptors(), 60);
    bench.finish();
}

#[test]
fn a_vlan_tag_is_inserted_in_every_kind_of_frame() {
    let mut bench = Bench::new();
    for (headers, protocol) in KINDS {
        let (mut frame, offload) = headers(20);
        frame.extend([3; 20]);
        for tag in [1, 0x6fff, 0xffff, 0] {
            let sent = bench.send_bytes(&frame, tagged(offload, tag));
            assert_eq!(sent[0][12..16], [0x81, 0x00, (tag >> 8) as u8, tag as u8]);
            let checked = check(&sent[0]).unwrap();
            assert_eq!((checked.protocol, checked.vlan), (protocol, Some(tag & 0xfff)));
        }
    }
    // With several descriptors, between frames without a tag.
    let window = Window::new(bench.nic.space(), 4096);
    for _ in 0..3 {
        let (header, offload) = udp4(1000);
        let mut burst = bench.burst(&[(plain(PEER, 1, 60), Offload::NONE)]);
        burst.push(bench.buffer(&header), tagged(offload, 0x2064));
        burst.gather(window.segment(77, 1000));
        burst.push(bench.buffer(&plain(PEER, 1, 60)), Offload::NONE);
        let sent = bench.send(burst);
        assert_eq!([&sent[0], &sent[2]], [&plain(PEER, 1, 60); 2]);
        let checked = check(&sent[1]).unwrap();
        assert_eq!(checked.vlan, Some(0x064));
        assert_eq!(&sent[1][checked.payload], &window.content[77..1077]);
    }
    drop(window);
    bench.finish();
}

#[test]
fn checksums_are_right_behind_a_tag_in_the_frame() {
    let mut bench = Bench::new();
    for (headers, protocol) in KINDS {
        let (mut frame, offload) = headers(33);
        frame.extend([9; 33]);
        frame.splice(12..12, [0x81, 0x00, 0x20, 0x64]);
        let sent = bench.send_bytes(&frame, Offload { ip_start: 18, l4_start: offload.l4_start + 4, ..offload });
        let checked = check(&sent[0]).unwrap();
        assert_eq!((checked.protocol, checked.vlan), (protocol, Some(0x064)));
    }
    bench.finish();
}

#[test]
fn a_tag_is_refused_where_the_device_was_told_not_to_insert_any() {
    let mut bench = Bench::with(E1000Config { vlan: false, ..E1000Config::default() });
    refused(&mut bench, &plain(PEER, 1, 60), tagged(Offload::NONE, 5));
    let (header, offload) = udp4(0);
    refused(&mut bench, &header, tagged(offload, 5));
    hw_sim::wire::check(&bench.send_bytes(&header, offload)[0]).unwrap();
    bench.nic.reset().unwrap();
    refused(&mut bench, &header, tagged(offload, 5));
    bench.finish();
}

#[track_caller]
fn refused(bench: &mut Bench, frame: &[u8], offload: Offload) {
    let mut burst = bench.burst(&[(frame.to_vec(), offload)]);
    let posted = bench.nic.tx(0).post(&mut burst);
    assert!(matches!(posted, Err(NicError::UnsupportedOffload(_))), "{offload:?}: {posted:?}");
    assert_eq!(burst.len(), 1);
}

#[test]
fn offsets_that_do_not_fit_the_frame_are_refused() {
    let mut bench = Bench::new();
    let (udp, offload) = udp4(0);
    for wrong in [
        Offload { ip_start: 13, ..offload },
        Offload { ip_start: 255, ..offload },
        Offload { l4_start: 33, ..offload },
        Offload { l4_start: 35, ..offload },
        Offload { l4_start: 240, ..offload },
        Offload { l4_start: 0, ..offload },
        Offload { ip_start: 200, l4_start: 100, ..offload },
        Offload { flags: offload.flags | OffloadFlags::TCP_CHECKSUM, ..offload },
        Offload { flags: OffloadFlags::IPV4_CHECKSUM, l4_start: 43, ..offload },
    ] {
        refused(&mut bench, &udp, wrong);
    }
    let (mut header, offload) = tso4(1000);
    header.extend([0; 10]);
    for wrong in [
        Offload { mss: 0, ..offload },
        Offload { payload_start: 53, ..offload },
        Offload { payload_start: 64, ..offload },
        Offload { payload_start: 0, ..offload },
        Offload { payload_start: 255, ..offload },
        Offload { flags: OffloadFlags::SEGMENTATION, ..offload },
        tso6(1000).1,
    ] {
        refused(&mut bench, &header, wrong);
    }
    // What is right is sent nevertheless.
    check(&bench.send_bytes(&udp, udp4(0).1)[0]).unwrap();
    check(&bench.send_bytes(&header, offload)[0]).unwrap();
    bench.finish();
}

#[test]
fn headers_up_to_the_last_offset_of_8_bits_are_accepted() {
    // IPv4 options, and a UDP header that starts at the last place that an 8-bit TUCSO can name, 239 + 16.
    let mut bench = Bench::new();
    let (mut frame, offload) = udp4(30);
    let options = 40;
    frame.splice(34..34, vec![1; options]);
    frame.extend([7; 30]);
    frame[14] = 0x4f;
    let total = frame.len() as u16 - 14;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let sent = bench.send_bytes(&frame, Offload { l4_start: 74, ..offload });
    let checked = check(&sent[0]).unwrap();
    assert_eq!(&sent[0][checked.payload], &[7; 30]);
    bench.finish();
}

#[test]
fn a_udp_checksum_that_computes_to_0_leaves_the_model_as_0() {
    // 3.5.8 makes no exception, so a driver cannot rely on 0xffff: RFC 768 takes 0 as "no checksum", which receivers of IPv4 accept.
    let mut bench = Bench::new();
    let (header, offload) = udp4(2);
    // The payload that makes the sum 0xffff.
    let mut frame = [header.as_slice(), &[0, 0]].concat();
    let rest = !sum(&frame[34..]);
    frame[42..44].copy_from_slice(&rest.to_be_bytes());
    let sent = bench.send_bytes(&frame, offload);
    assert_eq!(sent[0][40..42], [0, 0]);
    bench.finish();
}
