use std::time::Duration;

use hal::memory::SharedMemory;
use hal::{Access, RegisterError};

use super::*;
use crate::model::e1000::descriptor::RxErrors;
use crate::model::e1000::eeprom::{Eecd, Eerd};
use crate::model::e1000::statistics::{CRCERRS, GPTC};

fn with(fault: Fault) -> Bench {
    let bench = Bench::new();
    bench.model.set_fault(fault);
    bench
}

fn incoming(len: usize) -> Vec<u8> {
    let mut frame = frame(len);
    frame[..6].copy_from_slice(&MAC.0);
    frame
}

#[test]
fn a_vanished_device_reads_all_ones() {
    let mut bench = with(Fault::Vanished);
    bench.write(CTRL, 0);
    assert_eq!(bench.read(STATUS), u32::MAX);
    assert_eq!(bench.device.config_read(0, Width::Word).unwrap(), 0xffff);
    assert!(bench.device.reset().is_err());
    assert_eq!(bench.model.receive(&incoming(60)), Received::Off);
    bench.model.clear_fault();
    assert_ne!(bench.read(CTRL), u32::MAX);
    assert_ne!(bench.read(CTRL) & Ctrl::SLU.bits(), 0, "the write was lost");
}

#[test]
fn a_device_can_vanish_after_some_accesses() {
    let bench = with(Fault::VanishedAfter(2));
    assert_ne!(bench.read(STATUS), u32::MAX);
    assert_ne!(bench.read(STATUS), u32::MAX);
    assert_eq!(bench.read(STATUS), u32::MAX);
}

#[test]
fn an_unreachable_device_gives_the_reason() {
    let mut bench = with(Fault::UnreachableAfter(1, "gone fishing".to_owned()));
    let mut interrupt = bench.device.interrupt(0).unwrap();
    bench.read(STATUS);
    assert!(matches!(bench.registers.read::<u32>(STATUS), Err(RegisterError::Unreachable(reason)) if reason == "gone fishing"));
    assert!(bench.registers.write::<u32>(CTRL, 0).is_err());
    assert!(interrupt.wait(Duration::ZERO).is_err());
    assert!(bench.device.config_read(0, Width::Word).is_err());
}

#[test]
fn polls_that_never_end() {
    let bench = with(Fault::ResetNeverEnds);
    bench.write(CTRL, Ctrl::RST.bits());
    assert_ne!(bench.read(CTRL) & Ctrl::RST.bits(), 0);
    let bench = with(Fault::EepromNeverDone);
    bench.write(EERD, 1);
    bench.write(EECD, Eecd::REQ.bits());
    assert!((0..100).all(|_| bench.read(EERD) & Eerd::DONE.bits() == 0 && bench.read(EECD) & Eecd::GNT.bits() == 0));
    let bench = with(Fault::PhyNeverReady);
    bench.write(MDIC, 2 << 26 | 1 << 21);
    assert!((0..100).all(|_| bench.read(MDIC) & 1 << 28 == 0));
}

#[test]
fn a_blank_eeprom_leaves_no_address() {
    let bench = with(Fault::EepromBlank);
    bench.write(CTRL, Ctrl::RST.bits());
    assert_eq!((bench.read(RAL0), bench.read(RAH0) & 0xffff), (u32::MAX, 0xffff));
}

#[test]
fn a_flapping_link_sends_at_every_second_step() {
    let mut bench = with(Fault::LinkFlap);
    bench.read(ICR);
    bench.put_legacy(&frame(60), EOP | IFCS);
    assert!(bench.go().is_empty());
    assert_eq!((bench.read(ICR), bench.read(STATUS) & Status::LU.bits()), (Cause::LSC.bits(), 0));
    assert_eq!(bench.model.step().len(), 1);
}

#[test]
fn a_transmit_hang_ends_with_a_reset() {
    let mut bench = with(Fault::TransmitHangAfter(1));
    bench.put_legacy(&frame(60), EOP | IFCS | RS);
    bench.put_legacy(&frame(61), EOP | IFCS | RS);
    assert_eq!(bench.go(), [frame(60)]);
    assert!(bench.model.step().is_empty() && !bench.done(1));
    assert_eq!((bench.read(TDH), bench.read(TDT)), (1, 2));
    bench.write(CTRL, Ctrl::RST.bits());
    bench.start();
    bench.put_legacy(&frame(62), EOP | IFCS | RS);
    assert_eq!(bench.go(), [frame(62)]);
    bench.clean();
}

