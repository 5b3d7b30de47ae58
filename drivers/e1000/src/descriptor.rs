//! Descriptors of the 8254x: 16 bytes, as two little-endian 64-bit halves (manual 3.2.3, 3.3.3 to 3.3.7).

use bitflags::bitflags;

bitflags! {
    /// DCMD of a data descriptor, TUCMD of a context descriptor (3.3.6, 3.3.7.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u8 {
        /// Data: the last descriptor of the packet.
        const EOP = 1 << 0;
        /// Context: the packet is TCP (otherwise UDP).
        const TCP = 1 << 0;
        /// Data: append the frame check sequence.
        const IFCS = 1 << 1;
        /// Context: the packet is IPv4 (otherwise IPv6).
        const IP = 1 << 1;
        /// Segmentation.
        const TSE = 1 << 2;
        /// Report the status.
        const RS = 1 << 3;
        /// An extended descriptor.
        const DEXT = 1 << 5;
        /// Data: insert a VLAN tag.
        const VLE = 1 << 6;
    }

    /// POPTS of a data descriptor (3.3.7.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct PacketOptions: u8 {
        /// Insert the IP checksum.
        const IXSM = 1 << 0;
        /// Insert the TCP or UDP checksum.
        const TXSM = 1 << 1;
    }

    /// The status byte of a receive descriptor (3.2.3.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RxStatus: u8 {
        /// Descriptor done.
        const DD = 1 << 0;
        /// End of packet.
        const EOP = 1 << 1;
        /// Ignore the checksum bits.
        const IXSM = 1 << 2;
        /// A VLAN packet, its tag stripped.
        const VP = 1 << 3;
        /// The TCP or UDP checksum was calculated.
        const TCPCS = 1 << 5;
        /// The IP checksum was calculated.
        const IPCS = 1 << 6;
        const _ = !0;
    }

    /// The error byte of a receive descriptor (3.2.3.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RxErrors: u8 {
        /// CRC or alignment.
        const CE = 1 << 0;
        /// Symbol.
        const SE = 1 << 1;
        /// Sequence.
        const SEQ = 1 << 2;
        /// Carrier extension.
        const CXE = 1 << 4;
        /// The TCP or UDP checksum is wrong.
        const TCPE = 1 << 5;
        /// The IP checksum is wrong.
        const IPE = 1 << 6;
        /// Data.
        const RXE = 1 << 7;
        const _ = !0;
    }
}

impl RxErrors {
    /// The errors that spoil the packet; a wrong checksum is for the reader to judge.
    pub const SPOILED: Self = Self::CE.union(Self::SE).union(Self::SEQ).union(Self::CXE).union(Self::RXE);
}

/// The command byte of a transmit descriptor is its 12th.
pub const COMMAND_BYTE: usize = 11;
/// The status byte of any descriptor is its 13th.
pub const STATUS_BYTE: usize = 12;
/// The status bit of a transmit descriptor that is done.
pub const TX_DONE: u8 = 1;

/// The most bytes that a data descriptor covers. The field has 20 bits, but parts of the family differ; Linux stays at 4096.
pub const MAX_DATA: u32 = 4096;

const DTYP_DATA: u64 = 1 << 20;

/// The high half of a data descriptor (3.3.7), but for its length, which is the lowest part.
#[inline(always)]
pub fn template(command: Command, options: PacketOptions, vlan_tag: u16) -> u64 {
    DTYP_DATA | u64::from(command.bits()) << 24 | u64::from(options.bits()) << 40 | u64::from(vlan_tag) << 48
}

/// The high half of a data descriptor as the last of its packet.
#[inline(always)]
pub fn end_of_packet(high: u64) -> u64 {
    high | u64::from(Command::EOP.bits()) << 24
}

/// The command byte of the last descriptor of a packet with this high half or template.
#[inline(always)]
pub fn last_command(high: u64) -> Command {
    Command::from_bits_retain((high >> 24) as u8) | Command::EOP
}

