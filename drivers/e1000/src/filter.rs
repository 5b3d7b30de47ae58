//! Which packets are received (manual 13.5).

use hal::{MacAddress, NicError, Registers, RxFilter};

use crate::registers::{RAH_VALID, RECEIVE_ADDRESSES, ReceiveControl, TABLE_WORDS, offset};

/// Checks what the tables can hold.
pub fn check(filter: &RxFilter) -> Result<(), NicError> {
    if filter.unicast.len() >= RECEIVE_ADDRESSES {
        return Err(NicError::Config(format!(
            "{} further station addresses; the 82540EM filters {}: use promiscuous instead",
            filter.unicast.len(),
            RECEIVE_ADDRESSES - 1
        )));
    }
    filter.check()
}

/// Writes the address, multicast and VLAN tables. With RCTL disabled, or while it keeps filtering by what was there.
pub fn write_tables(registers: &Registers, station: MacAddress, filter: &RxFilter) -> Result<(), NicError> {
    let mut stations = std::iter::once(&station).chain(&filter.unicast);
    for entry in 0..RECEIVE_ADDRESSES as u64 {
        let (low, high) = stations.next().map_or((0, 0), |&MacAddress([a, b, c, d, e, f])| {
            (u32::from_le_bytes([a, b, c, d]), u32::from(u16::from_le_bytes([e, f])) | RAH_VALID)
        });
        // The valid bit is in the high word: clear it first, so that no half-written address is valid.
        registers.write::<u32>(offset::RAL + 8 * entry + 4, 0)?;
        registers.write::<u32>(offset::RAL + 8 * entry, low)?;
        registers.write::<u32>(offset::RAL + 8 * entry + 4, high)?;
    }
    write_table(registers, offset::MTA, filter.multicast.iter().map(|address| multicast_hash(*address)))?;
    write_table(registers, offset::VFTA, filter.vlans.iter().copied())
}

/// The bits of RCTL that say what is received.
pub fn receive_control(filter: &RxFilter) -> ReceiveControl {
    let mut control = ReceiveControl::empty();
    control.set(ReceiveControl::UPE | ReceiveControl::MPE, filter.promiscuous);
    if filter.all_multicast {
        control |= ReceiveControl::MPE;
    }
    control.set(ReceiveControl::BAM, !filter.no_broadcast);
    control.set(ReceiveControl::VFE, !filter.vlans.is_empty() && !filter.promiscuous);
    control
}

/// A table of 4096 bits.
fn write_table(registers: &Registers, table: u64, bits: impl Iterator<Item = u16>) -> Result<(), NicError> {
    let mut words = [0_u32; TABLE_WORDS as usize];
    for bit in bits {
        words[usize::from(bit >> 5) & 0x7f] |= 1 << (bit & 31);
    }
    for (number, word) in words.iter().enumerate() {
        registers.write::<u32>(table + 4 * number as u64, *word)?;
    }
    Ok(())
}

/// Bits 47:36 of the address, as RCTL.MO 0 selects (13.5.1).
fn multicast_hash(MacAddress([.., low, high]): MacAddress) -> u16 {
    u16::from(high) << 4 | u16::from(low) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multicast_hash_is_the_manuals_example() {
        // 13.5.1: the address 12:34:56:78:9a:bc with MO 0 gives 0xbc9.
        assert_eq!(multicast_hash("12:34:56:78:9a:bc".parse().unwrap()), 0xbc9);
    }

    #[test]
    fn what_the_tables_cannot_hold_is_refused() {
        let group: MacAddress = "01:00:5e:00:00:01".parse().unwrap();
        let station: MacAddress = "52:54:00:00:00:01".parse().unwrap();
        let none = RxFilter::default;
        assert!(check(&RxFilter { unicast: vec![station; 15], multicast: vec![group; 1000], vlans: vec![0, 4095], ..none() }).is_ok());
        assert!(check(&RxFilter { unicast: vec![station; 16], ..none() }).is_err());
        assert!(check(&RxFilter { unicast: vec![group], ..none() }).is_err());
        assert!(check(&RxFilter { multicast: vec![station], ..none() }).is_err());
        assert!(check(&RxFilter { vlans: vec![4096], ..none() }).is_err());
    }
}
