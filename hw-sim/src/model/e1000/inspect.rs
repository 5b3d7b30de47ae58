//! What a descriptor must not be when the driver hands it over.

use super::descriptor::{Command, Raw, ReceiveDescriptor, STA_DD, TransmitDescriptor};
use super::registers::{CTRL, Ctrl, TIDV};
use super::ring::Ring;
use super::state::State;

/// The longest buffer of a legacy descriptor, 3.3.3.
const LONGEST_LEGACY: usize = 16_288;

impl State {
    /// A transmit descriptor is handed over.
    pub(super) fn inspect_transmit(&mut self, index: u32, raw: Raw) {
        let descriptor = TransmitDescriptor::parse(raw);
        let command = Command::from_bits_retain(raw[11]);
        let mut complain = |what: &str| self.violation(format!("transmit descriptor {index}: {what}"));
        if command.contains(Command::RS) && raw[12] & STA_DD != 0 {
            complain("DD is set already, so that its completion cannot be seen [3.3.3.2]");
        }
        if command.contains(Command::RPS) {
            complain("bit 4 of the command is reserved, except on the 82544 [3.3.3.1, 3.3.6.1, 3.3.7.1]");
        }
        match descriptor {
            TransmitDescriptor::Legacy(legacy) => {
                if usize::from(legacy.length.get()) > LONGEST_LEGACY {
                    complain("a buffer of more than 16288 bytes [3.3.3]");
                }
                if legacy.address.get() == 0 || legacy.length.get() == 0 {
                    complain("without an address or a length it transfers nothing [3.3.3.1]");
                }
            }
            TransmitDescriptor::Data(data) => {
                if data.address.get() == 0 || data.length() == 0 {
                    complain("without an address or a length it transfers nothing [3.3.3.1]");
                }
                if data.popts & !0b11 != 0 {
                    complain("reserved bits of POPTS are set [3.3.7.3]");
                }
            }
            TransmitDescriptor::Context(_) => {
                if command.contains(Command::VLE) {
                    complain("bit 6 of TUCMD is reserved [3.3.6.1]");
                }
            }
            TransmitDescriptor::Unknown(kind) => complain(&format!("DTYP {kind:#x} is not defined [3.3.2]")),
        }
        if raw[12] & 0xf0 != 0 {
            complain("reserved bits beside STA are set [3.3.3, 3.3.6, 3.3.7]");
        }
        if command.contains(Command::IDE) && self.registers.get(TIDV) & 0xffff == 0 {
            self.violation("IDE was set in a transmit descriptor with a TIDV of 0, which is not allowed [13.4.41]");
        }
        let tags = Ctrl::from_bits_retain(self.registers.get(CTRL)).contains(Ctrl::VME);
        if command.contains(Command::VLE) && !matches!(descriptor, TransmitDescriptor::Context(_)) && !tags {
            self.violation("VLE was set in a transmit descriptor without CTRL.VME: no tag is inserted [3.3.7.1]");
        }
    }

    /// The tail was set behind descriptor `last`. A packet that is handed over in parts is not forbidden by the manual, but later parts and
    /// QEMU's model of them lose it.
    pub(super) fn inspect_packet_boundary(&mut self, last: u32) {
        let Some(raw) = self.peek_descriptor(Ring::Transmit, last) else { return };
        let ends = match TransmitDescriptor::parse(raw) {
            TransmitDescriptor::Legacy(legacy) => Command::from_bits_retain(legacy.cmd).contains(Command::EOP),
            TransmitDescriptor::Data(data) => data.command().contains(Command::EOP),
            TransmitDescriptor::Context(_) | TransmitDescriptor::Unknown(_) => false,
        };
        if !ends {
            self.violation(format!("TDT was set behind descriptor {last}, which does not end a packet"));
        }
    }

    /// A receive descriptor is handed over.
    pub(super) fn inspect_receive(&mut self, index: u32, raw: Raw) {
        let descriptor: ReceiveDescriptor = zerocopy::transmute!(raw);
        if descriptor.address.get() == 0 {
            self.violation(format!("receive descriptor {index} has no buffer [3.2.3]"));
        }
        if descriptor.status != 0 {
            self.violation(format!("receive descriptor {index} has a status already, so that its packet cannot be seen [3.2.3.1]"));
        }
    }
}
