//! The registers of the 82540EM (chapter 13): offsets in bytes, bits, and which bits are reserved.

use bitflags::bitflags;

use super::statistics;

/// The size of the register space, 13.2.
pub(super) const SPACE: u64 = 128 << 10;

pub(super) const CTRL: u64 = 0x0000;
pub(super) const STATUS: u64 = 0x0008;
pub(super) const EECD: u64 = 0x0010;
pub(super) const EERD: u64 = 0x0014;
pub(super) const CTRL_EXT: u64 = 0x0018;
pub(super) const MDIC: u64 = 0x0020;
pub(super) const FCAL: u64 = 0x0028;
pub(super) const FCAH: u64 = 0x002c;
pub(super) const FCT: u64 = 0x0030;
pub(super) const VET: u64 = 0x0038;
pub(super) const ICR: u64 = 0x00c0;
pub(super) const ITR: u64 = 0x00c4;
pub(super) const ICS: u64 = 0x00c8;
pub(super) const IMS: u64 = 0x00d0;
pub(super) const IMC: u64 = 0x00d8;
pub(super) const RCTL: u64 = 0x0100;
pub(super) const FCTTV: u64 = 0x0170;
pub(super) const TXCW: u64 = 0x0178;
pub(super) const RXCW: u64 = 0x0180;
pub(super) const TCTL: u64 = 0x0400;
pub(super) const TIPG: u64 = 0x0410;
pub(super) const AIT: u64 = 0x0458;
pub(super) const LEDCTL: u64 = 0x0e00;
pub(super) const PBA: u64 = 0x1000;
pub(super) const FCRTL: u64 = 0x2160;
pub(super) const FCRTH: u64 = 0x2168;
pub(super) const RDBAL: u64 = 0x2800;
pub(super) const RDBAH: u64 = 0x2804;
pub(super) const RDLEN: u64 = 0x2808;
pub(super) const RDH: u64 = 0x2810;
pub(super) const RDT: u64 = 0x2818;
pub(super) const RDTR: u64 = 0x2820;
pub(super) const RXDCTL: u64 = 0x2828;
pub(super) const RADV: u64 = 0x282c;
pub(super) const RSRPD: u64 = 0x2c00;
pub(super) const TXDMAC: u64 = 0x3000;
pub(super) const TDBAL: u64 = 0x3800;
pub(super) const TDBAH: u64 = 0x3804;
pub(super) const TDLEN: u64 = 0x3808;
pub(super) const TDH: u64 = 0x3810;
pub(super) const TDT: u64 = 0x3818;
pub(super) const TIDV: u64 = 0x3820;
pub(super) const TXDCTL: u64 = 0x3828;
pub(super) const TADV: u64 = 0x382c;
pub(super) const TSPMT: u64 = 0x3830;
pub(super) const RXCSUM: u64 = 0x5000;
pub(super) const MTA: u64 = 0x5200;
pub(super) const MTA_LAST: u64 = 0x53fc;
pub(super) const RAL0: u64 = 0x5400;
pub(super) const RAH0: u64 = 0x5404;
pub(super) const RAH_LAST: u64 = 0x547c;
pub(super) const VFTA: u64 = 0x5600;
pub(super) const VFTA_LAST: u64 = 0x57fc;
pub(super) const WUC: u64 = 0x5800;
pub(super) const WUFC: u64 = 0x5808;
pub(super) const WUS: u64 = 0x5810;
pub(super) const MANC: u64 = 0x5820;
pub(super) const IPAV: u64 = 0x5838;

/// How many pairs of RAL and RAH there are.
pub(super) const RECEIVE_ADDRESSES: u64 = 16;

bitflags! {
    /// Device control, 13.4.1.
    #[derive(Clone, Copy)]
    pub(super) struct Ctrl: u32 {
        const FD = 1 << 0;
        const SLU = 1 << 6;
        const SPEED_1000 = 0b10 << 8;
        const RST = 1 << 26;
        const VME = 1 << 30;
        const PHY_RST = 1 << 31;
        const _ = !0;
    }

    /// Device status, 13.4.2.
    #[derive(Clone, Copy)]
    pub(super) struct Status: u32 {
        const FD = 1 << 0;
        const LU = 1 << 1;
        const TXOFF = 1 << 4;
        const SPEED_1000 = 0b10 << 6;
        const ASDV_1000 = 0b10 << 8;
        const _ = !0;
    }

    /// Receive control, 13.4.22.
    #[derive(Clone, Copy)]
    pub(super) struct Rctl: u32 {
        const EN = 1 << 1;
        const SBP = 1 << 2;
        const UPE = 1 << 3;
        const MPE = 1 << 4;
        const LPE = 1 << 5;
        const LBM = 0b11 << 6;
        const RDMTS = 0b11 << 8;
        const MO = 0b11 << 12;
        const BAM = 1 << 15;
        const BSIZE = 0b11 << 16;
        const VFE = 1 << 18;
        const CFIEN = 1 << 19;
        const CFI = 1 << 20;
        const BSEX = 1 << 25;
        const SECRC = 1 << 26;
        const _ = !0;
    }

    /// Transmit control, 13.4.33.
    #[derive(Clone, Copy)]
    pub(super) struct Tctl: u32 {
        const EN = 1 << 1;
        const PSP = 1 << 3;
        const COLD = 0x3ff << 12;
        const _ = !0;
    }

    /// Interrupt causes, 13.4.17.
    #[derive(Clone, Copy, Default)]
    pub(super) struct Cause: u32 {
        const TXDW = 1 << 0;
        const TXQE = 1 << 1;
        const LSC = 1 << 2;
        const RXDMT0 = 1 << 4;
        const RXO = 1 << 6;
        const RXT0 = 1 << 7;
        const MDAC = 1 << 9;
        const TXD_LOW = 1 << 15;
        const _ = !0;
    }

    /// Receive checksum control, 13.4.45: the low byte is PCSS.
    #[derive(Clone, Copy)]
    pub(super) struct Rxcsum: u32 {
        const IPOFLD = 1 << 8;
        const TUOFLD = 1 << 9;
        const _ = !0;
    }
}

