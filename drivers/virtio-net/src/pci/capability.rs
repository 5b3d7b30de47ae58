//! The vendor capabilities in configuration space that say where a virtio device's structures are (VIRTIO 1.3, 4.1.4).

use hal::registers::Width;
use hal::{BusDevice, BusError};

/// The PCI header (PCI Local Bus 3.0, 6.1 and 6.7).
mod field {
    pub const STATUS: u16 = 0x06;
    pub const CAPABILITIES: u16 = 0x34;
    pub const STATUS_CAPABILITIES: u32 = 1 << 4;
    /// Capabilities begin behind the header.
    pub const HEADER_END: u16 = 0x40;
    /// The list reaches the conventional 256 bytes.
    pub const END: u16 = 256;
}

/// Capability numbers (PCI Code and ID Assignment).
const VENDOR: u8 = 0x09;
const MSIX: u8 = 0x11;

/// `struct virtio_pci_cap` (4.1.4).
mod layout {
    pub const CAP_LEN: u16 = 2;
    pub const CFG_TYPE: u16 = 3;
    pub const BAR: u16 = 4;
    pub const OFFSET: u16 = 8;
    pub const LENGTH: u16 = 12;
    /// `struct virtio_pci_notify_cap` goes on with this (4.1.4.4).
    pub const NOTIFY_MULTIPLIER: u16 = 16;
}

/// What a structure is for (`cfg_type`). The access through configuration space (5) is not used, since every bus of hal reaches BARs; shared memory (8) and
/// vendors' own (9) are nothing that a network driver needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Common,
    Notify {
        /// Bytes from one doorbell to the next: 0 or a power of two.
        multiplier: u32,
    },
    Isr,
    Device,
}

/// Where a structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    pub(super) kind: Kind,
    /// 0 to 5.
    pub(super) bar: u8,
    /// Bytes from the start of the BAR.
    pub(super) offset: u32,
    /// Bytes.
    pub(super) len: u32,
}

/// What the capability list says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// In the device's order of preference.
    pub(super) structures: Vec<Structure>,
    /// Where the MSI-X capability is.
    pub(super) msix: Option<u16>,
    /// What was passed over, and why.
    pub(super) ignored: Vec<String>,
}

/// A list that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error(transparent)]
    Bus(#[from] BusError),
    /// It never ends, or leads out of where capabilities are.
    #[error("the list of capabilities {0}")]
    Malformed(String),
}

impl Capabilities {
    /// Walks the list. A capability that makes no sense is passed over, as 4.1.4.1 has it for what a driver does not know; a list that makes none is an error.
    pub(super) fn read(device: &dyn BusDevice) -> Result<Self, ListError> {
        let mut found = Self::default();
        let byte = |offset: u16| device.config_read(offset, Width::Byte).map(|value| value as u8);
        if device.config_read(field::STATUS, Width::Word)? & field::STATUS_CAPABILITIES == 0 {
            return Ok(found);
        }
        // One bit for each place that a capability can have.
        let mut visited = 0_u64;
        // The two lowest bits are reserved (PCI 6.7).
        let mut at = u16::from(byte(field::CAPABILITIES)? & !3);
        while at != 0 {
            if at < field::HEADER_END {
                return Err(ListError::Malformed(format!("leads into the header, to {at:#04x}")));
            }
            let place = 1 << (at / 4);
            if visited & place != 0 {
                return Err(ListError::Malformed(format!("comes back to {at:#04x}")));
            }
            visited |= place;
            match byte(at)? {
                VENDOR => match structure(device, at)? {
                    Ok(structure) => found.structures.extend(structure),
                    Err(reason) => found.ignored.push(format!("the capability at {at:#04x} {reason}")),
                },
                MSIX if found.msix.is_none() => found.msix = Some(at),
                _ => {}
            }
            at = u16::from(byte(at + 1)? & !3);
        }
        Ok(found)
    }
}

/// The structure that the vendor capability at `at` describes; `None` for a kind that is not needed; the reason when it makes no sense.
fn structure(device: &dyn BusDevice, at: u16) -> Result<Result<Option<Structure>, String>, BusError> {
    let cap_len = device.config_read(at + layout::CAP_LEN, Width::Byte)? as u16;
    // Capabilities begin at multiples of 4, so these first bytes are always inside.
    let cfg_type = device.config_read(at + layout::CFG_TYPE, Width::Byte)?;
    let least = match cfg_type {
        1 | 3 | 4 => layout::LENGTH + 4,
        2 => layout::NOTIFY_MULTIPLIER + 4,
        _ => return Ok(Ok(None)),
    };
    if cap_len < least || at + cap_len > field::END {
        return Ok(Err(format!("has {cap_len} bytes; one of type {cfg_type} has {least} or more, before the end of configuration space")));
    }
    let double = |offset: u16| device.config_read(at + offset, Width::Double);
    let kind = match cfg_type {
        1 => Kind::Common,
        2 => {
            let multiplier = double(layout::NOTIFY_MULTIPLIER)?;
            // A power of two that keeps 16-bit doorbells aligned (4.1.4.4.1).
            if multiplier != 0 && (multiplier == 1 || !multiplier.is_power_of_two()) {
                return Ok(Err(format!("has its doorbells {multiplier} bytes apart, which is no even power of two")));
            }
            Kind::Notify { multiplier }
        }
        3 => Kind::Isr,
        _ => Kind::Device,
    };
    let bar = device.config_read(at + layout::BAR, Width::Byte)? as u8;
    if bar > 5 {
        return Ok(Err(format!("is for BAR {bar}")));
    }
    Ok(Ok(Some(Structure { kind, bar, offset: double(layout::OFFSET)?, len: double(layout::LENGTH)? })))
}
