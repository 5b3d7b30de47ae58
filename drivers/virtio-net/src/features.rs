//! The features of a virtio network device, and which of them the driver accepts (VIRTIO 1.3, 5.1.3 and 6).

use bitflags::bitflags;
use hal::{FeatureReport, NicError, OffloadFlags};

use crate::config::{Packed, VirtioNetConfig};

bitflags! {
    /// Feature bits, as the specification names them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// The device takes frames whose checksum is partial.
        const CSUM = 1 << 0;
        /// The driver takes packets whose checksum is partial.
        const GUEST_CSUM = 1 << 1;
        /// The driver can change what it takes at run time.
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        /// The device says the largest MTU.
        const MTU = 1 << 3;
        /// The device has an address.
        const MAC = 1 << 5;
        /// Legacy: the device cuts whatever.
        const GSO = 1 << 6;
        /// The driver takes joined TCP over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes joined TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes joined TCP with congestion marks.
        const GUEST_ECN = 1 << 9;
        /// The driver takes joined UDP fragments.
        const GUEST_UFO = 1 << 10;
        /// The device cuts TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device cuts TCP with congestion marks.
        const HOST_ECN = 1 << 13;
        /// The device fragments UDP.
        const HOST_UFO = 1 << 14;
        /// A packet may lie in several receive buffers.
        const MRG_RXBUF = 1 << 15;
        /// The configuration says the state of the link.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// Receive modes can be set.
        const CTRL_RX = 1 << 18;
        /// VLANs are filtered.
        const CTRL_VLAN = 1 << 19;
        /// Further receive modes can be set.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The device asks the driver to announce itself.
        const GUEST_ANNOUNCE = 1 << 21;
        /// There are several queue pairs.
        const MQ = 1 << 22;
        /// The address can be set.
        const CTRL_MAC_ADDR = 1 << 23;
        /// The device may be rung with any length of notification data (legacy).
        const NOTIFY_ON_EMPTY = 1 << 24;
        /// Header and data may share descriptors (legacy; version 1 includes it).
        const ANY_LAYOUT = 1 << 27;
        /// Chains can lie outside the ring.
        const INDIRECT_DESC = 1 << 28;
        /// Notifications name the entry from which on they are wanted.
        const EVENT_IDX = 1 << 29;
        /// The device follows VIRTIO 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// The device's accesses go through the platform's IOMMU.
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed rings.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were posted.
        const IN_ORDER = 1 << 35;
        /// Memory is ordered as for a device of hardware.
        const ORDER_PLATFORM = 1 << 36;
        /// Virtual functions.
        const SR_IOV = 1 << 37;
        /// Notifications carry the ring's index.
        const NOTIFICATION_DATA = 1 << 38;
        /// The driver uses the notification data that the device gives.
        const NOTIF_CONFIG_DATA = 1 << 39;
        /// A queue can be reset alone.
        const RING_RESET = 1 << 40;
        /// The device counts, a queue at a time.
        const DEVICE_STATS = 1 << 50;
        /// Interrupts are moderated, a queue at a time.
        const VQ_NOTF_COAL = 1 << 52;
        /// Interrupts are moderated.
        const NOTF_COAL = 1 << 53;
        /// The driver takes joined UDP over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes joined UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts UDP.
        const HOST_USO = 1 << 56;
        /// Received packets carry the hash of their flow.
        const HASH_REPORT = 1 << 57;
        /// The driver gives the exact length of the headers of frames to be cut.
        const GUEST_HDRLEN = 1 << 59;
        /// Received packets are spread over the queues by their flow.
        const RSS = 1 << 60;
        /// Joined packets say how many segments they were.
        const RSC_EXT = 1 << 61;
        /// A standby for another device.
        const STANDBY = 1 << 62;
        /// The configuration says the link's speed.
        const SPEED_DUPLEX = 1 << 63;
        const _ = !0;
    }
}

