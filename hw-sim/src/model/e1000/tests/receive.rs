use super::*;
use crate::model::e1000::descriptor::{RxErrors, RxStatus};
use crate::model::e1000::statistics::*;

/// A frame of `len` bytes from the peer to `destination`.
fn incoming(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = frame(len);
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&PEER);
    frame
}

fn tagged(destination: [u8; 6], tci: u16) -> Vec<u8> {
    let mut frame = incoming(destination, 100);
    frame.splice(12..12, [0x81, 0x00].into_iter().chain(tci.to_be_bytes()));
    frame
}

#[test]
fn a_packet_is_stored_and_its_descriptor_written_back() {
    let bench = Bench::new();
    let packet = incoming(MAC.0, 200);
    assert_eq!(bench.model.receive(&packet), Received::Delivered);
    let descriptor = bench.received(0);
    assert_eq!(descriptor.status, (RxStatus::DD | RxStatus::EOP | RxStatus::IXSM).bits());
    assert_eq!((descriptor.errors, descriptor.length.get()), (0, 200));
    assert_eq!(bench.rx_bytes(0, 200), packet);
    assert_eq!(bench.read(RDH), 1);
    assert_ne!(bench.read(ICR) & Cause::RXT0.bits(), 0);
    bench.clean();
}

#[test]
fn without_secrc_the_length_covers_the_crc() {
    let bench = Bench::new();
    bench.write(RCTL, (Rctl::EN | Rctl::BAM).bits());
    bench.model.receive(&incoming(MAC.0, 60));
    assert_eq!(bench.received(0).length.get(), 64);
    // The residue of a frame with its check sequence (IEEE 802.3, 3.2.9).
    assert_eq!(crate::model::e1000::receive_checksum::crc32(&bench.rx_bytes(0, 64)), 0x2144_df1c);
}

#[test]
fn a_packet_may_span_several_descriptors_and_only_the_last_has_eop() {
    let bench = Bench::new();
    // 256 bytes a buffer.
    let rctl = (Rctl::BAM | Rctl::SECRC | Rctl::BSIZE).bits();
    bench.write(RCTL, rctl);
    bench.write(RCTL, rctl | Rctl::EN.bits());
    let packet = incoming(MAC.0, 600);
    assert_eq!(bench.model.receive(&packet), Received::Delivered);
    assert_eq!([0, 1, 2].map(|index| bench.received(index).length.get()), [256, 256, 88]);
    assert_eq!([0, 1, 2].map(|index| bench.received(index).status & 3), [1, 1, 3]);
    assert_eq!([bench.rx_bytes(0, 256), bench.rx_bytes(1, 256), bench.rx_bytes(2, 88)].concat(), packet);
    bench.clean();
}

#[test]
fn rdh_equal_to_rdt_means_no_descriptors() {
    let bench = Bench::new();
    for _ in 0..ENTRIES - 1 {
        assert_eq!(bench.model.receive(&incoming(MAC.0, 60)), Received::Delivered);
    }
    assert_eq!(bench.model.receive(&incoming(MAC.0, 60)), Received::Missed);
    assert_eq!((bench.read(MPC), bench.read(RNBC), bench.read(GPRC)), (1, 1, ENTRIES - 1));
    let causes = Cause::from_bits_retain(bench.read(ICR));
    assert!(causes.contains(Cause::RXO | Cause::RXDMT0));
    bench.clean();
}

#[test]
fn packets_above_1522_bytes_are_dropped_without_lpe() {
    let bench = Bench::new();
    assert_eq!(bench.model.receive(&incoming(MAC.0, 1518)), Received::Delivered);
    assert_eq!(bench.model.receive(&incoming(MAC.0, 1519)), Received::Filtered);
    assert_eq!((bench.read(ROC), bench.read(RLEC)), (1, 1));
    bench.write(RCTL, bench.read(RCTL) | Rctl::LPE.bits());
    assert_eq!(bench.model.receive(&incoming(MAC.0, 9000)), Received::Delivered);
    assert_eq!(bench.model.receive(&incoming(MAC.0, 16_381)), Received::Filtered);
    bench.clean();
}

#[test]
fn unicast_passes_by_exact_match_or_upe() {
    let bench = Bench::new();
    assert_eq!(bench.model.receive(&incoming(PEER, 60)), Received::Filtered);
    // RAL 3 and RAH 3.
    bench.write(RAL0 + 24, 2);
    bench.write(RAH0 + 24, 0x0100 | RAH_AV);
    assert_eq!(bench.model.receive(&incoming(PEER, 60)), Received::Delivered);
    bench.write(RAH0 + 24, 0x0100);
    assert_eq!(bench.model.receive(&incoming(PEER, 60)), Received::Filtered);
    bench.write(RCTL, bench.read(RCTL) | Rctl::UPE.bits());
    assert_eq!(bench.model.receive(&incoming(PEER, 60)), Received::Delivered);
    assert_ne!(bench.received(1).status & RxStatus::PIF.bits(), 0);
    bench.clean();
}

#[test]
fn broadcast_passes_with_bam() {
    let bench = Bench::new();
    assert_eq!(bench.model.receive(&incoming([0xff; 6], 60)), Received::Delivered);
    bench.write(RCTL, bench.read(RCTL) & !Rctl::BAM.bits());
    assert_eq!(bench.model.receive(&incoming([0xff; 6], 60)), Received::Filtered);
    assert_eq!((bench.read(BPRC), bench.read(TPR)), (1, 2));
}

