use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use super::*;
use crate::model::e1000::descriptor::ContextCommand;
use crate::model::e1000::statistics::{TSCTC, TSCTFC};

const TCP_SEGMENTATION: u8 = ContextCommand::TCP.bits() | ContextCommand::IP.bits() | ContextCommand::TSE.bits();
const UDP_SEGMENTATION: u8 = ContextCommand::IP.bits() | ContextCommand::TSE.bits();
const HEADERS: usize = 54;

fn udp(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64).udp(7, 9);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// A UDP packet as a driver posts it: IPv4 checksum 0, UDP checksum the pseudo-header's sum with the length.
fn udp_to_offload(payload: &[u8]) -> Vec<u8> {
    let mut packet = udp(payload);
    packet[24..26].fill(0);
    let length = (payload.len() + 8) as u16;
    let seed = ones_sum(&[&packet[26..34], &[0, 17], &length.to_be_bytes()].concat());
    packet[40..42].copy_from_slice(&seed.to_be_bytes());
    packet
}

/// A TCP packet as a driver posts it for segmentation, with PSH and FIN.
fn tcp_to_segment(payload: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(MAC.0, PEER).ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64).tcp(7, 9, u32::MAX - 1999, 4000).ack(77).psh().fin();
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet[16..18].fill(0);
    packet[18..20].copy_from_slice(&0xffff_u16.to_be_bytes());
    packet[24..26].fill(0);
    let seed = ones_sum(&[&packet[26..34], &[0, 6]].concat());
    packet[50..52].copy_from_slice(&seed.to_be_bytes());
    packet
}

/// Parses a frame and checks every checksum and length in it.
fn check(frame: &[u8]) -> SlicedPacket<'_> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    match &packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let length = u16::from_be_bytes([ip.header().slice()[2], ip.header().slice()[3]]);
            let payload = ip.payload().payload;
            assert_eq!(usize::from(length), 20 + payload.len());
            match packet.transport.as_ref().unwrap() {
                TransportSlice::Tcp(tcp) => assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()),
                TransportSlice::Udp(udp) => {
                    assert_eq!(usize::from(udp.length()), payload.len());
                    let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), expected);
                }
                other => panic!("{other:?}"),
            }
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            let Some(TransportSlice::Tcp(tcp)) = packet.transport.as_ref() else { panic!("no TCP") };
            let header = ip.header().to_header();
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(header.source, header.destination).unwrap());
        }
        other => panic!("{other:?}"),
    }
    packet
}

#[test]
fn checksums_are_inserted_where_the_context_says() {
    let mut bench = Bench::new();
    bench.put(context(6, 0, 0, 0, 0));
    let payload: Vec<u8> = (0..101).collect();
    let posted = udp_to_offload(&payload);
    bench.put_data(&posted[..42], IFCS, IXSM | TXSM);
    bench.put_data(&posted[42..], IFCS | EOP | RS, 0);
    let sent = bench.go();
    assert_eq!(sent, [udp(&payload)]);
    check(&sent[0]);
    assert_eq!(bench.model.context_descriptors(), 1);
    bench.clean();
}

#[test]
fn popts_is_ignored_except_in_the_first_data_descriptor() {
    let mut bench = Bench::new();
    bench.put(context(6, 0, 0, 0, 0));
    let posted = udp_to_offload(&[1; 50]);
    bench.put_data(&posted[..42], IFCS, 0);
    bench.put_data(&posted[42..], IFCS | EOP, IXSM | TXSM);
    assert_eq!(bench.go(), [posted]);
    bench.clean();
}

#[test]
fn a_context_serves_many_packets_until_the_next_one() {
    let mut bench = Bench::new();
    bench.put(context(6, 0, 0, 0, 0));
    for fill in 0..4 {
        bench.put_data(&udp_to_offload(&[fill; 50]), IFCS | EOP, IXSM | TXSM);
    }
    assert_eq!(bench.go(), [0, 1, 2, 3].map(|fill| udp(&[fill; 50])));
    assert_eq!(bench.model.context_descriptors(), 1);
    bench.clean();
}

