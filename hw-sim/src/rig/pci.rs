//! Configuration space by the mechanism at ports 0xcf8 and 0xcfc (PCI 3.0, 3.2.2.3), and what a firmware would do: placing the BARs.

use hal::PciIdentity;
use hal::registers::Width;

use super::command_line::SLOT;
use super::qtest::{Place, Qtest, QtestError};

/// CONFIG_ADDRESS and CONFIG_DATA.
const CONFIG_ADDRESS: Place = Place::Port(0xcf8);
const CONFIG_DATA: u16 = 0xcfc;
/// How much of a function's configuration space these ports reach, in bytes.
pub(crate) const CONFIG_LEN: u16 = 256;

/// The registers of a type 0 header (PCI 3.0, 6.1).
const VENDOR_ID: u16 = 0x00;
const DEVICE_ID: u16 = 0x02;
pub(crate) const COMMAND: u16 = 0x04;
const REVISION_AND_CLASS: u16 = 0x08;
const BAR0: u16 = 0x10;
const INTERRUPT_PIN: u16 = 0x3d;

const COMMAND_IO: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
pub(crate) const COMMAND_BUS_MASTER: u32 = 1 << 2;

/// The low bits of a BAR (6.2.5.1).
const BAR_IS_PORTS: u32 = 1 << 0;
const BAR_IS_64_BIT: u32 = 1 << 2;

/// Where BARs are placed: above any RAM of this machine, below the interrupt controllers.
const MEMORY_START: u64 = 0xe000_0000;
const MEMORY_END: u64 = 0xfec0_0000;
/// Above all the chip set's own ports.
const PORTS_START: u16 = 0xc000;

/// The Q35 chip set connects slot 4's INTA to PIRQE, which is input 20 of the I/O APIC, and slots and pins in turn from there to input
/// 23 (ICH9 datasheet, 10.1.29 on; QEMU's hw/isa/lpc_ich9.c for the reset values).
const FIRST_INPUT: u32 = 20;
const INPUTS: u32 = 4;

/// A BAR that has been placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) start: Place,
    /// in bytes
    pub(crate) len: u64,
}

/// The NIC's function, found and set up.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) identity: PciIdentity,
    pub(crate) bars: [Option<Bar>; 6],
    /// The input of the I/O APIC that its INTx arrives at; `None` for a device without one.
    pub(crate) interrupt: Option<u32>,
}

impl Function {
    /// Finds the NIC, places its BARs and switches their decoding on. `None` when the slot is empty.
    pub(crate) fn set_up(qtest: &mut Qtest) -> Result<Option<Self>, QtestError> {
        let vendor = config_read(qtest, VENDOR_ID, Width::Word)? as u16;
        if vendor == 0xffff {
            return Ok(None);
        }
        let class_and_revision = config_read(qtest, REVISION_AND_CLASS, Width::Double)?;
        let identity = PciIdentity {
            vendor,
            device: config_read(qtest, DEVICE_ID, Width::Word)? as u16,
            class: class_and_revision >> 8,
            revision: class_and_revision as u8,
        };
        let bars = place_bars(qtest)?;
        let command = config_read(qtest, COMMAND, Width::Word)?;
        config_write(qtest, COMMAND, Width::Word, command | COMMAND_IO | COMMAND_MEMORY)?;
        let pin = config_read(qtest, INTERRUPT_PIN, Width::Byte)?;
        let interrupt = (1..=INPUTS).contains(&pin).then(|| FIRST_INPUT + (u32::from(SLOT) + pin - 1) % INPUTS);
        Ok(Some(Self { identity, bars, interrupt }))
    }
}

fn place_bars(qtest: &mut Qtest) -> Result<[Option<Bar>; 6], QtestError> {
    let mut bars = [None; 6];
    let (mut memory, mut ports) = (MEMORY_START, PORTS_START);
    let mut index = 0;
    while index < bars.len() {
        let register = BAR0 + 4 * index as u16;
        let (kind, low) = probe(qtest, register)?;
        let wide = kind & BAR_IS_PORTS == 0 && kind & BAR_IS_64_BIT != 0 && index + 1 < bars.len();
        if kind & BAR_IS_PORTS != 0 {
            // Bits that read as zero at the top are an I/O BAR with 16 bits, which is all that this machine has.
            let len = ((low & !0x3) as u16).wrapping_neg();
            let start = ports.checked_next_multiple_of(len.max(1)).filter(|start| start.checked_add(len).is_some());
            if let (1.., Some(start)) = (len, start) {
                config_write(qtest, register, Width::Double, u32::from(start))?;
                bars[index] = Some(Bar { start: Place::Port(start), len: u64::from(len) });
                ports = start + len;
            }
        } else {
            let high = if wide { probe(qtest, register + 4)?.1 } else { u32::MAX };
            // A BAR that is not there reads as zero.
            let len = if low == 0 && (!wide || high == 0) { 0 } else { (u64::from(high) << 32 | u64::from(low & !0xf)).wrapping_neg() };
            let start = if len == 0 { memory } else { memory.next_multiple_of(len) };
            if len != 0 && len <= MEMORY_END - MEMORY_START && start + len <= MEMORY_END {
                config_write(qtest, register, Width::Double, start as u32)?;
                if wide {
                    config_write(qtest, register + 4, Width::Double, 0)?;
                }
                bars[index] = Some(Bar { start: Place::Memory(start), len });
                memory = start + len;
            }
        }
        index += if wide { 2 } else { 1 };
    }
    Ok(bars)
}

/// What a BAR reads as, and what it reads as after all ones were written: the bits of its size are zero then (6.2.5.1).
fn probe(qtest: &mut Qtest, register: u16) -> Result<(u32, u32), QtestError> {
    let before = config_read(qtest, register, Width::Double)?;
    config_write(qtest, register, Width::Double, u32::MAX)?;
    let ones = config_read(qtest, register, Width::Double)?;
    config_write(qtest, register, Width::Double, before)?;
    Ok((before, ones))
}

/// Reads `width` at `offset` of the NIC's configuration space; the caller has checked that it is inside and aligned.
pub(crate) fn config_read(qtest: &mut Qtest, offset: u16, width: Width) -> Result<u32, QtestError> {
    select(qtest, offset)?;
    qtest.read(Place::Port(CONFIG_DATA + offset % 4), width).map(|value| value as u32)
}

/// As [`config_read`], the other way.
pub(crate) fn config_write(qtest: &mut Qtest, offset: u16, width: Width, value: u32) -> Result<(), QtestError> {
    select(qtest, offset)?;
    qtest.write(Place::Port(CONFIG_DATA + offset % 4), width, u64::from(value))
}

fn select(qtest: &mut Qtest, offset: u16) -> Result<(), QtestError> {
    let address = 1 << 31 | u64::from(SLOT) << 11 | u64::from(offset & !3);
    qtest.write(CONFIG_ADDRESS, Width::Double, address)
}
