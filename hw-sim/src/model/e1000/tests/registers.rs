use std::time::Duration;

use super::*;
use crate::model::e1000::eeprom::{Eecd, Eerd, SUM};
use crate::model::e1000::phy::Mdic;

fn eeprom_word(bench: &Bench, address: u32) -> u16 {
    bench.write(EERD, address << 8 | Eerd::START.bits());
    let mut polls = 0;
    loop {
        let value = bench.read(EERD);
        if value & Eerd::DONE.bits() != 0 {
            assert_eq!(polls, 1, "not done at once");
            return (value >> 16) as u16;
        }
        polls += 1;
    }
}

#[test]
fn the_eeprom_holds_the_address_and_adds_up_to_baba() {
    let bench = Bench::cold();
    let words: Vec<u16> = (0..64).map(|address| eeprom_word(&bench, address)).collect();
    assert_eq!(words[..3], [0x5452, 0x1200, 0x5634]);
    assert_eq!(words.iter().fold(0_u16, |sum, word| sum.wrapping_add(*word)), SUM);
    bench.clean();
}

/// 5.3.1: request, grant, then the Microwire protocol bit by bit.
#[test]
fn the_eeprom_can_be_read_bit_by_bit() {
    let bench = Bench::cold();
    bench.write(EECD, Eecd::REQ.bits());
    assert_ne!(bench.read(EECD) & Eecd::GNT.bits(), 0);
    let mut eecd = Eecd::REQ | Eecd::CS;
    bench.write(EECD, eecd.bits());
    let mut clock = |input: bool| {
        eecd.set(Eecd::DI, input);
        bench.write(EECD, eecd.bits());
        bench.write(EECD, (eecd | Eecd::SK).bits());
        let output = bench.read(EECD) & Eecd::DO.bits() != 0;
        bench.write(EECD, eecd.bits());
        output
    };
    // Start bit, opcode 10b, address 1.
    for bit in [true, true, false, false, false, false, false, false, true] {
        clock(bit);
    }
    let word = (0..16).fold(0_u16, |word, _| word << 1 | u16::from(clock(false)));
    assert_eq!(word, 0x1200);
    bench.write(EECD, 0);
    bench.clean();
}

#[test]
fn mdic_reads_the_phy() {
    let bench = Bench::cold();
    let phy = |register: u32| {
        bench.write(MDIC, Mdic::OP_READ.bits() | 1 << 21 | register << 16);
        assert_eq!(bench.read(MDIC) & Mdic::R.bits(), 0, "not ready at once");
        let value = bench.read(MDIC);
        assert_eq!(value & (Mdic::R | Mdic::E).bits(), Mdic::R.bits());
        value as u16
    };
    assert_eq!((phy(2), phy(3)), (0x0141, 0x0c20));
    assert_ne!(phy(1) & 1 << 2, 0, "link");
    bench.model.set_link(false);
    assert_eq!(phy(1) & 1 << 2, 0);
    bench.clean();
    bench.write(MDIC, Mdic::OP_READ.bits() | 2 << 21);
    bench.write(MDIC, Mdic::OP_READ.bits() | 2 << 21);
    bench.violates("before it was ready");
    bench.read(MDIC);
    assert_ne!(bench.read(MDIC) & Mdic::E.bits(), 0, "there is no PHY 2");
}

#[test]
fn reading_icr_clears_it_and_so_does_writing_ones() {
    let bench = Bench::cold();
    bench.write(ICS, 0b11);
    bench.write(ICR, 0b01);
    assert_eq!(bench.model.register(ICR), 0b10);
    assert_eq!((bench.read(ICR), bench.read(ICR)), (0b10, 0));
}

