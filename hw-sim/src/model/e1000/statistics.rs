//! The statistics registers (13.7): cleared when read, the 64-bit ones when their upper half is read, and sticking at all ones.

use super::registers::RegisterFile;

pub(super) const FIRST: u64 = 0x4000;
pub(super) const LAST: u64 = 0x40fc;

pub(super) const CRCERRS: u64 = 0x4000;
pub(super) const MPC: u64 = 0x4010;
pub(super) const RLEC: u64 = 0x4040;
pub(super) const GPRC: u64 = 0x4074;
pub(super) const BPRC: u64 = 0x4078;
pub(super) const MPRC: u64 = 0x407c;
pub(super) const GPTC: u64 = 0x4080;
pub(super) const GORCL: u64 = 0x4088;
pub(super) const GOTCL: u64 = 0x4090;
pub(super) const RNBC: u64 = 0x40a0;
pub(super) const RUC: u64 = 0x40a4;
pub(super) const ROC: u64 = 0x40ac;
pub(super) const TORL: u64 = 0x40c0;
pub(super) const TOTL: u64 = 0x40c8;
pub(super) const TPR: u64 = 0x40d0;
pub(super) const TPT: u64 = 0x40d4;
pub(super) const MPTC: u64 = 0x40f0;
pub(super) const BPTC: u64 = 0x40f4;
pub(super) const TSCTC: u64 = 0x40f8;
pub(super) const TSCTFC: u64 = 0x40fc;
/// The first of six counters by size, 13.7.21 to 13.7.26.
pub(super) const PRC64: u64 = 0x405c;
/// The first of six counters by size, 13.7.47 to 13.7.52.
pub(super) const PTC64: u64 = 0x40d8;

/// The name of the statistics register at `offset`, if there is one.
pub(super) fn name(offset: u64) -> Option<&'static str> {
    const NAMES: [(u64, &str); 58] = [
        (0x4000, "CRCERRS"),
        (0x4004, "ALGNERRC"),
        (0x4008, "SYMERRS"),
        (0x400c, "RXERRC"),
        (0x4010, "MPC"),
        (0x4014, "SCC"),
        (0x4018, "ECOL"),
        (0x401c, "MCC"),
        (0x4020, "LATECOL"),
        (0x4028, "COLC"),
        (0x4030, "DC"),
        (0x4034, "TNCRS"),
        (0x4038, "SEC"),
        (0x403c, "CEXTERR"),
        (0x4040, "RLEC"),
        (0x4048, "XONRXC"),
        (0x404c, "XONTXC"),
        (0x4050, "XOFFRXC"),
        (0x4054, "XOFFTXC"),
        (0x4058, "FCRUC"),
        (0x405c, "PRC64"),
        (0x4060, "PRC127"),
        (0x4064, "PRC255"),
        (0x4068, "PRC511"),
        (0x406c, "PRC1023"),
        (0x4070, "PRC1522"),
        (0x4074, "GPRC"),
        (0x4078, "BPRC"),
        (0x407c, "MPRC"),
        (0x4080, "GPTC"),
        (0x4088, "GORCL"),
        (0x408c, "GORCH"),
        (0x4090, "GOTCL"),
        (0x4094, "GOTCH"),
        (0x40a0, "RNBC"),
        (0x40a4, "RUC"),
        (0x40a8, "RFC"),
        (0x40ac, "ROC"),
        (0x40b0, "RJC"),
        (0x40b4, "MGTPRC"),
        (0x40b8, "MGTPDC"),
        (0x40bc, "MGTPTC"),
        (0x40c0, "TORL"),
        (0x40c4, "TORH"),
        (0x40c8, "TOTL"),
        (0x40cc, "TOTH"),
        (0x40d0, "TPR"),
        (0x40d4, "TPT"),
        (0x40d8, "PTC64"),
        (0x40dc, "PTC127"),
        (0x40e0, "PTC255"),
        (0x40e4, "PTC511"),
        (0x40e8, "PTC1023"),
        (0x40ec, "PTC1522"),
        (0x40f0, "MPTC"),
        (0x40f4, "BPTC"),
        (0x40f8, "TSCTC"),
        (0x40fc, "TSCTFC"),
    ];
    NAMES.iter().find(|(at, _)| *at == offset).map(|(_, name)| *name)
}

/// Counts one event; sticks at all ones.
pub(super) fn count(registers: &mut RegisterFile, counter: u64) {
    registers.set(counter, registers.get(counter).saturating_add(1));
}

/// Adds octets to a 64-bit counter whose lower half is at `low`; sticks at all ones.
pub(super) fn add_octets(registers: &mut RegisterFile, low: u64, octets: u64) {
    let value = u64::from(registers.get(low)) | u64::from(registers.get(low + 4)) << 32;
    let value = value.saturating_add(octets);
    registers.set(low, value as u32);
    registers.set(low + 4, (value >> 32) as u32);
}

/// Counts a packet of `length` bytes, from destination address to CRC, in one of six counters by size, the first of which is `smallest`.
pub(super) fn count_size(registers: &mut RegisterFile, smallest: u64, length: usize) {
    let class = match length {
        0..=63 => return,
        64 => 0,
        65..=127 => 1,
        128..=255 => 2,
        256..=511 => 3,
        512..=1023 => 4,
        _ => 5,
    };
    count(registers, smallest + class * 4);
}

/// Reads a statistics register, and clears what the read clears.
pub(super) fn read(registers: &mut RegisterFile, offset: u64) -> u32 {
    let value = registers.get(offset);
    match offset {
        // The lower half stays until the upper half is read.
        GORCL | GOTCL | TORL | TOTL => {}
        _ if [GORCL, GOTCL, TORL, TOTL].contains(&(offset - 4)) => {
            registers.set(offset - 4, 0);
            registers.set(offset, 0);
        }
        _ => registers.set(offset, 0),
    }
    value
}

/// Clears them all.
pub(super) fn clear(registers: &mut RegisterFile) {
    (FIRST..=LAST).step_by(4).for_each(|offset| registers.set(offset, 0));
}
