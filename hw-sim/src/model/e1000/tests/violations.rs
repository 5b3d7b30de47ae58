use super::*;
use crate::model::e1000::descriptor::ContextCommand;

#[test]
fn rings_are_aligned_and_a_multiple_of_128_bytes_long() {
    let bench = Bench::cold();
    bench.write(TDBAL, 0x1000_0008);
    bench.write(RDLEN, 160);
    bench.violates("TDBAL was set to 0x10000008, which is not a multiple of 16");
    bench.violates("RDLEN was set to 160, which is not a multiple of 128");
    assert_eq!((bench.read(TDBAL), bench.read(RDLEN)), (0x1000_0000, 128));
}

#[test]
fn rings_are_not_changed_while_their_unit_is_enabled() {
    let bench = Bench::new();
    bench.write(TDH, 0);
    bench.write(RDBAL, 0x1000);
    bench.violates("TDH was written while its unit was enabled");
    bench.violates("RDBAL was written while its unit was enabled");
}

#[test]
fn units_are_enabled_with_a_complete_ring() {
    let bench = Bench::cold();
    bench.write(TCTL, Tctl::EN.bits());
    bench.violates("TCTL.EN was set without a descriptor ring");
    bench.violates("before TIPG");
    bench.violates("collision distance");
    bench.write(RDBAL, 0x5000_0000);
    bench.write(RDLEN, 128);
    bench.write(RCTL, Rctl::EN.bits());
    bench.violates("RCTL.EN was set with a ring that is not in mapped memory");
}

#[test]
fn the_tail_stays_inside_the_ring_and_behind_the_head() {
    let mut bench = Bench::new();
    bench.write(TDT, ENTRIES);
    bench.violates("TDT was set to 16, beyond the ring of 16");
    assert!(bench.model.step().is_empty());
    bench.write(TDT, 0);
    for _ in 0..ENTRIES {
        bench.put_legacy(&frame(60), EOP | IFCS);
        bench.ring();
    }
    bench.violates("TDT was moved from 15 to 0 past TDH");
    bench.write(RDT, 3);
    bench.violates("RDT was moved from 15 to 3 past RDH");
}

#[test]
fn bus_mastering_is_on() {
    let mut bench = Bench::new();
    bench.device.set_bus_master(false).unwrap();
    bench.put_legacy(&frame(60), EOP | IFCS);
    assert!(bench.go().is_empty());
    bench.violates("bus mastering is off");
    assert!(bench.model.faulted_accesses().is_empty());
}

#[test]
fn registers_are_accessed_as_they_may_be() {
    let bench = Bench::new();
    bench.read(0x0500);
    bench.write(0x1_0000, 1);
    bench.read(IMC);
    bench.write(STATUS, 0);
    bench.write(0x4074, 0);
    bench.write(RCTL, 1);
    bench.registers.write::<u16>(TDT, 0).unwrap();
    let _ = bench.registers.read::<u64>(RAL0).unwrap();
    for text in [
        "0x00500 was read",
        "0x10000 was written",
        "IMC was read",
        "STATUS was written",
        "GPRC was written",
        "RCTL was written with reserved bits 0x1",
        "written 2 bytes wide",
        "read 8 bytes wide",
    ] {
        bench.violates(text);
    }
}

#[test]
fn descriptors_have_a_length_and_no_reserved_bits() {
    let mut bench = Bench::new();
    let address = bench.place(&frame(60));
    bench.put(legacy(address, 0, IFCS));
    bench.put(LegacyDescriptor { sta: 0xf1, ..legacy(address, 60, EOP | IFCS | RS | 1 << 4 | IDE) });
    bench.put(data(address, 60, EOP | IFCS, 0xfc));
    bench.put(legacy(address, 0xffff, EOP | IFCS));
    bench.ring();
    for text in [
        "descriptor 0: without an address or a length",
        "descriptor 1: DD is set already",
        "descriptor 1: bit 4 of the command",
        "descriptor 1: reserved bits beside STA",
        "TIDV of 0",
        "descriptor 2: reserved bits of POPTS",
        "descriptor 3: a buffer of more than 16288",
    ] {
        bench.violates(text);
    }
}

#[test]
fn tdt_is_set_at_a_packet_boundary() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(100)[..50], IFCS);
    assert!(bench.go().is_empty());
    bench.violates("TDT was set behind descriptor 0, which does not end a packet");
    bench.put_legacy(&frame(100)[50..], IFCS | EOP);
    assert_eq!(bench.go(), [frame(100)], "this part waits for the rest");
}

#[test]
fn the_hardware_owns_descriptors_between_head_and_tail() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(100), IFCS | EOP);
    bench.ring();
    bench.memory.memory().write(8, 99_u16);
    bench.model.step();
    bench.violates("transmit descriptor 0 was changed while the hardware owned it");
}

