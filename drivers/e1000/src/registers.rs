//! The registers of the 82540EM (Intel 8254x Software Developer's Manual, chapter 13), by the manual's names.

use bitflags::bitflags;

/// Byte offsets in BAR 0 (table 13-2).
pub mod offset {
    /// Device control.
    pub const CTRL: u64 = 0x0000;
    /// Device status.
    pub const STATUS: u64 = 0x0008;
    /// EEPROM read.
    pub const EERD: u64 = 0x0014;
    /// MDI control: the PHY's registers.
    pub const MDIC: u64 = 0x0020;
    /// VLAN Ethernet type.
    pub const VET: u64 = 0x0038;
    /// Interrupt cause; clears when read.
    pub const ICR: u64 = 0x00c0;
    /// Interrupt mask set.
    pub const IMS: u64 = 0x00d0;
    /// Interrupt mask clear.
    pub const IMC: u64 = 0x00d8;
    /// Receive control.
    pub const RCTL: u64 = 0x0100;
    /// Transmit control.
    pub const TCTL: u64 = 0x0400;
    /// Transmit inter-packet gap.
    pub const TIPG: u64 = 0x0410;
    /// Receive descriptor base, low half.
    pub const RDBAL: u64 = 0x2800;
    /// Receive descriptor base, high half.
    pub const RDBAH: u64 = 0x2804;
    /// Receive ring length in bytes.
    pub const RDLEN: u64 = 0x2808;
    /// Receive head.
    pub const RDH: u64 = 0x2810;
    /// Receive tail.
    pub const RDT: u64 = 0x2818;
    /// Receive delay timer.
    pub const RDTR: u64 = 0x2820;
    /// Transmit descriptor base, low half.
    pub const TDBAL: u64 = 0x3800;
    /// Transmit descriptor base, high half.
    pub const TDBAH: u64 = 0x3804;
    /// Transmit ring length in bytes.
    pub const TDLEN: u64 = 0x3808;
    /// Transmit head.
    pub const TDH: u64 = 0x3810;
    /// Transmit tail.
    pub const TDT: u64 = 0x3818;
    /// Transmit interrupt delay.
    pub const TIDV: u64 = 0x3820;
    /// Transmit descriptor control: write-back thresholds.
    pub const TXDCTL: u64 = 0x3828;
    /// CRC errors; clears on read, as all statistics do.
    pub const CRCERRS: u64 = 0x4000;
    /// Alignment errors.
    pub const ALGNERRC: u64 = 0x4004;
    /// Receive errors.
    pub const RXERRC: u64 = 0x400c;
    /// Missed packets: no descriptor, or the FIFO full.
    pub const MPC: u64 = 0x4010;
    /// Receive length errors.
    pub const RLEC: u64 = 0x4040;
    /// Good packets received.
    pub const GPRC: u64 = 0x4074;
    /// Good packets transmitted.
    pub const GPTC: u64 = 0x4080;
    /// Good octets received, low half; the high half is at + 4 and clears both.
    pub const GORCL: u64 = 0x4088;
    /// Good octets transmitted, low half.
    pub const GOTCL: u64 = 0x4090;
    /// Receive checksum control.
    pub const RXCSUM: u64 = 0x5000;
    /// Multicast table array, 128 words.
    pub const MTA: u64 = 0x5200;
    /// Receive addresses: 16 pairs of RAL, RAH.
    pub const RAL: u64 = 0x5400;
    /// VLAN filter table array, 128 words.
    pub const VFTA: u64 = 0x5600;
    /// Management control.
    pub const MANC: u64 = 0x5820;
    /// The end of what the driver uses.
    pub const END: u64 = 0x5824;
}

/// Entries of the receive address table (RAL/RAH); the first is the station address.
pub const RECEIVE_ADDRESSES: usize = 16;
/// Words of the multicast table and of the VLAN filter table.
pub const TABLE_WORDS: u64 = 128;
/// The recommended gaps for copper (13.4.34): IPGT 10, IPGR1 8, IPGR2 6.
pub const TIPG_COPPER: u32 = 10 | 8 << 10 | 6 << 20;
/// The Ethernet type of an 802.1Q tag.
pub const VLAN_ETHER_TYPE: u32 = 0x8100;
/// TXDCTL: thresholds counted in descriptors (GRAN), WTHRESH 0 so that a descriptor with RS is written back at once.
pub const TXDCTL_AT_ONCE: u32 = 1 << 24;

