//! The device's counters (manual 13.7). They clear when read, and stick at all ones, so the driver keeps the sums.

use hal::{NicError, Registers, Statistics};

use crate::registers::offset;

/// Adds what was counted since the last call.
pub fn collect(registers: &Registers, sum: &mut Statistics) -> Result<(), NicError> {
    let read = |register| registers.read::<u32>(register).map(u64::from);
    // Of a pair, the low half is read first; reading the high half clears both.
    let read_pair = |register| -> Result<u64, NicError> { Ok(read(register)? | read(register + 4)? << 32) };
    let mut rx_errors = 0;
    for register in [offset::CRCERRS, offset::ALGNERRC, offset::RXERRC, offset::RLEC] {
        rx_errors += read(register)?;
    }
    let new = Statistics {
        tx_packets: read(offset::GPTC)?,
        tx_bytes: read_pair(offset::GOTCL)?,
        rx_packets: read(offset::GPRC)?,
        rx_bytes: read_pair(offset::GORCL)?,
        rx_missed: read(offset::MPC)?,
        rx_errors,
    };
    // Last: the ones of a device that went meanwhile are not counted.
    if registers.read::<u32>(offset::STATUS)? == u32::MAX {
        return Err(NicError::Vanished { register: "STATUS" });
    }
    *sum = Statistics {
        tx_packets: sum.tx_packets.saturating_add(new.tx_packets),
        tx_bytes: sum.tx_bytes.saturating_add(new.tx_bytes),
        rx_packets: sum.rx_packets.saturating_add(new.rx_packets),
        rx_bytes: sum.rx_bytes.saturating_add(new.rx_bytes),
        rx_missed: sum.rx_missed.saturating_add(new.rx_missed),
        rx_errors: sum.rx_errors.saturating_add(new.rx_errors),
    };
    Ok(())
}
