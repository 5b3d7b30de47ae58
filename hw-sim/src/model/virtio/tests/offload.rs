use super::packets::*;
use super::*;
use crate::wire::check;

/// A packet whose checksum is asked for, with this `gso_type`, `hdr_len` and `gso_size`.
fn asked(packet: &[u8], gso_type: u8, hdr_len: u16, gso_size: u16) -> Vec<u8> {
    let (start, offset) = places(packet);
    header(1, gso_type, [hdr_len, gso_size, start as u16, offset as u16, 0])
}

#[test]
fn checksums_are_filled() {
    for mut bench in [Bench::new(), Bench::packed()] {
        let packets = [tcp4(100), tcp4(101), tcp6(33), udp4(1), udp6(0), udp6(1000)];
        for packet in &packets {
            bench.send_with(&asked(packet, 0, 0, 0), &partial(packet.clone()));
        }
        assert_eq!(bench.go(), packets);
        bench.clean();
    }
}

#[test]
fn a_checksum_of_0_goes_out_as_0xffff() {
    let mut bench = Bench::new();
    let mut packet = udp4(2);
    // With 0 as payload the sum is that of all the rest; its complement as payload makes the whole 0xffff, whose complement is 0.
    packet[42..44].copy_from_slice(&[0, 0]);
    bench.send_with(&asked(&packet, 0, 0, 0), &partial(packet.clone()));
    let sent = bench.go().remove(0);
    packet[42..44].copy_from_slice(&sent[40..42]);
    bench.send_with(&asked(&packet, 0, 0, 0), &partial(packet.clone()));
    let sent = bench.go().remove(0);
    assert_eq!(sent[40..42], [0xff, 0xff]);
    assert!(check(&sent).is_ok());
    bench.clean();
}

#[test]
fn segmentations_become_frames_that_a_receiver_takes() {
    for (packet, gso_type) in [(tcp4(5000), 1), (tcp6(5000), 4), (udp4(5000), 5), (udp6(5000), 5), (tcp4(1000), 1)] {
        let (start, offset) = places(&packet);
        let payload = start + if offset == 16 { 20 } else { 8 };
        let mut bench = Bench::new();
        bench.send_with(&asked(&packet, gso_type, payload as u16, 1000), &partial(packet.clone()));
        let sent = bench.go();
        assert_eq!(sent.len(), (packet.len() - payload) / 1000);
        let mut joined: Vec<u8> = Vec::new();
        for (number, frame) in sent.iter().enumerate() {
            let checked = check(frame).unwrap();
            joined.extend(&frame[checked.payload.clone()]);
            let last = number + 1 == sent.len();
            if let Some(tcp) = checked.tcp {
                let first = u32::from_be_bytes(packet[start + 4..start + 8].try_into().unwrap());
                assert_eq!(tcp.sequence, first.wrapping_add(number as u32 * 1000));
                assert_eq!(tcp.psh, last);
            }
            if start == 34 {
                assert_eq!(u16::from_be_bytes([frame[18], frame[19]]), number as u16, "identification");
            }
        }
        assert_eq!(joined, packet[payload..]);
        bench.clean();
    }
}

#[test]
fn ecn_is_marked_and_stays_in_the_first_segment() {
    let mut packet = tcp4(2500);
    packet[47] |= 0x80;
    let packet = partial(packet);
    let mut bench = Bench::new();
    bench.send_with(&asked(&packet, 0x81, 54, 1000), &packet);
    let sent = bench.go();
    assert_eq!(sent.iter().map(|frame| frame[47] & 0x80).collect::<Vec<_>>(), [0x80, 0, 0]);
    assert!(sent.iter().all(|frame| check(frame).is_ok()));
    bench.clean();
    bench.send_with(&asked(&packet, 1, 54, 1000), &packet);
    bench.go();
    bench.violates("a segmentation of a packet with ECN without GSO_ECN");
    let mut bench = Bench::with(Features::USUAL - Features::HOST_ECN);
    bench.send_with(&asked(&packet, 1, 54, 1000), &packet);
    bench.go();
    bench.violates("a segmentation with ECN without VIRTIO_NET_F_HOST_ECN");
}