#[test]
fn write_backs_that_are_missing_early_or_everywhere() {
    let mut bench = with(Fault::NoWriteBack);
    bench.put_legacy(&frame(60), EOP | IFCS | RS);
    assert_eq!(bench.go().len(), 1);
    assert!(!bench.done(0));

    let mut bench = with(Fault::DoneTooEarly);
    bench.put_legacy(&frame(60), EOP | IFCS | RS);
    bench.ring();
    assert!(bench.done(0));
    assert_eq!(bench.model.step().len(), 1);
    bench.clean();

    let bench = with(Fault::DoneEverywhere);
    bench.model.step();
    assert!((0..ENTRIES).all(|index| bench.done(index)));
    bench.clean();
}

#[test]
fn received_descriptors_that_lie() {
    for (fault, length, status, errors) in [
        (Fault::RxLengthTooLong, 0xffff, 0x07, 0),
        (Fault::RxLengthZero, 0, 0x07, 0),
        (Fault::RxNeverEnds, 100, 0x01, 0),
        (Fault::RxError, 100, 0x07, RxErrors::CE.bits()),
        (Fault::RxGarbageStatus, 100, 0xff, 0xff),
    ] {
        let bench = with(fault.clone());
        assert_eq!(bench.model.receive(&incoming(100)), Received::Delivered);
        let descriptor = bench.received(0);
        assert_eq!((descriptor.length.get(), descriptor.status, descriptor.errors), (length, status, errors), "{fault:?}");
        bench.clean();
    }
}

#[test]
fn a_crc_error_ends_with_its_packet() {
    let bench = with(Fault::RxError);
    bench.model.receive(&incoming(100));
    bench.model.receive(&incoming(100));
    assert_eq!((bench.received(1).errors, bench.read(CRCERRS)), (0, 1));
}

#[test]
fn packets_in_descriptors_that_were_not_their_turn() {
    let bench = with(Fault::RxSkipsDescriptor);
    bench.model.receive(&incoming(100));
    assert_eq!((bench.received(0).status, bench.received(1).status & 1, bench.read(RDH)), (0, 1, 2));
    let bench = with(Fault::RxBeyondTail);
    bench.model.receive(&incoming(100));
    assert_eq!((bench.received(0).status & 1, bench.received(ENTRIES - 1).status), (1, 3));
    bench.clean();
}

#[test]
fn heads_statistics_and_interrupts_that_lie() {
    let bench = with(Fault::HeadGarbage);
    assert_eq!((bench.read(TDH), bench.read(RDH)), (0xffff, 0xffff));
    let bench = with(Fault::StatisticsStuck);
    assert_eq!(bench.read(GPTC), u32::MAX);
    let bench = with(Fault::InterruptStorm);
    bench.write(ICS, 1);
    assert_eq!(bench.read(ICR) & bench.read(ICR) & 1, 1);
    let bench = with(Fault::InterruptLost);
    bench.read(ICR);
    bench.model.receive(&incoming(100));
    assert_eq!(bench.read(ICR), 0);
}

#[test]
fn an_access_that_nothing_is_mapped_for_stops_the_device_until_a_reset() {
    let mut bench = Bench::new();
    bench.put(legacy(0xdead_0000, 100, EOP | IFCS | RS));
    bench.put_legacy(&frame(60), EOP | IFCS | RS);
    assert!(bench.go().is_empty());
    assert!(bench.model.step().is_empty());
    assert_eq!(bench.model.faulted_accesses(), [(0xdead_0000, 100)]);
    assert_ne!(bench.device.config_read(6, Width::Word).unwrap() & 1 << 13, 0, "received master abort");
    bench.write(CTRL, Ctrl::RST.bits());
    bench.start();
    bench.put_legacy(&frame(60), EOP | IFCS | RS);
    assert_eq!(bench.go().len(), 1);
}

#[test]
fn a_write_to_a_read_only_mapping_does_nothing() {
    let bench = Bench::new();
    let memory = SharedMemory::new("read-only", 4096).unwrap();
    let space = bench.device.dma();
    let mapping = space.map_memory(&memory, Access::Read).unwrap();
    bench.write(RCTL, 0);
    bench.memory.memory().write(RX_RING as usize, mapping.iova());
    bench.write(RDH, 0);
    bench.write(RDT, 0);
    bench.write(RDT, 1);
    bench.write(RCTL, Rctl::EN.bits() | Rctl::SECRC.bits());
    assert_eq!(bench.model.receive(&incoming(100)), Received::Missed);
    assert_eq!(bench.model.faulted_accesses(), [(mapping.iova(), 100)]);
    assert_eq!((memory.read::<u64>(0), bench.received(0).status), (0, 0));
    bench.write(RCTL, 0);
    space.unmap(mapping).unwrap();
}