/// RAH.AV, 13.5.3.
pub(super) const RAH_AV: u32 = 1 << 31;

/// What may be done with a register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
    WriteOnly,
    Statistic,
}

/// A register of the manual.
pub(super) struct Known {
    pub name: &'static str,
    pub access: Access,
    /// Bits that have to be written as 0.
    pub reserved: u32,
}

/// The register at `offset`, if the manual has one there for the 82540EM.
pub(super) fn known(offset: u64) -> Option<Known> {
    use Access::{ReadOnly, ReadWrite, Statistic, WriteOnly};
    const HIGH_HALF: u32 = 0xffff_0000;
    let (name, access, reserved) = match offset {
        CTRL => ("CTRL", ReadWrite, 0x2303_e416),
        STATUS => ("STATUS", ReadOnly, 0),
        EECD => ("EECD", ReadWrite, 0),
        EERD => ("EERD", ReadWrite, 0),
        CTRL_EXT => ("CTRL_EXT", ReadWrite, 0),
        MDIC => ("MDIC", ReadWrite, 1 << 31),
        FCAL => ("FCAL", ReadWrite, 0),
        FCAH => ("FCAH", ReadWrite, HIGH_HALF),
        FCT => ("FCT", ReadWrite, HIGH_HALF),
        VET => ("VET", ReadWrite, HIGH_HALF),
        ICR => ("ICR", ReadWrite, 0),
        ITR => ("ITR", ReadWrite, HIGH_HALF),
        ICS => ("ICS", WriteOnly, 0),
        // 13.4.20 and 13.4.21 ask for ones in the reserved bits of IMC, so neither has bits to keep 0.
        IMS => ("IMS", ReadWrite, 0),
        IMC => ("IMC", WriteOnly, 0),
        RCTL => ("RCTL", ReadWrite, 0xf920_4c01),
        FCTTV => ("FCTTV", ReadWrite, HIGH_HALF),
        TXCW => ("TXCW", ReadWrite, 0),
        RXCW => ("RXCW", ReadOnly, 0),
        TCTL => ("TCTL", ReadWrite, 0xfe80_0005),
        TIPG => ("TIPG", ReadWrite, 0xc000_0000),
        AIT => ("AIT", ReadWrite, HIGH_HALF),
        LEDCTL => ("LEDCTL", ReadWrite, 0),
        PBA => ("PBA", ReadWrite, 0),
        FCRTL => ("FCRTL", ReadWrite, 0),
        FCRTH => ("FCRTH", ReadWrite, 0),
        RDBAL => ("RDBAL", ReadWrite, 0),
        RDBAH => ("RDBAH", ReadWrite, 0),
        RDLEN => ("RDLEN", ReadWrite, 0xfff0_0000),
        RDH => ("RDH", ReadWrite, HIGH_HALF),
        RDT => ("RDT", ReadWrite, HIGH_HALF),
        RDTR => ("RDTR", ReadWrite, 0x7fff_0000),
        RXDCTL => ("RXDCTL", ReadWrite, 0xfec0_c0c0),
        RADV => ("RADV", ReadWrite, HIGH_HALF),
        RSRPD => ("RSRPD", ReadWrite, 0xffff_f000),
        TXDMAC => ("TXDMAC", ReadWrite, 0),
        TDBAL => ("TDBAL", ReadWrite, 0),
        TDBAH => ("TDBAH", ReadWrite, 0),
        TDLEN => ("TDLEN", ReadWrite, 0xfff0_0000),
        TDH => ("TDH", ReadWrite, HIGH_HALF),
        TDT => ("TDT", ReadWrite, HIGH_HALF),
        TIDV => ("TIDV", ReadWrite, HIGH_HALF),
        TXDCTL => ("TXDCTL", ReadWrite, 0x00c0_c0c0),
        TADV => ("TADV", ReadWrite, HIGH_HALF),
        TSPMT => ("TSPMT", ReadWrite, 0),
        RXCSUM => ("RXCSUM", ReadWrite, 0xffff_fc00),
        MTA..=MTA_LAST => ("MTA", ReadWrite, 0),
        RAL0..=RAH_LAST if offset & 4 == 0 => ("RAL", ReadWrite, 0),
        RAL0..=RAH_LAST => ("RAH", ReadWrite, 0x7ffc_0000),
        VFTA..=VFTA_LAST => ("VFTA", ReadWrite, 0),
        WUC => ("WUC", ReadWrite, 0),
        WUFC => ("WUFC", ReadWrite, 0),
        WUS => ("WUS", ReadWrite, 0),
        MANC => ("MANC", ReadWrite, 0),
        IPAV => ("IPAV", ReadWrite, 0),
        _ => (statistics::name(offset)?, Statistic, 0),
    };
    Some(Known { name, access, reserved })
}

/// The registers' values.
pub(super) struct RegisterFile(Box<[u32]>);

impl RegisterFile {
    pub(super) fn new() -> Self {
        Self(vec![0; (SPACE / 4) as usize].into_boxed_slice())
    }

    /// 0 outside the register space.
    pub(super) fn get(&self, offset: u64) -> u32 {
        self.0.get((offset / 4) as usize).copied().unwrap_or(0)
    }

    /// Nothing outside the register space.
    pub(super) fn set(&mut self, offset: u64, value: u32) {
        if let Some(register) = self.0.get_mut((offset / 4) as usize) {
            *register = value;
        }
    }
}
