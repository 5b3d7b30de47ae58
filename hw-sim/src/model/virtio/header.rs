//! The header before every packet, struct virtio_net_hdr (5.1.6).

use super::features::Features;

/// Bits of `flags`.
pub(super) const NEEDS_CSUM: u8 = 1;
pub(super) const DATA_VALID: u8 = 2;
pub(super) const RSC_INFO: u8 = 4;
/// Values of `gso_type`.
pub(super) const GSO_NONE: u8 = 0;
pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_TCPV6: u8 = 4;
pub(super) const GSO_UDP_L4: u8 = 5;
/// A bit beside `gso_type`.
pub(super) const GSO_ECN: u8 = 0x80;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    pub num_buffers: u16,
    pub hash_value: u32,
    pub hash_report: u16,
}

impl Header {
    /// How long it is.
    pub(super) fn size(features: Features) -> usize {
        if features.contains(Features::HASH_REPORT) { 20 } else { 12 }
    }

    /// From the first twelve bytes; the rest of a longer one says nothing to the device.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; 12] = bytes.first_chunk()?;
        let word = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        Some(Self {
            flags: fixed[0],
            gso_type: fixed[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
            hash_value: 0,
            hash_report: 0,
        })
    }

    pub(super) fn bytes(&self, features: Features) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.gso_type];
        for word in [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.hash_value.to_le_bytes());
        bytes.extend(self.hash_report.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.truncate(Self::size(features));
        bytes
    }
}