#[test]
fn a_computed_checksum_of_zero_goes_out_as_zero() {
    let mut bench = Bench::new();
    bench.put(context(6, 0, 0, 0, 0));
    let mut payload = vec![0; 40];
    let before = udp_to_offload(&payload);
    // Makes the sum, seed included, all ones, whose complement is 0.
    payload[..2].copy_from_slice(&(!ones_sum(&before[34..])).to_be_bytes());
    bench.put_data(&udp_to_offload(&payload), IFCS | EOP, IXSM | TXSM);
    assert_eq!(bench.go()[0][40..42], [0, 0]);
    bench.clean();
}

#[test]
fn a_legacy_descriptor_inserts_one_checksum_from_css_at_cso() {
    let mut bench = Bench::new();
    let mut posted = udp_to_offload(&[9; 60]);
    posted[24..26].copy_from_slice(&udp(&[9; 60])[24..26]);
    let address = bench.place(&posted);
    bench.put(LegacyDescriptor { css: 34, cso: 40, ..legacy(address, posted.len(), EOP | IFCS | IC) });
    assert_eq!(bench.go(), [udp(&[9; 60])]);
    bench.clean();
}

#[test]
fn a_segmentation_brings_the_header_of_every_frame_up_to_date() {
    let mut bench = Bench::new();
    let payload: Vec<u8> = (0..5000_u32).map(|byte| (byte * 7) as u8).collect();
    let posted = tcp_to_segment(&payload);
    bench.put(context(16, TCP_SEGMENTATION, payload.len(), HEADERS as u8, 1448));
    let dcmd = IFCS | TSE;
    bench.put_data(&posted[..HEADERS], dcmd, IXSM | TXSM);
    bench.put_data(&posted[HEADERS..2001], dcmd, IXSM | TXSM);
    bench.put_data(&posted[2001..], dcmd | EOP | RS, IXSM | TXSM);
    let sent = bench.go();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1502, 1502, 1502, 710]);
    let mut received: Vec<u8> = Vec::new();
    for (number, frame) in sent.iter().enumerate() {
        let Some(TransportSlice::Tcp(tcp)) = check(frame).transport else { panic!("no TCP") };
        let last = number == 3;
        assert_eq!((tcp.psh(), tcp.fin(), tcp.ack()), (last, last, true));
        assert_eq!(tcp.sequence_number(), (u32::MAX - 1999).wrapping_add(number as u32 * 1448));
        assert_eq!(u16::from_be_bytes([frame[18], frame[19]]), 0xffff_u16.wrapping_add(number as u16));
        received.extend(tcp.payload());
    }
    assert_eq!(received, payload);
    assert_eq!((bench.read(TSCTC), bench.read(TSCTFC)), (1, 0));
    assert!(bench.done(3));
    bench.clean();
}

#[test]
fn a_segmentation_of_one_segment_keeps_psh_and_fin() {
    let mut bench = Bench::new();
    let posted = tcp_to_segment(&[5; 1000]);
    bench.put(context(16, TCP_SEGMENTATION, 1000, HEADERS as u8, 1000));
    bench.put_data(&posted, IFCS | TSE | EOP, IXSM | TXSM);
    let sent = bench.go();
    let Some(TransportSlice::Tcp(tcp)) = check(&sent[0]).transport else { panic!("no TCP") };
    assert!(sent.len() == 1 && tcp.psh() && tcp.fin());
    bench.clean();
}

#[test]
fn segmentation_and_normal_contexts_are_kept_apart() {
    let mut bench = Bench::new();
    bench.put(context(6, 0, 0, 0, 0));
    bench.put(context(16, TCP_SEGMENTATION, 3000, HEADERS as u8, 1500));
    bench.put_data(&tcp_to_segment(&[1; 3000]), IFCS | TSE | EOP, IXSM | TXSM);
    bench.put_data(&udp_to_offload(&[2; 50]), IFCS | EOP, IXSM | TXSM);
    bench.put_data(&tcp_to_segment(&[3; 3000]), IFCS | TSE | EOP, IXSM | TXSM);
    let sent = bench.go();
    assert_eq!(sent.len(), 5);
    sent.iter().for_each(|frame| drop(check(frame)));
    assert_eq!(sent[2], udp(&[2; 50]));
    bench.clean();
}

