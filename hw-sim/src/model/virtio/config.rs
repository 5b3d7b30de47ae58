//! What a device is like, and how its driver reads it (5.1.4).

use hal::MacAddress;

use super::features::Features;

/// What the model is to be.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The station address.
    pub mac: MacAddress,
    /// What it offers.
    pub features: Features,
    /// The largest size of every queue.
    pub queue_size: u16,
    /// How many pairs of queues it has.
    pub pairs: u16,
    /// The MTU of its configuration, in bytes.
    pub mtu: u16,
    /// The speed in Mbit/s.
    pub speed: u32,
    /// The longest key for hashes, in bytes.
    pub hash_key: u8,
    /// The longest indirection table.
    pub indirection_table: u16,
    /// The hash types, as bits of 5.1.6.4.3.1.
    pub hash_types: u32,
}

impl Default for ModelConfig {
    /// [`Features::USUAL`], one pair of queues of 256 entries, an MTU of 1500 bytes.
    fn default() -> Self {
        Self {
            mac: MacAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]),
            features: Features::USUAL,
            queue_size: 256,
            pairs: 1,
            mtu: 1500,
            speed: 10_000,
            hash_key: 40,
            indirection_table: 128,
            hash_types: 0x3f,
        }
    }
}

/// Bits of the status field.
pub(super) const LINK_UP: u16 = 1;
pub(super) const ANNOUNCE: u16 = 2;

impl ModelConfig {
    /// The bytes of the configuration space.
    pub(in crate::model) fn space(&self, mac: MacAddress, status: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend(mac.0);
        bytes.extend(status.to_le_bytes());
        bytes.extend(self.pairs.to_le_bytes());
        bytes.extend(self.mtu.to_le_bytes());
        bytes.extend(self.speed.to_le_bytes());
        bytes.push(1);
        bytes.push(self.hash_key);
        bytes.extend(self.indirection_table.to_le_bytes());
        bytes.extend(self.hash_types.to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// The features without which the field at `offset` does not exist; empty for those that always do.
    pub(super) fn field_features(offset: u32) -> Features {
        match offset {
            0..6 => Features::MAC,
            6..8 => Features::STATUS,
            8..10 => Features::MQ | Features::RSS,
            10..12 => Features::MTU,
            12..17 => Features::SPEED_DUPLEX,
            17..24 => Features::RSS | Features::HASH_REPORT,
            _ => Features::HASH_TUNNEL,
        }
    }
}