bitflags! {
    /// Device control (13.4.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u32 {
        /// Link reset.
        const LRST = 1 << 3;
        /// Detect the speed from the PHY.
        const ASDE = 1 << 5;
        /// Set link up.
        const SLU = 1 << 6;
        /// Invert loss of signal.
        const ILOS = 1 << 7;
        /// Reset; clears itself.
        const RST = 1 << 26;
        /// VLAN mode: strip tags, and insert them where a descriptor says so.
        const VME = 1 << 30;
        /// Reset the PHY.
        const PHY_RST = 1 << 31;
        const _ = !0;
    }

    /// Device status (13.4.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u32 {
        /// Full duplex.
        const FD = 1 << 0;
        /// Link up.
        const LU = 1 << 1;
        /// The low bit of the speed: 0 is 10, 1 is 100, 2 and 3 are 1000 Mbit/s.
        const SPEED_100 = 1 << 6;
        /// The high bit of the speed.
        const SPEED_1000 = 1 << 7;
        const _ = !0;
    }

    /// EEPROM read (13.4.4). The word's address is at bit 8, its data at bit 16.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EepromRead: u32 {
        /// Start reading.
        const START = 1 << 0;
        /// The data is there.
        const DONE = 1 << 4;
        const _ = !0;
    }

    /// MDI control (13.4.6): data in bits 15:0, the PHY's register at bit 16, the PHY at bit 21.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MdiControl: u32 {
        /// Write the data.
        const WRITE = 1 << 26;
        /// Read.
        const READ = 1 << 27;
        /// Done.
        const READY = 1 << 28;
        /// The PHY did not answer.
        const ERROR = 1 << 30;
        const _ = !0;
    }

    /// The control register of the PHY (IEEE 802.3, 22.2.4.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PhyControl: u16 {
        /// With [`SPEED_100`](Self::SPEED_100) clear: 1000 Mbit/s.
        const SPEED_1000 = 1 << 6;
        /// Full duplex.
        const FULL_DUPLEX = 1 << 8;
        /// Negotiate again.
        const RESTART = 1 << 9;
        /// Cut off from the MAC.
        const ISOLATE = 1 << 10;
        /// Without power.
        const POWER_DOWN = 1 << 11;
        /// Negotiate.
        const NEGOTIATE = 1 << 12;
        /// 100 Mbit/s.
        const SPEED_100 = 1 << 13;
        /// What is sent is received.
        const LOOP_BACK = 1 << 14;
        const _ = !0;
    }

    /// Receive control (13.4.22). Buffers of 2048 bytes are BSIZE 0 without BSEX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReceiveControl: u32 {
        /// Enable.
        const EN = 1 << 1;
        /// Every unicast address.
        const UPE = 1 << 3;
        /// Every multicast address.
        const MPE = 1 << 4;
        /// Long packets: more than 1522 bytes.
        const LPE = 1 << 5;
        /// Accept broadcast.
        const BAM = 1 << 15;
        /// Filter by VLAN.
        const VFE = 1 << 18;
        /// Strip the frame check sequence.
        const SECRC = 1 << 26;
    }

    /// Transmit control (13.4.33).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransmitControl: u32 {
        /// Enable.
        const EN = 1 << 1;
        /// Pad short packets.
        const PSP = 1 << 3;
        /// Collision threshold 15 (half duplex only).
        const CT_15 = 0x0f << 4;
        /// Collision distance 64 (full duplex).
        const COLD_64 = 0x40 << 12;
    }

    /// Interrupt causes (13.4.17).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Causes: u32 {
        /// A transmit descriptor was written back.
        const TXDW = 1 << 0;
        /// The link changed.
        const LSC = 1 << 2;
        /// Receive buffers run short.
        const RXDMT0 = 1 << 4;
        /// The receive FIFO overran.
        const RXO = 1 << 6;
        /// Something was received.
        const RXT0 = 1 << 7;
    }

    /// Receive checksum control (13.4.31).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReceiveChecksum: u32 {
        /// Check IPv4 headers.
        const IPOFL = 1 << 8;
        /// Check UDP and TCP.
        const TUOFL = 1 << 9;
    }
}

/// The internal PHY's address (8.2).
pub const PHY: u32 = 1;
/// MANC: the management firmware answers ARP.
pub const MANC_ARP: u32 = 1 << 13;
/// The words of the EEPROM that its checksum is over, and what they add up to (5.6.35).
pub const EEPROM_WORDS: u8 = 0x40;
/// What the words of the EEPROM add up to.
pub const EEPROM_SUM: u16 = 0xbaba;
/// RAH: the entry is valid (13.5.2).
pub const RAH_VALID: u32 = 1 << 31;