/// What a header with this packet violates, with these features missing.
#[track_caller]
fn wrong(without: Features, header: &[u8], packet: &[u8], text: &str) {
    let mut bench = Bench::with(Features::USUAL - without);
    bench.send_with(header, packet);
    bench.go();
    bench.violates(text);
}

#[test]
fn headers_ask_for_what_was_negotiated() {
    let none = Features::empty();
    let tcp = partial(tcp4(3000));
    let udp = partial(udp4(100));
    wrong(none, &header(0, 0, [0, 0, 0, 0, 1]), &udp, "num_buffers of a transmitted packet is not 0");
    wrong(none, &header(2, 0, [0; 5]), &udp, "DATA_VALID or RSC_INFO was set in a transmitted packet");
    wrong(none, &header(8, 0, [0; 5]), &udp, "undefined flags were set");
    let no_offloads = Features::CSUM | Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO | Features::HOST_ECN;
    wrong(no_offloads, &asked(&udp, 0, 0, 0), &udp, "flags were set without VIRTIO_NET_F_CSUM");
    let tso4 = Features::HOST_TSO4;
    wrong(tso4, &asked(&tcp, 1, 54, 1000), &tcp, "gso_type asks for a segmentation that was not negotiated");
    wrong(none, &asked(&tcp, 3, 54, 1000), &tcp, "gso_type is one that the device does not offer");
    wrong(none, &header(0, 1, [54, 1000, 34, 16, 0]), &tcp, "a segmentation was asked for without NEEDS_CSUM");
    wrong(none, &asked(&tcp, 1, 54, 0), &tcp, "a segmentation was asked for with a gso_size of 0");
    wrong(none, &asked(&tcp, 4, 54, 1000), &tcp, "gso_type does not fit the headers");
    wrong(none, &asked(&udp, 1, 54, 1000), &udp, "gso_type does not fit the headers");
    wrong(none, &asked(&tcp, 1, 53, 1000), &tcp, "hdr_len is not the length of the headers, with VIRTIO_NET_F_GUEST_HDRLEN");
    wrong(Features::GUEST_HDRLEN, &asked(&tcp, 1, 53, 1000), &tcp, "hdr_len is less than the length of the headers");
    wrong(none, &asked(&udp, 0x80, 0, 0), &udp, "GSO_ECN was set without a segmentation");
    let mut short = tcp.clone();
    short[16..18].copy_from_slice(&100_u16.to_be_bytes());
    wrong(none, &asked(&short, 1, 54, 1000), &short, "the IP length of a packet to be segmented is not that of the packet");
}

#[test]
fn checksums_are_asked_for_where_they_are() {
    let none = Features::empty();
    let udp = partial(udp4(100));
    wrong(none, &header(1, 0, [0, 0, 142, 6, 0]), &udp, "csum_start or csum_offset is beyond the packet");
    wrong(none, &header(1, 0, [0, 0, 34, 107, 0]), &udp, "csum_start or csum_offset is beyond the packet");
    wrong(none, &header(1, 0, [0, 0, 33, 6, 0]), &udp, "csum_start and csum_offset are not those");
    wrong(none, &header(1, 0, [0, 0, 34, 16, 0]), &udp, "csum_start and csum_offset are not those");
    wrong(none, &asked(&udp, 0, 0, 0), &udp4(100), "the checksum field does not hold the sum of the pseudo-header");
}

#[test]
fn packets_have_a_length_that_fits() {
    let none = Features::empty();
    wrong(none, &[0; 11], &[], "a transmitted buffer of 11 bytes has no room for the header of 12");
    wrong(none, &[0; 12], &[1; 13], "a packet of 13 bytes was transmitted");
    wrong(none, &[0; 12], &frame(1515), "a packet of 1515 bytes is longer than the MTU");
    let mut bench = Bench::with(Features::USUAL - Features::MTU);
    bench.send(&frame(1600));
    assert_eq!(bench.go(), [frame(1600)]);
    bench.clean();
}

#[test]
fn with_hash_reports_the_header_has_20_bytes() {
    let mut bench = Bench::with(Features::USUAL | Features::HASH_REPORT);
    bench.send_with(&[0; 20], &frame(60));
    assert_eq!(bench.go(), [frame(60)]);
    bench.clean();
    bench.send_with(&[[0; 12], [1; 12]].concat()[..20], &frame(60));
    bench.go();
    bench.violates("a hash was reported for a transmitted packet");
}