/// What a context descriptor says (3.3.6). Offsets in bytes from the start of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Context {
    /// Where the IP checksum starts.
    pub ipcss: u8,
    /// Where it goes.
    pub ipcso: u8,
    /// The last byte that it covers; 0 for the end of the packet.
    pub ipcse: u16,
    /// Where the TCP or UDP checksum starts.
    pub tucss: u8,
    /// Where it goes.
    pub tucso: u8,
    /// TCP, and IPv4, as in the command.
    pub command: u8,
    /// The payload of a packet to be segmented, 20 bits.
    pub payload_len: u32,
    /// The headers of a packet to be segmented.
    pub header_len: u8,
    /// The payload of a segment.
    pub mss: u16,
}

impl Context {
    /// As a descriptor. TUCSE is 0: to the end of the packet.
    pub fn descriptor(&self) -> [u64; 2] {
        let ip = u64::from(self.ipcss) | u64::from(self.ipcso) << 8 | u64::from(self.ipcse) << 16;
        let l4 = u64::from(self.tucss) | u64::from(self.tucso) << 8;
        let command = u64::from(self.command | Command::DEXT.bits()) << 24;
        let segment = u64::from(self.header_len) << 8 | u64::from(self.mss) << 16;
        [ip | l4 << 32, u64::from(self.payload_len & 0xf_ffff) | command | segment << 32]
    }
}

/// What the device wrote into a receive descriptor (3.2.3), read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in this descriptor's buffer.
    pub len: u16,
    /// Status.
    pub status: RxStatus,
    /// Errors, valid with EOP.
    pub errors: RxErrors,
    /// The VLAN tag, valid with VP.
    pub vlan_tag: u16,
}

impl Received {
    /// From the high half of the descriptor.
    #[inline]
    pub fn new(high: u64) -> Self {
        let [len0, len1, _, _, status, errors, tag0, tag1] = high.to_le_bytes();
        Self {
            len: u16::from_le_bytes([len0, len1]),
            status: RxStatus::from_bits_retain(status),
            errors: RxErrors::from_bits_retain(errors),
            vlan_tag: u16::from_le_bytes([tag0, tag1]),
        }
    }

    /// Whether it ends a packet, has bytes, and has no error: a whole packet, unless something came before.
    #[inline(always)]
    pub fn is_whole(self) -> bool {
        self.status.contains(RxStatus::EOP) && self.len > 0 && !self.errors.intersects(RxErrors::SPOILED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_descriptor_has_the_manuals_layout() {
        let template = template(Command::IFCS | Command::DEXT, PacketOptions::IXSM | PacketOptions::TXSM, 0xabcd);
        let middle = template | 1500;
        assert_eq!(middle.to_le_bytes(), [0xdc, 0x05, 0x10, 0x22, 0, 3, 0xcd, 0xab]);
        assert_eq!(end_of_packet(middle).to_le_bytes(), [0xdc, 0x05, 0x10, 0x23, 0, 3, 0xcd, 0xab]);
        assert_eq!((last_command(middle) | Command::RS).bits(), 0x2b);
    }

    #[test]
    fn a_context_descriptor_has_the_manuals_layout() {
        let context = Context {
            ipcss: 14,
            ipcso: 24,
            ipcse: 33,
            tucss: 34,
            tucso: 50,
            command: (Command::TSE | Command::IP | Command::TCP).bits(),
            payload_len: 0x1_2345,
            header_len: 54,
            mss: 1448,
        };
        let [low, high] = context.descriptor();
        assert_eq!(low.to_le_bytes(), [14, 24, 33, 0, 34, 50, 0, 0]);
        assert_eq!(high.to_le_bytes(), [0x45, 0x23, 0x01, 0x27, 0, 54, 0xa8, 0x05]);
    }

    #[test]
    fn a_received_descriptor_is_taken_apart() {
        let received = Received::new(u64::from_le_bytes([0xea, 0x05, 0, 0, 0x0b, 0x01, 0x64, 0x20]));
        assert_eq!(received.len, 1514);
        assert_eq!(received.status, RxStatus::DD | RxStatus::EOP | RxStatus::VP);
        assert_eq!(received.errors, RxErrors::CE);
        assert_eq!(received.vlan_tag, 0x2064);
    }
}
