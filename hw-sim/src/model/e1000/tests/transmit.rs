use super::*;
use crate::model::e1000::statistics::*;

#[test]
fn a_legacy_descriptor_sends_its_buffer_and_is_written_back_when_rs_is_set() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(100), EOP | IFCS | RS);
    bench.put_legacy(&frame(200), EOP | IFCS);
    bench.ring();
    assert!(!bench.done(0), "nothing happens before time passes");
    assert_eq!(bench.model.step(), [frame(100), frame(200)]);
    assert!(bench.done(0) && !bench.done(1));
    assert_eq!(bench.read(TDH), 2);
    assert_eq!(bench.read(ICR), (Cause::TXDW | Cause::TXQE | Cause::LSC).bits());
    bench.clean();
}

#[test]
fn one_or_many_descriptors_form_a_packet() {
    let mut bench = Bench::new();
    let whole = frame(300);
    bench.put_legacy(&whole[..14], IFCS);
    bench.put_legacy(&whole[14..15], IFCS);
    bench.put_legacy(&whole[15..], EOP | IFCS | RS);
    assert_eq!(bench.go(), [whole]);
    assert!(!bench.done(0) && !bench.done(1) && bench.done(2));
    bench.clean();
}

#[test]
fn the_ring_wraps() {
    let mut bench = Bench::new();
    for number in 0..40 {
        bench.put_legacy(&frame(60 + number), EOP | IFCS | RS);
        assert_eq!(bench.go(), [frame(60 + number)]);
        // As a driver does when it uses the descriptor again.
        bench.memory.memory().write(number % 16 * 16 + 12, 0_u8);
    }
    assert_eq!(bench.model.doorbells(), 41, "one of them in the initialization");
    bench.clean();
}

#[test]
fn with_psp_short_packets_are_padded_to_64_bytes_with_the_check_sequence() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(50), EOP | IFCS);
    let sent = bench.go().remove(0);
    assert_eq!(sent.len(), 60);
    assert_eq!(sent[..50], frame(50));
    bench.clean();
}

#[test]
fn synchronous_transmits_inside_the_doorbell() {
    let mut bench = Bench::new();
    bench.model.set_synchronous(true);
    bench.put_legacy(&frame(100), EOP | IFCS | RS);
    bench.ring();
    assert!(bench.done(0));
    assert_eq!(bench.model.step(), [frame(100)]);
}

#[test]
fn nothing_is_sent_without_tctl_en_or_without_a_link() {
    let mut bench = Bench::new();
    bench.model.set_link(false);
    bench.put_legacy(&frame(100), EOP | IFCS | RS);
    assert!(bench.go().is_empty());
    bench.model.set_link(true);
    let tctl = bench.read(TCTL);
    bench.write(TCTL, tctl & !Tctl::EN.bits());
    assert!(bench.model.step().is_empty());
    bench.write(TCTL, tctl);
    assert_eq!(bench.model.step(), [frame(100)]);
    bench.clean();
}

#[test]
fn the_vlan_tag_comes_from_vet_and_the_special_field_of_the_last_descriptor() {
    let mut bench = Bench::new();
    bench.write(CTRL, (Ctrl::FD | Ctrl::SLU | Ctrl::VME).bits());
    let whole = frame(100);
    bench.put_legacy(&whole[..40], IFCS);
    let address = bench.place(&whole[40..]);
    bench.put(LegacyDescriptor { special: 0x6123.into(), ..legacy(address, 60, EOP | IFCS | VLE | RS) });
    let sent = bench.go().remove(0);
    assert_eq!(sent[12..16], [0x81, 0x00, 0x61, 0x23]);
    assert_eq!([&sent[..12], &sent[16..]].concat(), whole);
    bench.clean();
}

#[test]
fn without_vme_no_tag_is_inserted() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(100), EOP | IFCS | VLE);
    assert_eq!(bench.go(), [frame(100)]);
    bench.violates("without CTRL.VME");
}

#[test]
fn write_backs_are_collected_up_to_wthresh() {
    let mut bench = Bench::new();
    bench.write(TXDCTL, 2 << 16 | 1 << 24);
    bench.write(TIDV, 8);
    for _ in 0..3 {
        bench.put_legacy(&frame(100), EOP | IFCS | RS | IDE);
    }
    bench.go();
    assert!(bench.done(0) && bench.done(1) && !bench.done(2));
    assert_eq!(bench.read(ICR) & Cause::TXDW.bits(), 0, "the interrupt is delayed");
    bench.model.step();
    assert!(bench.done(2), "the timer forces the write-back");
    assert_ne!(bench.read(ICR) & Cause::TXDW.bits(), 0);
    bench.clean();
}

#[test]
fn with_gran_clear_wthresh_counts_cache_lines() {
    let mut bench = Bench::new();
    bench.write(TXDCTL, 1 << 16);
    bench.put_legacy(&frame(100), EOP | IFCS | RS);
    bench.go();
    assert!(!bench.done(0), "a line of 32 bytes holds two descriptors");
    bench.put_legacy(&frame(100), EOP | IFCS | RS);
    bench.go();
    assert!(bench.done(0) && bench.done(1));
}

#[test]
fn statistics_count_packets_and_octets_with_the_check_sequence() {
    let mut bench = Bench::new();
    let mut broadcast = frame(60);
    broadcast[..6].fill(0xff);
    let mut group = frame(1514);
    group[0] = 0x01;
    for packet in [&frame(100), &broadcast, &group] {
        bench.put_legacy(packet, EOP | IFCS);
    }
    bench.go();
    let octets = 100 + 60 + 1514 + 3 * 4;
    assert_eq!([GPTC, TPT, MPTC, BPTC].map(|counter| bench.read(counter)), [3, 3, 1, 1]);
    assert_eq!([GPTC, TPT, MPTC, BPTC].map(|counter| bench.read(counter)), [0; 4], "cleared by the read");
    assert_eq!((bench.read(PTC64), bench.read(PTC64 + 4), bench.read(PTC64 + 20)), (1, 1, 1));
    assert_eq!((bench.read(GOTCL), bench.read(GOTCL)), (octets, octets), "the lower half stays until the upper one is read");
    assert_eq!((bench.read(GOTCL + 4), bench.read(GOTCL)), (0, 0));
    assert_eq!(bench.read(TOTL), octets);
    bench.clean();
}

#[test]
fn payload_can_come_from_a_file() {
    let mut bench = Bench::new();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &frame(5000)).unwrap();
    let space = bench.device.dma();
    let mapping = space.map_file(file.as_fd(), 0..5000).unwrap();
    bench.put_legacy(&frame(60)[..14], IFCS);
    bench.put(legacy(mapping.iova() + 4001, 999, EOP | IFCS | RS));
    let sent = bench.go().remove(0);
    assert_eq!(sent[14..], frame(5000)[4001..]);
    space.unmap(mapping).unwrap();
    bench.clean();
}
