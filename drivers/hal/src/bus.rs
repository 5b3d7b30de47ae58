//! A device on a PCI bus.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::interrupt::Interrupt;
use crate::registers::{RegisterError, Registers, Width};
use crate::space::{DmaError, DmaSpace};

/// A PCI device, opened for this process alone. Closing it (drop) stops its access to memory.
pub trait BusDevice: Send {
    /// How users name it: `sim:e1000`, `pci:0000:00:03.0`.
    fn address(&self) -> &str;

    /// Who it is, from configuration space.
    fn identity(&self) -> PciIdentity;

    /// Reads `width` at `offset` of configuration space, zero-extended.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError>;

    /// Writes `width` at `offset` of configuration space.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError>;

    /// The registers of BAR `index`, 0 to 5.
    ///
    /// # Errors
    /// [`BusError::NoBar`] when there is none or it cannot be mapped.
    fn bar(&mut self, index: u8) -> Result<Registers, BusError>;

    /// Lets the device read and write memory, or stops it.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError>;

    /// The space that the device's addresses are in.
    fn dma(&self) -> Arc<dyn DmaSpace>;

    /// Interrupt `vector` (0 is INTx where there is no MSI-X).
    ///
    /// # Errors
    /// [`BusError::NoInterrupt`] when there is no such vector or the bus cannot deliver it.
    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError>;

    /// A flag that is set once the system wants the device back: it is to be unplugged, or to get another driver. `None` where nobody asks.
    fn withdrawal(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// Resets the device's function.
    ///
    /// # Errors
    /// When it has no way to be reset, or did not come back.
    fn reset(&mut self) -> Result<(), BusError>;
}

/// Who a PCI device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciIdentity {
    /// The vendor, 0x8086 for Intel.
    pub vendor: u16,
    /// The vendor's device number.
    pub device: u16,
    /// Class, subclass and programming interface: 0x020000 is an Ethernet controller.
    pub class: u32,
    /// The revision.
    pub revision: u8,
}

impl std::fmt::Display for PciIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

/// Where a function's capability of this kind is in its configuration space, which `read` reads; `None` when it has none (PCI Local Bus 3.0, 6.7: a list of
/// offsets, which ends with 0).
///
/// # Errors
/// Those of `read`.
pub fn capability<E>(read: impl Fn(u16, Width) -> Result<u32, E>, kind: u8) -> Result<Option<u16>, E> {
    const STATUS: u16 = 0x06;
    const STATUS_CAPABILITIES: u32 = 1 << 4;
    const CAPABILITIES: u16 = 0x34;
    /// Capabilities that 256 bytes have room for: a list in a circle ends here.
    const MOST: usize = 48;
    if read(STATUS, Width::Word)? & STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut next = read(CAPABILITIES, Width::Byte)? as u16 & 0xfc;
    for _ in 0..MOST {
        if next == 0 {
            break;
        }
        let header = read(next, Width::Word)?;
        if header as u8 == kind {
            return Ok(Some(next));
        }
        next = (header >> 8) as u16 & 0xfc;
    }
    Ok(None)
}

/// What can go wrong with a bus.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// A register access failed.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A mapping failed.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// There is no such BAR.
    #[error("the device has no usable BAR {0}")]
    NoBar(u8),
    /// There is no such interrupt.
    #[error("interrupt {vector} cannot be had: {reason}")]
    NoInterrupt {
        /// the vector
        vector: u16,
        /// why
        reason: String,
    },
    /// The device cannot be reset.
    #[error("the device cannot be reset: {0}")]
    Reset(String),
    /// The wait for a device that was not there was given up, as somebody asked.
    #[error("{0}")]
    Stopped(String),
    /// The device does not do what its specification says, or lacks what was asked for.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a configuration space says that is these bytes, from its start on.
    fn found(bytes: &[(usize, u8)], kind: u8) -> Option<u16> {
        let mut config = [0; 256];
        bytes.iter().for_each(|(offset, byte)| config[*offset] = *byte);
        let read = |offset: u16, width: Width| {
            let at = usize::from(offset);
            Ok::<_, RegisterError>(config[at..at + width as usize].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        capability(read, kind).unwrap()
    }

    #[test]
    fn a_capability_is_found_wherever_it_is_in_the_list() {
        let list = [(6, 0x10), (0x34, 0x40), (0x40, 5), (0x41, 0x60), (0x60, 0x11), (0x61, 0x50), (0x50, 0x10), (0x51, 0)];
        assert_eq!([5, 0x11, 0x10, 9].map(|kind| found(&list, kind)), [Some(0x40), Some(0x60), Some(0x50), None]);
        assert_eq!(found(&list[1..], 5), None, "there is no list");
        let circle = [(6, 0x10), (0x34, 0x40), (0x40, 5), (0x41, 0x40)];
        assert_eq!(found(&circle, 9), None);
    }
}