#[test]
fn a_udp_segmentation_updates_the_udp_length() {
    let mut bench = Bench::new();
    let mut posted = udp_to_offload(&[6; 2500]);
    posted[16..18].fill(0);
    let seed = ones_sum(&[&posted[26..34], &[0, 17]].concat());
    posted[40..42].copy_from_slice(&seed.to_be_bytes());
    bench.put(context(6, UDP_SEGMENTATION, 2500, 42, 1000));
    bench.put_data(&posted, IFCS | TSE | EOP, IXSM | TXSM);
    let sent = bench.go();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1042, 1042, 542]);
    sent.iter().for_each(|frame| drop(check(frame)));
    bench.clean();
}

fn tcp6_to_segment(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(MAC.0, PEER).ipv6([0xfd; 16], [0xfe; 16], 64).tcp(7, 9, 5, 4000).ack(77);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet[18..20].fill(0);
    let seed = ones_sum(&[&packet[22..54], &[0, 6]].concat());
    packet[70..72].copy_from_slice(&seed.to_be_bytes());
    packet
}

fn context6(paylen: usize, mss: u16) -> ContextDescriptor {
    let tucmd = ContextCommand::TCP.bits() | ContextCommand::TSE.bits();
    ContextDescriptor { ipcso: 0, ipcse: 0.into(), tucss: 54, tucso: 70, ..context(0, tucmd, paylen, 74, mss) }
}

#[test]
fn the_ipv6_payload_length_of_a_segment_is_mss_plus_hdrlen_less_ipcss() {
    let mut bench = Bench::new();
    bench.put(context6(2000, 1400));
    bench.put_data(&tcp6_to_segment(&[4; 2000]), IFCS | TSE | EOP, TXSM);
    let sent = bench.go();
    assert_eq!(u16::from_be_bytes([sent[0][18], sent[0][19]]), 1400 + 74 - 14);
    bench.clean();
}

#[test]
fn later_parts_leave_the_ipv6_header_out_of_the_payload_length() {
    let mut bench = Bench::new();
    bench.model.set_ipv6_payload_length_right(true);
    bench.put(context6(2000, 1400));
    bench.put_data(&tcp6_to_segment(&[4; 2000]), IFCS | TSE | EOP, TXSM);
    let sent = bench.go();
    assert_eq!(u16::from_be_bytes([sent[0][18], sent[0][19]]), 1400 + 20);
    sent.iter().for_each(|frame| drop(check(frame)));
    bench.clean();
}

#[test]
fn the_tag_of_a_segmentation_is_taken_from_its_first_descriptor_and_is_in_every_segment() {
    let mut bench = Bench::new();
    bench.write(CTRL, (Ctrl::FD | Ctrl::SLU | Ctrl::VME).bits());
    let posted = tcp_to_segment(&[8; 2000]);
    bench.put(context(16, TCP_SEGMENTATION, 2000, HEADERS as u8, 1000));
    for (bytes, more) in [(&posted[..HEADERS], 0), (&posted[HEADERS..], EOP)] {
        let address = bench.place(bytes);
        bench.put(DataDescriptor { special: 0x0007.into(), ..data(address, bytes.len(), IFCS | TSE | VLE | more, IXSM | TXSM) });
    }
    let sent = bench.go();
    assert_eq!(sent.len(), 2);
    for frame in &sent {
        assert_eq!(frame[12..16], [0x81, 0x00, 0x00, 0x07]);
        check(frame);
    }
    bench.clean();
}

#[test]
fn a_segmentation_that_does_not_hold_paylen_bytes_is_counted_as_failed() {
    let mut bench = Bench::new();
    bench.put(context(16, TCP_SEGMENTATION, 3000, HEADERS as u8, 1000));
    bench.put_data(&tcp_to_segment(&[1; 2000]), IFCS | TSE | EOP, IXSM | TXSM);
    assert_eq!(bench.go().len(), 2);
    assert_eq!((bench.read(TSCTC), bench.read(TSCTFC)), (0, 1));
    bench.violates("hold 2000 bytes of payload, PAYLEN says 3000");
}