/// The example of 13.5.1: an address that ends in 9x:BC is bit 9 of row 94.
#[test]
fn a_group_address_passes_by_its_bit_in_the_multicast_table() {
    let bench = Bench::new();
    let group = [0x01, 0x00, 0x5e, 0x00, 0x9a, 0xbc];
    assert_eq!(bench.model.receive(&incoming(group, 60)), Received::Filtered);
    bench.write(MTA + 94 * 4, 1 << 9);
    assert_eq!(bench.model.receive(&incoming(group, 60)), Received::Delivered);
    assert_ne!(bench.received(0).status & RxStatus::PIF.bits(), 0);
    // With MO of 11b the lowest twelve of the sixteen bits count: 0xc9a.
    bench.write(RCTL, bench.read(RCTL) | Rctl::MO.bits());
    assert_eq!(bench.model.receive(&incoming(group, 60)), Received::Filtered);
    bench.write(MTA + (0xc9a >> 5) * 4, 1 << (0xc9a & 0x1f));
    assert_eq!(bench.model.receive(&incoming(group, 60)), Received::Delivered);
    bench.write(RCTL, Rctl::MPE.bits() | bench.read(RCTL));
    assert_eq!(bench.model.receive(&incoming([0x33; 6], 60)), Received::Delivered);
    bench.clean();
}

#[test]
fn with_vfe_only_vlans_in_the_filter_table_pass() {
    let bench = Bench::new();
    (VFTA..=VFTA_LAST).step_by(4).for_each(|offset| bench.write(offset, 0));
    bench.write(RCTL, bench.read(RCTL) | (Rctl::VFE | Rctl::CFIEN).bits());
    assert_eq!(bench.model.receive(&incoming(MAC.0, 60)), Received::Delivered, "without a tag");
    assert_eq!(bench.model.receive(&tagged(MAC.0, 0x123)), Received::Filtered);
    bench.write(VFTA + (0x123 >> 5) * 4, 1 << (0x123 & 0x1f));
    assert_eq!(bench.model.receive(&tagged(MAC.0, 0x6123)), Received::Delivered);
    assert_eq!(bench.model.receive(&tagged(MAC.0, 0x1123)), Received::Filtered, "CFI");
    bench.clean();
}

#[test]
fn with_vme_the_tag_is_stripped_into_the_special_field() {
    let bench = Bench::new();
    let packet = tagged(MAC.0, 0x6123);
    assert_eq!(bench.model.receive(&packet), Received::Delivered);
    assert_eq!((bench.received(0).status & RxStatus::VP.bits(), bench.received(0).length.get()), (0, 104));
    bench.write(CTRL, (Ctrl::FD | Ctrl::SLU | Ctrl::VME).bits());
    assert_eq!(bench.model.receive(&packet), Received::Delivered);
    let descriptor = bench.received(1);
    assert_ne!(descriptor.status & RxStatus::VP.bits(), 0);
    assert_eq!((descriptor.special.get(), descriptor.length.get()), (0x6123, 100));
    assert_eq!(bench.rx_bytes(1, 100), incoming(MAC.0, 100));
    bench.clean();
}

#[test]
fn rxcsum_checks_ip_and_tcp_or_udp_checksums() {
    let bench = Bench::new();
    bench.write(RXCSUM, (Rxcsum::IPOFLD | Rxcsum::TUOFLD).bits());
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2(PEER, MAC.0).ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(1, 2).write(&mut packet, &[3; 99]).unwrap();
    bench.model.receive(&packet);
    packet[60] ^= 1;
    bench.model.receive(&packet);
    packet[24] ^= 1;
    bench.model.receive(&packet);
    bench.model.receive(&incoming(MAC.0, 60));
    let both = RxStatus::DD | RxStatus::EOP | RxStatus::IPCS | RxStatus::TCPCS;
    let descriptors = [0, 1, 2].map(|index| bench.received(index));
    assert_eq!(descriptors.map(|descriptor| descriptor.status), [both.bits(); 3]);
    let expected = [RxErrors::empty(), RxErrors::TCPE, RxErrors::TCPE | RxErrors::IPE];
    assert_eq!(descriptors.map(|descriptor| descriptor.errors), expected.map(|errors| errors.bits()));
    assert_ne!(bench.received(3).status & RxStatus::IXSM.bits(), 0, "neither IPv4 nor IPv6");
    bench.clean();
}

#[test]
fn the_packet_checksum_is_the_sum_from_pcss_on() {
    let bench = Bench::new();
    bench.write(RCTL, (Rctl::EN | Rctl::BAM).bits());
    bench.write(RXCSUM, 14);
    bench.model.receive(&incoming(MAC.0, 100));
    assert_eq!(bench.received(0).checksum.get(), ones_sum(&bench.rx_bytes(0, 104)[14..]));
}

#[test]
fn the_receiver_is_off_without_en_or_link() {
    let bench = Bench::new();
    bench.model.set_link(false);
    assert_eq!(bench.model.receive(&incoming(MAC.0, 60)), Received::Off);
    bench.model.set_link(true);
    bench.write(RCTL, 0);
    assert_eq!(bench.model.receive(&incoming(MAC.0, 60)), Received::Off);
}

#[test]
fn rdtr_delays_the_interrupt() {
    let bench = Bench::new();
    bench.write(RDTR, 10);
    bench.read(ICR);
    bench.model.receive(&incoming(MAC.0, 60));
    assert_eq!(bench.read(ICR) & Cause::RXT0.bits(), 0);
    bench.model.step();
    assert_ne!(bench.read(ICR) & Cause::RXT0.bits(), 0);
}
