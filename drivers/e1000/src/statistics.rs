//! The device's counters (manual 13.7). They clear when read, so the driver keeps the sums.

use hal::{NicError, Registers, Statistics};

use crate::registers::offset;

/// Adds what was counted since the last call.
pub fn collect(registers: &Registers, sum: &mut Statistics) -> Result<(), NicError> {
    if registers.read::<u32>(offset::STATUS)? == u32::MAX {
        return Err(NicError::Vanished { register: "STATUS" });
    }
    let read = |register| registers.read::<u32>(register).map(u64::from);
    // Of a pair, the low half is read first; reading the high half clears both.
    let read_pair = |register| -> Result<u64, NicError> { Ok(read(register)? | read(register + 4)? << 32) };
    sum.tx_packets += read(offset::GPTC)?;
    sum.tx_bytes += read_pair(offset::GOTCL)?;
    sum.rx_packets += read(offset::GPRC)?;
    sum.rx_bytes += read_pair(offset::GORCL)?;
    sum.rx_missed += read(offset::MPC)?;
    for register in [offset::CRCERRS, offset::ALGNERRC, offset::RXERRC, offset::RLEC] {
        sum.rx_errors += read(register)?;
    }
    Ok(())
}
