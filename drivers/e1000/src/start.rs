//! From whatever state an earlier user left it in to a device that stands still, and what the driver has to know of it.

use std::time::{Duration, Instant};

use hal::{MacAddress, NicError, Registers};

use crate::registers::{Control, EEPROM_SUM, EEPROM_WORDS, EepromRead, MANC_ARP, MdiControl, PHY, PhyControl, TransmitControl, offset};

/// How long the device may take for a reset, an EEPROM word or a PHY register; the manual says microseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a stopped unit may need to end its accesses to memory, as in Linux' driver.
const DRAIN: Duration = Duration::from_millis(10);
/// After a reset the device loads registers from its EEPROM, and would write over what the driver has set. Linux' driver waits as long.
const RELOAD: Duration = Duration::from_millis(5);

/// Stops and resets the device (13.4.1, RST), and waits for the end of it.
pub fn reset_device(registers: &Registers) -> Result<(), NicError> {
    let control = registers.read::<u32>(offset::CTRL)?;
    if control == u32::MAX && registers.read::<u32>(offset::STATUS)? == u32::MAX {
        return Err(NicError::Vanished { register: "CTRL" });
    }
    stop_device(registers)?;
    // A reset in the middle of an access would leave it without an end on the bus.
    std::thread::sleep(DRAIN);
    registers.write::<u32>(offset::CTRL, control | Control::RST.bits())?;
    // "Software must wait at least 1 us before it reads" (13.4.1): the device does not answer meanwhile.
    std::thread::sleep(RELOAD);
    wait_until("the end of the reset", "CTRL.RST", || {
        Ok(!Control::from_bits_retain(registers.read::<u32>(offset::CTRL)?).contains(Control::RST))
    })?;
    registers.write::<u32>(offset::IMC, u32::MAX)?;
    // A reset leaves the management's part alone: its firmware must not answer in the driver's place.
    let management = registers.read::<u32>(offset::MANC)?;
    if management & MANC_ARP != 0 {
        registers.write::<u32>(offset::MANC, management & !MANC_ARP)?;
    }
    // A model may take RST for done without a reset of its units; stopping them again makes sure.
    stop_units(registers)
}

/// Interrupts, receive and transmit units off: no access to memory afterwards.
pub fn stop_device(registers: &Registers) -> Result<(), NicError> {
    registers.write::<u32>(offset::IMC, u32::MAX)?;
    stop_units(registers)
}

fn stop_units(registers: &Registers) -> Result<(), NicError> {
    registers.write::<u32>(offset::RCTL, 0)?;
    registers.write::<u32>(offset::TCTL, TransmitControl::PSP.bits())?;
    // The read makes sure that the writes have arrived.
    registers.read::<u32>(offset::STATUS)?;
    Ok(())
}

/// The station address, from the first three words of the EEPROM (5.6.1), whose checksum has to be right (5.6.35).
pub fn read_station_address(registers: &Registers) -> Result<MacAddress, NicError> {
    let (mut address, mut sum) = ([0; 6], 0_u16);
    for index in 0..EEPROM_WORDS {
        let word = read_eeprom(registers, index)?;
        sum = sum.wrapping_add(word);
        if let Some(bytes) = address.chunks_exact_mut(2).nth(index.into()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    let address = MacAddress(address);
    if !address.is_valid_unicast() {
        return Err(NicError::WrongDevice(format!("the EEPROM gives {address} as the station address")));
    }
    if sum != EEPROM_SUM {
        return Err(NicError::WrongDevice(format!(
            "the EEPROM's checksum is wrong (its words add up to {sum:#06x}, not {EEPROM_SUM:#06x}), so its station address {address} cannot \
             be trusted; the card's maker has tools that write it anew"
        )));
    }
    Ok(address)
}

/// A word of the EEPROM (13.4.4).
fn read_eeprom(registers: &Registers, index: u8) -> Result<u16, NicError> {
    registers.write::<u32>(offset::EERD, EepromRead::START.bits() | u32::from(index) << 8)?;
    let mut data = 0;
    wait_until("an EEPROM read", "EERD.DONE", || {
        data = registers.read::<u32>(offset::EERD)?;
        if data == u32::MAX {
            return Err(NicError::Vanished { register: "EERD" });
        }
        Ok(EepromRead::from_bits_retain(data).contains(EepromRead::DONE))
    })?;
    Ok((data >> 16) as u16)
}

/// A PHY that an earlier user left in loop-back, without power or isolated would never have a link: neither the device's reset nor a
/// function's ends that. It negotiates again then.
pub fn restore_phy(registers: &Registers) -> Result<(), NicError> {
    let control = PhyControl::from_bits_retain(mdi(registers, MdiControl::READ, 0)?);
    if control.intersects(PhyControl::LOOP_BACK | PhyControl::POWER_DOWN | PhyControl::ISOLATE) {
        let normal = PhyControl::NEGOTIATE | PhyControl::RESTART | PhyControl::FULL_DUPLEX | PhyControl::SPEED_1000;
        mdi(registers, MdiControl::WRITE, normal.bits())?;
    }
    Ok(())
}

/// Reads or writes the PHY's control register (13.4.6).
fn mdi(registers: &Registers, operation: MdiControl, data: u16) -> Result<u16, NicError> {
    registers.write::<u32>(offset::MDIC, operation.bits() | PHY << 21 | u32::from(data))?;
    let mut answer = 0;
    wait_until("the PHY", "MDIC.R", || {
        answer = registers.read::<u32>(offset::MDIC)?;
        if answer == u32::MAX {
            return Err(NicError::Vanished { register: "MDIC" });
        }
        Ok(MdiControl::from_bits_retain(answer).contains(MdiControl::READY))
    })?;
    if MdiControl::from_bits_retain(answer).contains(MdiControl::ERROR) {
        return Err(NicError::WrongDevice("its PHY does not answer (MDIC.E), so it can have no link".into()));
    }
    Ok(answer as u16)
}

/// Waits, at most [`PATIENCE`], for something that takes the device microseconds.
fn wait_until(what: &'static str, register: &'static str, mut done: impl FnMut() -> Result<bool, NicError>) -> Result<(), NicError> {
    let start = Instant::now();
    loop {
        if done()? {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(NicError::Timeout { what, register, waited: PATIENCE });
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}