/// What the driver thinks of a feature.
struct Row {
    bit: Features,
    name: &'static str,
    /// What it is for; for what is never accepted, why.
    note: &'static str,
    /// What has to be accepted with it.
    needs: Features,
    wanted: Want,
}

enum Want {
    /// Whenever it is offered.
    Yes,
    /// Never.
    No,
    /// When the function finds no reason against it.
    When(fn(&VirtioNetConfig) -> Option<&'static str>),
}

const fn row(bit: Features, name: &'static str, needs: Features, wanted: Want, note: &'static str) -> Row {
    Row { bit, name, note, needs, wanted }
}

const NONE: Features = Features::empty();
const CONTROL: Features = Features::CTRL_VQ;

fn unless(wanted: bool, why: &'static str) -> Option<&'static str> {
    (!wanted).then_some(why)
}

fn offload(config: &VirtioNetConfig, flag: OffloadFlags) -> Option<&'static str> {
    unless(config.offloads.intersects(flag), "left to software by the configuration")
}

fn joined(config: &VirtioNetConfig) -> Option<&'static str> {
    unless(config.lro, "the configuration does not ask for joined packets (lro)")
}

/// All features that can be named, in the order of their bits.
static TABLE: &[Row] = &[
    row(
        Features::CSUM,
        "VIRTIO_NET_F_CSUM",
        NONE,
        Want::When(|config| offload(config, OffloadFlags::UDP_CHECKSUM.union(OffloadFlags::TCP_CHECKSUM).union(OffloadFlags::CUTTING))),
        "the device fills UDP and TCP checksums",
    ),
    row(
        Features::GUEST_CSUM,
        "VIRTIO_NET_F_GUEST_CSUM",
        NONE,
        Want::When(|config| unless(config.rx_checksum, "the configuration wants every checksum on the wire (rx_checksum)")),
        "the device says which checksums are good",
    ),
    row(
        Features::CTRL_GUEST_OFFLOADS,
        "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS",
        CONTROL,
        Want::Yes,
        "receive offloads can be changed at run time",
    ),
    row(Features::MTU, "VIRTIO_NET_F_MTU", NONE, Want::Yes, "the device says the largest packet"),
    row(Features::MAC, "VIRTIO_NET_F_MAC", NONE, Want::Yes, "the device has a station address"),
    row(
        Features::GUEST_TSO4,
        "VIRTIO_NET_F_GUEST_TSO4",
        Features::GUEST_CSUM.union(Features::MRG_RXBUF),
        Want::When(joined),
        "joins TCP packets over IPv4",
    ),
    row(
        Features::GUEST_TSO6,
        "VIRTIO_NET_F_GUEST_TSO6",
        Features::GUEST_CSUM.union(Features::MRG_RXBUF),
        Want::When(joined),
        "joins TCP packets over IPv6",
    ),
    row(Features::GUEST_ECN, "VIRTIO_NET_F_GUEST_ECN", NONE, Want::No, "packets with congestion marks come one by one"),
    row(Features::GUEST_UFO, "VIRTIO_NET_F_GUEST_UFO", NONE, Want::No, "fragments are not asked for; GUEST_USO joins whole datagrams"),
    row(
        Features::HOST_TSO4,
        "VIRTIO_NET_F_HOST_TSO4",
        Features::CSUM,
        Want::When(|config| offload(config, OffloadFlags::TCP4_SEGMENTATION)),
        "the device cuts TCP over IPv4",
    ),
    row(
        Features::HOST_TSO6,
        "VIRTIO_NET_F_HOST_TSO6",
        Features::CSUM,
        Want::When(|config| offload(config, OffloadFlags::TCP6_SEGMENTATION)),
        "the device cuts TCP over IPv6",
    ),
    row(Features::HOST_ECN, "VIRTIO_NET_F_HOST_ECN", NONE, Want::No, "frames to be cut carry no congestion mark of their own"),
    row(Features::HOST_UFO, "VIRTIO_NET_F_HOST_UFO", NONE, Want::No, "UDP is cut into datagrams (HOST_USO), not into fragments"),
    row(
        Features::MRG_RXBUF,
        "VIRTIO_NET_F_MRG_RXBUF",
        NONE,
        Want::When(|config| unless(config.merges(), "every packet fits into one receive buffer")),
        "a packet may fill several receive buffers",
    ),
    row(Features::STATUS, "VIRTIO_NET_F_STATUS", NONE, Want::Yes, "the device says the state of the link"),
    row(Features::CTRL_VQ, "VIRTIO_NET_F_CTRL_VQ", NONE, Want::Yes, "the device takes commands"),
    row(Features::CTRL_RX, "VIRTIO_NET_F_CTRL_RX", CONTROL, Want::Yes, "promiscuous, all-multicast"),
    row(
        Features::CTRL_VLAN,
        "VIRTIO_NET_F_CTRL_VLAN",
        CONTROL,
        Want::When(|config| unless(!config.filter.vlans.is_empty(), "the filter has no VLANs, and the device would let none through")),
        "VLANs are filtered",
    ),
    row(Features::CTRL_RX_EXTRA, "VIRTIO_NET_F_CTRL_RX_EXTRA", CONTROL, Want::Yes, "no broadcast, and other modes"),
    row(
        Features::GUEST_ANNOUNCE,
        "VIRTIO_NET_F_GUEST_ANNOUNCE",
        CONTROL.union(Features::STATUS),
        Want::Yes,
        "the device asks for an announcement after a migration",
    ),
    row(
        Features::MQ,
        "VIRTIO_NET_F_MQ",
        CONTROL,
        Want::When(|config| unless(config.queue_pairs > 1, "one queue pair is configured")),
        "several queue pairs",
    ),
    row(Features::CTRL_MAC_ADDR, "VIRTIO_NET_F_CTRL_MAC_ADDR", CONTROL, Want::Yes, "the station address can be set"),
    row(Features::GSO, "VIRTIO_NET_F_GSO", NONE, Want::No, "legacy; HOST_TSO4 and the others say it better"),
    row(Features::NOTIFY_ON_EMPTY, "VIRTIO_F_NOTIFY_ON_EMPTY", NONE, Want::No, "legacy; EVENT_IDX is used instead"),
    row(Features::ANY_LAYOUT, "VIRTIO_F_ANY_LAYOUT", NONE, Want::No, "legacy; VERSION_1 includes it"),
    row(Features::INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC", NONE, Want::Yes, "a frame of several pieces takes one descriptor"),
    row(Features::EVENT_IDX, "VIRTIO_F_EVENT_IDX", NONE, Want::Yes, "doorbells and interrupts only when they are waited for"),
    row(Features::VERSION_1, "VIRTIO_F_VERSION_1", NONE, Want::Yes, "the specification from 1.0 on; required"),
    row(Features::ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM", NONE, Want::Yes, "the device goes through the IOMMU"),
    row(
        Features::RING_PACKED,
        "VIRTIO_F_RING_PACKED",
        Features::VERSION_1,
        Want::When(|config| unless(config.packed != Packed::Off, "the configuration wants split rings (packed=off)")),
        "packed rings",
    ),
    row(Features::IN_ORDER, "VIRTIO_F_IN_ORDER", NONE, Want::Yes, "completions are counted, not looked up"),
    row(Features::ORDER_PLATFORM, "VIRTIO_F_ORDER_PLATFORM", NONE, Want::Yes, "barriers as for hardware"),
    row(Features::SR_IOV, "VIRTIO_F_SR_IOV", NONE, Want::No, "virtual functions are made by the host's administrator"),
    row(Features::NOTIFICATION_DATA, "VIRTIO_F_NOTIFICATION_DATA", NONE, Want::No, "doorbells carry the queue's number"),
    row(Features::NOTIF_CONFIG_DATA, "VIRTIO_F_NOTIF_CONFIG_DATA", NONE, Want::No, "doorbells carry the queue's number"),
    row(Features::RING_RESET, "VIRTIO_F_RING_RESET", NONE, Want::Yes, "one queue can be reset alone"),
    row(Features::DEVICE_STATS, "VIRTIO_NET_F_DEVICE_STATS", NONE, Want::No, "the driver counts by itself"),
    row(Features::VQ_NOTF_COAL, "VIRTIO_NET_F_VQ_NOTF_COAL", NONE, Want::No, "all queues are moderated alike (NOTF_COAL)"),
    row(Features::NOTF_COAL, "VIRTIO_NET_F_NOTF_COAL", CONTROL, Want::Yes, "interrupts can be moderated"),
    row(
        Features::GUEST_USO4,
        "VIRTIO_NET_F_GUEST_USO4",
        Features::GUEST_CSUM.union(Features::MRG_RXBUF),
        Want::When(joined),
        "joins UDP packets over IPv4",
    ),
    row(
        Features::GUEST_USO6,
        "VIRTIO_NET_F_GUEST_USO6",
        Features::GUEST_CSUM.union(Features::MRG_RXBUF),
        Want::When(joined),
        "joins UDP packets over IPv6",
    ),
    row(
        Features::HOST_USO,
        "VIRTIO_NET_F_HOST_USO",
        Features::CSUM,
        Want::When(|config| offload(config, OffloadFlags::UDP_SEGMENTATION)),
        "the device cuts UDP",
    ),
    row(
        Features::HASH_REPORT,
        "VIRTIO_NET_F_HASH_REPORT",
        CONTROL,
        Want::When(|config| unless(config.hash_report, "the configuration does not ask for hashes (hash_report)")),
        "received packets carry their flow's hash",
    ),
    row(Features::GUEST_HDRLEN, "VIRTIO_NET_F_GUEST_HDRLEN", NONE, Want::Yes, "header lengths of frames to be cut are exact"),
    row(
        Features::RSS,
        "VIRTIO_NET_F_RSS",
        CONTROL,
        Want::When(|config| unless(config.rss.is_some(), "the configuration has no RSS table")),
        "packets are spread over the queues by their flow",
    ),
    row(Features::RSC_EXT, "VIRTIO_NET_F_RSC_EXT", NONE, Want::No, "counts of joined segments are not used"),
    row(Features::STANDBY, "VIRTIO_NET_F_STANDBY", NONE, Want::No, "the driver takes no primary device"),
    row(Features::SPEED_DUPLEX, "VIRTIO_NET_F_SPEED_DUPLEX", NONE, Want::Yes, "the device says the speed of the link"),
];

/// What was agreed on with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    offered: Features,
    accepted: Features,
    /// What the device has, and the transport cannot offer.
    withheld: Features,
}

impl Negotiated {
    /// Chooses from what the device offers.
    ///
    /// # Errors
    /// [`NicError::WrongDevice`] for a device that cannot be driven so; [`NicError::Config`] for what the configuration insists on in vain.
    pub fn new(offered: u64, config: &VirtioNetConfig) -> Result<Self, NicError> {
        let offered = Features::from_bits_retain(offered);
        let mut accepted = TABLE.iter().filter(|row| row.reason(offered, config).is_none()).fold(NONE, |sum, row| sum | row.bit);
        // What is dropped may be needed by another.
        while let Some(row) = TABLE.iter().find(|row| accepted.contains(row.bit) && !accepted.contains(row.needs)) {
            accepted -= row.bit;
        }
        let this = Self { offered, accepted, withheld: NONE };
        this.check(config)?;
        Ok(this)
    }

    /// For the report: these the device has, and the transport cannot offer.
    pub(crate) fn with_withheld(self, withheld: u64) -> Self {
        Self { withheld: Features::from_bits_retain(withheld), ..self }
    }

    /// Why there is one queue pair only, if that is a matter of features.
    pub(crate) fn why_one_pair(&self) -> &'static str {
        match (self.offered.contains(Features::MQ), self.accepted.contains(Features::CTRL_VQ)) {
            (true, false) => " in use: it offers VIRTIO_NET_F_MQ, but no VIRTIO_NET_F_CTRL_VQ to be told how many",
            _ => "",
        }
    }

    fn check(&self, config: &VirtioNetConfig) -> Result<(), NicError> {
        if !self.accepted.contains(Features::VERSION_1) {
            return Err(NicError::WrongDevice(
                "the device is a legacy one: it does not offer VIRTIO_F_VERSION_1, which this driver needs; \
                 with QEMU, start it with disable-legacy=on,disable-modern=off; over vhost-user, the back end has to follow VIRTIO 1.0"
                    .to_owned(),
            ));
        }
        if config.iommu && !self.accepted.contains(Features::ACCESS_PLATFORM) {
            return Err(NicError::WrongDevice(
                "the device does not offer VIRTIO_F_ACCESS_PLATFORM, so it would bypass the IOMMU and read and write the wrong memory; \
                 with QEMU, start it with iommu_platform=on"
                    .to_owned(),
            ));
        }
        if config.packed == Packed::On && !self.accepted.contains(Features::RING_PACKED) {
            return Err(NicError::Config(
                "packed rings are asked for, and the device does not offer VIRTIO_F_RING_PACKED; with QEMU, start it with packed=on, \
                 or leave the choice to the driver (packed=auto)"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// What the driver accepted.
    pub fn accepted(&self) -> Features {
        self.accepted
    }

    /// What the device offered.
    pub fn offered(&self) -> Features {
        self.offered
    }

    /// Whether all of these are accepted.
    pub fn has(&self, features: Features) -> bool {
        self.accepted.contains(features)
    }

    /// Every feature that has a name or is offered, with the reason for what is not accepted.
    pub fn report(&self, config: &VirtioNetConfig) -> Vec<FeatureReport> {
        let mut reports: Vec<FeatureReport> = TABLE.iter().map(|row| self.report_row(row, config)).collect();
        let named = TABLE.iter().fold(NONE, |sum, row| sum | row.bit);
        let unnamed = (0..64).filter(|bit| (self.offered - named).bits() >> bit & 1 != 0);
        reports.extend(unnamed.map(|bit| FeatureReport {
            name: "(unknown)",
            bit,
            offered: true,
            accepted: false,
            note: "not known to this driver".to_owned(),
        }));
        reports.sort_by_key(|report| report.bit);
        reports
    }

    fn report_row(&self, row: &Row, config: &VirtioNetConfig) -> FeatureReport {
        let (offered, accepted) = (self.offered.contains(row.bit), self.accepted.contains(row.bit));
        let missing = row.needs - self.accepted;
        let note = match row.reason(self.offered, config) {
            None if accepted => row.note.to_owned(),
            None => format!("needs {}, which is not in use", names(missing)),
            Some(reason) if offered => reason.to_owned(),
            Some(_) if self.withheld.contains(row.bit) => "the device has it, and it cannot be offered over this transport".to_owned(),
            Some(_) => row.note.to_owned(),
        };
        FeatureReport { name: row.name, bit: row.bit.bits().trailing_zeros() as u8, offered, accepted, note }
    }
}

impl Row {
    /// Why the feature is not accepted, whatever the others are.
    fn reason(&self, offered: Features, config: &VirtioNetConfig) -> Option<&'static str> {
        if !offered.contains(self.bit) {
            return Some("not offered");
        }
        if config.refuse.contains(self.bit) {
            return Some("refused by the configuration");
        }
        match self.wanted {
            Want::Yes => None,
            Want::No => Some(self.note),
            Want::When(against) => against(config),
        }
    }
}

fn names(features: Features) -> String {
    let names: Vec<&str> = TABLE.iter().filter(|row| features.contains(row.bit)).map(|row| row.name).collect();
    names.join(" and ")
}
