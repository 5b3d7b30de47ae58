//! Feature bits (VIRTIO 1.3, 5.1.3 and 6).
#![allow(missing_docs)] // the constants are the specification's names

use bitflags::bitflags;

bitflags! {
    /// What a device offers and a driver accepts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        const CSUM = 1 << 0;
        const GUEST_CSUM = 1 << 1;
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        const MTU = 1 << 3;
        const MAC = 1 << 5;
        const GUEST_TSO4 = 1 << 7;
        const GUEST_TSO6 = 1 << 8;
        const GUEST_ECN = 1 << 9;
        const GUEST_UFO = 1 << 10;
        const HOST_TSO4 = 1 << 11;
        const HOST_TSO6 = 1 << 12;
        const HOST_ECN = 1 << 13;
        const HOST_UFO = 1 << 14;
        const MRG_RXBUF = 1 << 15;
        const STATUS = 1 << 16;
        const CTRL_VQ = 1 << 17;
        const CTRL_RX = 1 << 18;
        const CTRL_VLAN = 1 << 19;
        const CTRL_RX_EXTRA = 1 << 20;
        const GUEST_ANNOUNCE = 1 << 21;
        const MQ = 1 << 22;
        const CTRL_MAC_ADDR = 1 << 23;
        const INDIRECT_DESC = 1 << 28;
        const EVENT_IDX = 1 << 29;
        const VERSION_1 = 1 << 32;
        const ACCESS_PLATFORM = 1 << 33;
        const RING_PACKED = 1 << 34;
        const IN_ORDER = 1 << 35;
        const ORDER_PLATFORM = 1 << 36;
        const NOTIFICATION_DATA = 1 << 38;
        const RING_RESET = 1 << 40;
        const HASH_TUNNEL = 1 << 51;
        const VQ_NOTF_COAL = 1 << 52;
        const NOTF_COAL = 1 << 53;
        const GUEST_USO4 = 1 << 54;
        const GUEST_USO6 = 1 << 55;
        const HOST_USO = 1 << 56;
        const HASH_REPORT = 1 << 57;
        const GUEST_HDRLEN = 1 << 59;
        const RSS = 1 << 60;
        const RSC_EXT = 1 << 61;
        const STANDBY = 1 << 62;
        const SPEED_DUPLEX = 1 << 63;
        const _ = !0;
    }
}

impl Features {
    /// What the model offers unless it is told otherwise: split rings, completions in any order, and everything of the network device that
    /// the model does, but hashes.
    pub const USUAL: Self = Self::VERSION_1
        .union(Self::ACCESS_PLATFORM)
        .union(Self::ORDER_PLATFORM)
        .union(Self::INDIRECT_DESC)
        .union(Self::EVENT_IDX)
        .union(Self::RING_RESET)
        .union(Self::CSUM)
        .union(Self::HOST_TSO4)
        .union(Self::HOST_TSO6)
        .union(Self::HOST_ECN)
        .union(Self::HOST_USO)
        .union(Self::GUEST_HDRLEN)
        .union(Self::GUEST_CSUM)
        .union(Self::LARGE_RECEIVE.difference(Self::GUEST_UFO))
        .union(Self::CTRL_GUEST_OFFLOADS)
        .union(Self::MRG_RXBUF)
        .union(Self::MAC)
        .union(Self::MTU)
        .union(Self::STATUS)
        .union(Self::SPEED_DUPLEX)
        .union(Self::CTRL_VQ)
        .union(Self::CTRL_RX)
        .union(Self::CTRL_RX_EXTRA)
        .union(Self::CTRL_VLAN)
        .union(Self::CTRL_MAC_ADDR)
        .union(Self::GUEST_ANNOUNCE)
        .union(Self::MQ)
        .union(Self::NOTF_COAL)
        .union(Self::VQ_NOTF_COAL);

    /// What lets a packet larger than the MTU arrive.
    pub const LARGE_RECEIVE: Self =
        Self::GUEST_TSO4.union(Self::GUEST_TSO6).union(Self::GUEST_USO4).union(Self::GUEST_USO6).union(Self::GUEST_UFO);

    /// What the control queue can switch at run time (5.1.6.5.8.1).
    pub(super) const GUEST_OFFLOADS: Self = Self::GUEST_CSUM.union(Self::LARGE_RECEIVE).union(Self::GUEST_ECN).union(Self::RSC_EXT);

    /// What is missing for some of these to be accepted (5.1.3.1): (feature, what it requires one of).
    pub(super) fn unmet(self) -> Vec<String> {
        let tso = Self::HOST_TSO4 | Self::HOST_TSO6;
        let guest_tso = Self::GUEST_TSO4 | Self::GUEST_TSO6;
        let needs_control = [
            Self::CTRL_RX,
            Self::CTRL_RX_EXTRA,
            Self::CTRL_VLAN,
            Self::GUEST_ANNOUNCE,
            Self::MQ,
            Self::CTRL_MAC_ADDR,
            Self::CTRL_GUEST_OFFLOADS,
            Self::RSS,
            Self::HASH_REPORT,
            Self::NOTF_COAL,
            Self::VQ_NOTF_COAL,
            Self::HASH_TUNNEL,
        ];
        let rules = Self::LARGE_RECEIVE
            .iter()
            .map(|feature| (feature, Self::GUEST_CSUM))
            .chain((tso | Self::HOST_UFO | Self::HOST_USO).iter().map(|feature| (feature, Self::CSUM)))
            .chain(needs_control.into_iter().map(|feature| (feature, Self::CTRL_VQ)))
            .chain([
                (Self::GUEST_ECN, guest_tso),
                (Self::HOST_ECN, tso),
                (Self::RSC_EXT, tso),
                (Self::HASH_TUNNEL, Self::RSS | Self::HASH_REPORT),
                (Self::ACCESS_PLATFORM, Self::VERSION_1),
            ]);
        rules
            .filter(|(feature, required)| self.contains(*feature) && !self.intersects(*required))
            .map(|(feature, required)| format!("{} was accepted without {} [5.1.3.1]", name(feature), name(required)))
            .collect()
    }
}

/// The names of features, for messages.
pub(super) fn name(features: Features) -> String {
    features.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" or ")
}
