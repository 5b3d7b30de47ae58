//! Descriptors as they lie in memory: legacy transmit (3.3.3), context (3.3.6), data (3.3.7) and receive (3.2.3).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The size of every descriptor.
pub(super) const SIZE: u64 = 16;

/// A descriptor as it was fetched.
pub(super) type Raw = [u8; SIZE as usize];

/// The only bit of the transmit status that these parts write: descriptor done.
pub(super) const STA_DD: u8 = 1 << 0;

/// The legacy transmit descriptor, table 3-8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(super) struct LegacyDescriptor {
    pub address: U64,
    pub length: U16,
    pub cso: u8,
    pub cmd: u8,
    /// STA in the lower half, reserved in the upper.
    pub sta: u8,
    pub css: u8,
    pub special: U16,
}

/// The TCP/IP context descriptor, table 3-13.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(super) struct ContextDescriptor {
    pub ipcss: u8,
    pub ipcso: u8,
    pub ipcse: U16,
    pub tucss: u8,
    pub tucso: u8,
    pub tucse: U16,
    /// PAYLEN in bits 19:0, DTYP in 23:20, TUCMD in 31:24.
    pub paylen_dtyp_tucmd: U32,
    /// STA in the lower half, reserved in the upper.
    pub sta: u8,
    pub hdrlen: u8,
    pub mss: U16,
}

/// The TCP/IP data descriptor, table 3-17.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(super) struct DataDescriptor {
    pub address: U64,
    /// DTALEN in bits 19:0, DTYP in 23:20, DCMD in 31:24.
    pub dtalen_dtyp_dcmd: U32,
    /// STA in the lower half, reserved in the upper.
    pub sta: u8,
    pub popts: u8,
    pub special: U16,
}

/// The receive descriptor, table 3-1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(super) struct ReceiveDescriptor {
    pub address: U64,
    pub length: U16,
    pub checksum: U16,
    pub status: u8,
    pub errors: u8,
    pub special: U16,
}

bitflags! {
    /// CMD of a legacy descriptor (3.3.3.1), where IC is in the place of TSE, and DCMD of a data descriptor (3.3.7.1).
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Command: u8 {
        const EOP = 1 << 0;
        const IFCS = 1 << 1;
        const IC = 1 << 2;
        const TSE = 1 << 2;
        const RS = 1 << 3;
        const RPS = 1 << 4;
        const DEXT = 1 << 5;
        const VLE = 1 << 6;
        const IDE = 1 << 7;
    }

    /// TUCMD of a context descriptor, 3.3.6.1.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct ContextCommand: u8 {
        const TCP = 1 << 0;
        const IP = 1 << 1;
        const TSE = 1 << 2;
        const RS = 1 << 3;
        const DEXT = 1 << 5;
        const IDE = 1 << 7;
        const _ = !0;
    }

    /// POPTS of a data descriptor, 3.3.7.3.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Options: u8 {
        const IXSM = 1 << 0;
        const TXSM = 1 << 1;
        const _ = !0;
    }

    /// Status of a receive descriptor, 3.2.3.1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub(super) struct RxStatus: u8 {
        const DD = 1 << 0;
        const EOP = 1 << 1;
        const IXSM = 1 << 2;
        const VP = 1 << 3;
        const TCPCS = 1 << 5;
        const IPCS = 1 << 6;
        const PIF = 1 << 7;
    }

    /// Errors of a receive descriptor, 3.2.3.2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub(super) struct RxErrors: u8 {
        const CE = 1 << 0;
        const TCPE = 1 << 5;
        const IPE = 1 << 6;
    }
}

/// A transmit descriptor, told apart by DEXT and DTYP (3.3.2).
#[derive(Clone, Copy)]
pub(super) enum TransmitDescriptor {
    Legacy(LegacyDescriptor),
    Context(ContextDescriptor),
    Data(DataDescriptor),
    /// DEXT with a DTYP that means nothing.
    Unknown(u8),
}

impl TransmitDescriptor {
    pub(super) fn parse(raw: Raw) -> Self {
        let command = Command::from_bits_retain(raw[11]);
        match raw[10] >> 4 {
            _ if !command.contains(Command::DEXT) => Self::Legacy(zerocopy::transmute!(raw)),
            0 => Self::Context(zerocopy::transmute!(raw)),
            1 => Self::Data(zerocopy::transmute!(raw)),
            other => Self::Unknown(other),
        }
    }
}

impl ContextDescriptor {
    pub(super) fn command(&self) -> ContextCommand {
        ContextCommand::from_bits_retain((self.paylen_dtyp_tucmd.get() >> 24) as u8)
    }

    /// Payload bytes of the segmentation, without the header.
    pub(super) fn paylen(&self) -> usize {
        (self.paylen_dtyp_tucmd.get() & 0xf_ffff) as usize
    }
}

impl DataDescriptor {
    pub(super) fn command(&self) -> Command {
        Command::from_bits_retain((self.dtalen_dtyp_dcmd.get() >> 24) as u8)
    }

    pub(super) fn length(&self) -> usize {
        (self.dtalen_dtyp_dcmd.get() & 0xf_ffff) as usize
    }
}
