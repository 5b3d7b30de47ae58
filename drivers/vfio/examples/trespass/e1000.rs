//! An 82540EM receives a frame of its own (PHY loop-back).

use std::error::Error;
use std::time::Duration;

use hal::{BusDevice, Registers, SharedMemory};

use super::Trespasser;

/// Registers of the 8254x (manual, table 13-2).
mod register {
    pub const CTRL: u64 = 0x0000;
    pub const MDIC: u64 = 0x0020;
    pub const RCTL: u64 = 0x0100;
    pub const TCTL: u64 = 0x0400;
    /// Base (low, high), length, head and tail of a ring are at these offsets from the first.
    pub const RECEIVE: u64 = 0x2800;
    pub const TRANSMIT: u64 = 0x3800;
    pub const LENGTH: u64 = 0x08;
    pub const HEAD: u64 = 0x10;
    pub const TAIL: u64 = 0x18;
}
const CTRL_RST: u32 = 1 << 26;
/// A write of bit 14 (loop-back) to register 0 of PHY 1 (13.4.6 and 13.5.1).
const MDIC_LOOP_BACK: u32 = 1 << 26 | 1 << 21 | 1 << 14;
/// Auto-negotiation at full duplex, as after power-on: the loop-back outlives a reset of the device.
const MDIC_NORMAL: u32 = 1 << 26 | 1 << 21 | 1 << 12 | 1 << 8 | 1 << 6;
/// EN, UPE, BAM.
const RCTL_ALL: u32 = 1 << 1 | 1 << 3 | 1 << 15;
const TCTL_EN_PSP: u32 = 1 << 1 | 1 << 3;
/// EOP, IFCS and RS of a legacy descriptor (3.3.3): one frame, and a status at its end.
const COMMAND: u64 = 0b1011;

/// Where things are in the device's memory.
const TRANSMIT_RING: usize = 0;
const RECEIVE_RING: usize = 1024;
const FRAME: usize = 2048;
const RING_LEN: u32 = 128;

pub struct Card {
    registers: Registers,
    device: Box<dyn BusDevice>,
}

impl Card {
    pub fn new(mut device: Box<dyn BusDevice>) -> Result<Self, Box<dyn Error>> {
        let registers = device.bar(0)?;
        device.set_bus_master(true)?;
        Ok(Self { registers, device })
    }
}

impl Trespasser for Card {
    /// Has the device send a frame to itself and receive it at `target`.
    fn write_to(&mut self, memory: &SharedMemory, base: u64, target: u64) -> Result<(), Box<dyn Error>> {
        let registers = &self.registers;
        memory.write_bytes(FRAME, &[0xff; 60]);
        registers.write::<u32>(register::RCTL, 0)?;
        registers.write::<u32>(register::CTRL, registers.read::<u32>(register::CTRL)? | CTRL_RST)?;
        std::thread::sleep(Duration::from_millis(10));
        // Descriptors start with the address (3.2.3, 3.3.3); all of the receive ring's lead to the target.
        memory.write(TRANSMIT_RING, base + FRAME as u64);
        memory.write(TRANSMIT_RING + 8, 60 | COMMAND << 24);
        for at in (RECEIVE_RING..RECEIVE_RING + RING_LEN as usize).step_by(16) {
            memory.write(at, target);
            memory.write(at + 8, 0_u64);
        }
        for (ring, place) in [(register::RECEIVE, RECEIVE_RING), (register::TRANSMIT, TRANSMIT_RING)] {
            registers.write::<u32>(ring, (base + place as u64) as u32)?;
            registers.write::<u32>(ring + 4, (base >> 32) as u32)?;
            registers.write::<u32>(ring + register::LENGTH, RING_LEN)?;
            registers.write::<u32>(ring + register::HEAD, 0)?;
            registers.write::<u32>(ring + register::TAIL, 0)?;
        }
        registers.write::<u32>(register::RECEIVE + register::TAIL, RING_LEN / 16 - 1)?;
        registers.write::<u32>(register::MDIC, MDIC_LOOP_BACK)?;
        registers.write::<u32>(register::TCTL, TCTL_EN_PSP)?;
        registers.write::<u32>(register::RCTL, RCTL_ALL)?;
        // QEMU's model is deaf for a second after this write.
        std::thread::sleep(Duration::from_millis(1500));
        registers.write::<u32>(register::TRANSMIT + register::TAIL, 1)?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    fn end(mut self: Box<Self>) -> Result<(), Box<dyn Error>> {
        self.registers.write::<u32>(register::RCTL, 0)?;
        self.registers.write::<u32>(register::MDIC, MDIC_NORMAL)?;
        Ok(self.device.set_bus_master(false)?)
    }
}