#[test]
fn a_checksum_needs_a_context_and_offsets_inside_the_packet() {
    let mut bench = Bench::new();
    bench.put_data(&frame(60), EOP | IFCS, TXSM);
    bench.put_data(&frame(60), EOP | IFCS | TSE, TXSM);
    bench.put(ContextDescriptor { tucss: 70, ipcso: 200, ..context(6, 0, 0, 0, 0) });
    bench.put_data(&frame(60), EOP | IFCS, IXSM | TXSM);
    bench.put(ContextDescriptor { tucso: 20, ipcse: 34.into(), ..context(6, 0, 0, 0, 0) });
    bench.put_data(&frame(60), EOP | IFCS, IXSM | TXSM);
    assert_eq!(bench.go().len(), 3);
    for text in [
        "POPTS asks for a checksum without a context",
        "TSE without a segmentation context",
        "TUCSS, TUCSO, TUCSE: the checksum starts beyond the packet",
        "IPCSS, IPCSO, IPCSE: the checksum would be put beyond the packet",
        "TUCSS, TUCSO, TUCSE: the checksum is put outside of what it covers",
        "IPCSS to IPCSE is not an IPv4 header",
    ] {
        bench.violates(text);
    }
}

#[test]
fn a_segmentation_has_a_sound_context_and_prototype_header() {
    let mut bench = Bench::new();
    let tucmd = (ContextCommand::TCP | ContextCommand::IP | ContextCommand::TSE).bits();
    let sound = context(16, tucmd, 3000, 54, 1448);
    bench.put(ContextDescriptor { hdrlen: 250, mss: 0.into(), tucss: 30, tucso: 30, ipcso: 30, tucse: 1.into(), ..sound });
    bench.put(context(16, tucmd, 100, 50, 16_300));
    bench.put(sound);
    bench.put_data(&frame(20), IFCS | TSE, TXSM);
    bench.put_data(&frame(3034), IFCS | EOP | TSE | VLE, TXSM);
    bench.go();
    for text in [
        "HDRLEN, MSS or PAYLEN of 0",
        "HDRLEN is above 240",
        "TUCSS does not leave room",
        "TUCSO is not where",
        "IPCSO is not where",
        "IPCSE is not the last byte",
        "TUCSE of a segmentation is not 0",
        "HDRLEN does not leave room",
        "not 80 bytes less than the transmit FIFO",
        "ends at byte 20, inside a header",
        "no IPv4 header from IPCSS up to TUCSS",
        "IPv4 length or checksum in the header of a segmentation is not 0",
        "VLE, IFCS or special differ",
    ] {
        bench.violates(text);
    }
}

#[test]
fn packets_are_of_one_kind_and_have_48_bytes_to_fit_the_fifo() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(40), EOP | IFCS);
    bench.put_legacy(&frame(60), EOP);
    bench.put_legacy(&frame(60), IFCS);
    bench.put_data(&frame(60), IFCS | TSE, 0);
    bench.put_data(&frame(60), EOP | IFCS, 0);
    bench.put_legacy(&frame(16_000), IFCS);
    bench.put_legacy(&frame(400), IFCS | EOP);
    assert_eq!(bench.go().len(), 3);
    for text in ["40 bytes was posted", "without IFCS", "legacy and data descriptors were mixed", "more than 16288 bytes"] {
        bench.violates(text);
    }
}

#[test]
fn memory_stays_mapped_while_the_hardware_refers_to_it() {
    let mut bench = Bench::new();
    let space = bench.device.dma();
    let other = DmaMemory::new(&space, "other", 4096).unwrap();
    bench.put(legacy(other.iova() + 100, 100, EOP | IFCS));
    bench.ring();
    drop(other);
    bench.violates("memory was unmapped while transmit descriptor 0 referred to it");
    let Bench { model, memory, device: _device, .. } = bench;
    drop(memory);
    assert!(
        model
            .violations()
            .iter()
            .any(|text| text.contains("the receive ring was unmapped while it was enabled")
                || text.contains("the transmit ring was unmapped"))
    );
}

#[test]
fn receive_descriptors_have_a_buffer_and_no_status() {
    let bench = Bench::cold();
    bench.write(RDBAL, bench.memory.iova() as u32);
    bench.write(RDBAH, 0);
    bench.write(RDLEN, 128);
    bench.memory.memory().write(12, 1_u8);
    bench.write(RDT, 1);
    bench.violates("receive descriptor 0 has no buffer");
    bench.violates("receive descriptor 0 has a status already");
}

/// Whatever a driver writes, the model neither panics nor runs for ever.
#[test]
fn a_wild_driver_does_no_harm() {
    let mut generator = fastrand::Rng::with_seed(1);
    let mut random = || generator.u32(..);
    let offsets = [
        CTRL, EECD, EERD, MDIC, VET, RCTL, TCTL, PBA, RDBAL, RDBAH, RDLEN, RDH, RDT, TDBAL, TDBAH, TDLEN, TDH, TDT, TXDCTL, TIDV, RXCSUM,
        MTA,
    ];
    for round in 0..100 {
        let mut bench = Bench::new();
        bench.model.set_synchronous(round % 2 == 0);
        for word in 0..0x1000 {
            let value = if random() % 4 == 0 { bench.memory.iova() as u32 + random() % 0x1_0000 } else { random() & random() };
            bench.memory.memory().write(word * 4, value);
        }
        for _ in 0..40 {
            let offset = offsets[random() as usize % offsets.len()];
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 32,
                2 => bench.memory.iova() as u32 + random() % 4096,
                _ => bench.read(offset) ^ 1 << (random() % 32),
            };
            bench.write(offset, value & !(Ctrl::RST.bits()));
            let len = random() as usize % 4000;
            bench.model.receive(&vec![0xff; len]);
            bench.model.step();
        }
        bench.put_legacy(&frame(60), EOP | IFCS);
        bench.go();
    }
}