#[test]
fn ims_sets_and_imc_clears_the_mask_and_the_interrupt_is_a_level() {
    let mut bench = Bench::cold();
    let mut interrupt = bench.device.interrupt(0).unwrap();
    let mut wait = || interrupt.wait(Duration::from_secs(1)).unwrap();
    bench.write(ICS, Cause::TXDW.bits());
    assert!(!wait());
    bench.write(IMS, Cause::TXDW.bits());
    assert!(wait() && wait());
    bench.write(IMC, Cause::TXDW.bits());
    assert!(!wait());
    assert_eq!(bench.read(IMS), 0);
    bench.write(IMS, Cause::TXDW.bits());
    bench.read(ICR);
    assert!(!wait());
    assert!(bench.device.interrupt(1).is_err());
    bench.clean();
}

#[test]
fn the_link_is_up_when_the_cable_is_in_and_slu_is_set() {
    let bench = Bench::cold();
    assert_eq!(bench.read(STATUS) & Status::LU.bits(), 0);
    bench.write(CTRL, Ctrl::SLU.bits());
    assert_eq!(bench.read(STATUS) & (Status::LU | Status::FD).bits(), (Status::LU | Status::FD).bits());
    assert_eq!(bench.read(ICR), Cause::LSC.bits());
    bench.model.set_link(false);
    assert_eq!(bench.read(STATUS) & Status::LU.bits(), 0);
    assert_eq!(bench.read(ICR), Cause::LSC.bits());
}

#[test]
fn a_reset_returns_registers_to_their_defaults_and_reloads_the_address() {
    let bench = Bench::new();
    bench.write(RAL0, 0x1234);
    bench.write(IMS, 0xff);
    bench.write(CTRL, Ctrl::RST.bits());
    assert_eq!(bench.read(CTRL) & (Ctrl::RST | Ctrl::SLU).bits(), 0);
    assert_eq!([RCTL, TCTL, IMS, ICR, TDT, RDT, TDLEN].map(|register| bench.read(register)), [0; 7]);
    assert_eq!((bench.read(RAL0), bench.read(RAH0)), (0x1200_5452, 0x8000_5634));
    assert_eq!((bench.read(VET), bench.read(PBA), bench.read(RXDCTL)), (0x8100, 0x0010_0030, 0x0101_0000));
    bench.clean();
}

#[test]
fn undefined_initial_values_are_noise() {
    let bench = Bench::cold();
    assert_ne!(bench.read(MTA), 0);
    assert_ne!(bench.read(TDBAH), 0);
    assert_eq!(bench.read(RAH0 + 8) & RAH_AV, 0, "but no address is valid that is not the station's");
}

#[test]
fn configuration_space_says_who_it_is() {
    let mut bench = Bench::cold();
    let config = |bench: &Bench, offset| bench.device.config_read(offset, Width::Double).unwrap();
    assert_eq!(bench.device.identity().to_string(), "8086:100e");
    assert_eq!((config(&bench, 0), config(&bench, 8)), (0x100e_8086, 0x0200_0002));
    bench.device.config_write(0x10, Width::Double, u32::MAX).unwrap();
    assert_eq!(config(&bench, 0x10), 0xfffe_0000, "128 KiB of memory");
    assert_eq!(config(&bench, 4) & 6, 2);
    bench.device.set_bus_master(true).unwrap();
    assert_eq!(config(&bench, 4) & 6, 6);
    assert_eq!(bench.device.config_read(0x100, Width::Word).unwrap() as u16, 0xffff);
    assert!(bench.device.bar(1).is_err());
}

#[test]
fn closing_the_device_stops_its_access_to_memory() {
    let mut bench = Bench::new();
    bench.put_legacy(&frame(60), EOP | IFCS);
    bench.ring();
    let Bench { model, device, memory: _memory, .. } = bench;
    drop(device);
    assert!(model.step().is_empty());
    assert!(model.faulted_accesses().is_empty());
}

#[test]
fn a_function_reset_turns_bus_mastering_off() {
    let mut bench = Bench::new();
    bench.device.reset().unwrap();
    assert_eq!(bench.device.config_read(4, Width::Word).unwrap() & 6, 2);
    assert_eq!(bench.read(TCTL), 0);
}
