//! The device's state, and what happens to it as a whole: power-on, reset, link, time.

use std::sync::Arc;

use hal::MacAddress;

use super::config::Config;
use super::eeprom::Eeprom;
use super::fault::Fault;
use super::packet::Packet;
use super::phy::Phy;
use super::registers::*;
use super::ring::Owned;
use super::statistics;
use crate::model::space::Space;
use crate::model::violations::Violations;

/// Initial values that the manual gives as X.
const NOISE: u32 = 0xa5c3_96f0;

pub(super) struct State {
    pub mac: MacAddress,
    pub registers: RegisterFile,
    pub config: Config,
    pub eeprom: Eeprom,
    pub phy: Phy,
    pub transmit: TransmitUnit,
    pub receiver: ReceiveUnit,
    pub fault: Fault,
    pub space: Arc<Space>,
    pub violations: Violations,
    pub faulted: Vec<(u64, u64)>,
    /// A DMA access was aborted: none is made until a reset.
    pub aborted: bool,
    pub synchronous: bool,
    pub ipv6_payload_length_right: bool,
    pub doorbells: u64,
    pub contexts: u64,
    /// The lengths of the data descriptors of the last packet.
    pub last_packet: Vec<usize>,
    /// Frames on the wire since the last step.
    pub wire: Vec<Vec<u8>>,
    /// Causes whose delay has not run out.
    pub delayed: Cause,
    cable: bool,
    /// With [`Fault::LinkFlap`]: the link is down.
    flap: bool,
}

/// What the transmit unit remembers between descriptors.
#[derive(Default)]
pub(super) struct TransmitUnit {
    /// The context of packets without segmentation; the 8254x keeps the two apart (3.3.5).
    pub normal: Option<super::descriptor::ContextDescriptor>,
    pub segmentation: Option<super::descriptor::ContextDescriptor>,
    /// The packet that waits for its last descriptor.
    pub packet: Option<Packet>,
    pub owned: Owned,
    /// Addresses of status bytes, and their values, that wait for TXDCTL.WTHRESH.
    pub write_backs: Vec<(u64, u8)>,
}

/// What the receive unit remembers between packets.
#[derive(Default)]
pub(super) struct ReceiveUnit {
    pub owned: Owned,
}

impl State {
    pub(super) fn new(mac: MacAddress, space: Arc<Space>) -> Self {
        let mut state = Self {
            mac,
            registers: RegisterFile::new(),
            config: Config::new(),
            eeprom: Eeprom::new(mac),
            phy: Phy::new(),
            transmit: TransmitUnit::default(),
            receiver: ReceiveUnit::default(),
            fault: Fault::None,
            space,
            violations: Violations::default(),
            faulted: Vec::new(),
            aborted: false,
            synchronous: false,
            ipv6_payload_length_right: false,
            doorbells: 0,
            contexts: 0,
            last_packet: Vec::new(),
            wire: Vec::new(),
            delayed: Cause::empty(),
            cable: true,
            flap: false,
        };
        let undefined = (MTA..=MTA_LAST).chain(RAL0..=RAH_LAST).chain(VFTA..=VFTA_LAST).step_by(4);
        for offset in undefined.chain([TDBAL, TDBAH, RDBAL, RDBAH]) {
            state.registers.set(offset, NOISE.rotate_left(offset as u32 / 4));
        }
        state.reset();
        state
    }

    /// CTRL.RST (13.4.1) and RST#: all units stop, registers return to their defaults, and the station address is read again.
    pub(super) fn reset(&mut self) {
        let kept = |offset: u64| matches!(offset, TDBAL | TDBAH | RDBAL | RDBAH | MTA..=MTA_LAST | VFTA..=VFTA_LAST | RAL0..=RAH_LAST | MANC | WUC..=WUS);
        for offset in (0..SPACE).step_by(4).filter(|offset| !kept(*offset)) {
            self.registers.set(offset, 0);
        }
        statistics::clear(&mut self.registers);
        for (offset, value) in
            [(CTRL, (Ctrl::FD | Ctrl::SPEED_1000).bits()), (VET, 0x8100), (PBA, 0x0010_0030), (RXDCTL, 0x0101_0000), (LEDCTL, 0x0706_8302)]
        {
            self.registers.set(offset, value);
        }
        // 13.5.3: a software reset clears AV, of all but the address from the EEPROM.
        for offset in (RAH0..=RAH_LAST).step_by(8) {
            self.registers.set(offset, self.registers.get(offset) & !RAH_AV);
        }
        let [a, b, c, d, e, f] = self.eeprom.station_address(&self.fault).0;
        self.registers.set(RAL0, u32::from_le_bytes([a, b, c, d]));
        self.registers.set(RAH0, u32::from_le_bytes([e, f, 0, 0]) | RAH_AV);

        self.transmit = TransmitUnit::default();
        self.receiver = ReceiveUnit::default();
        self.delayed = Cause::empty();
        self.aborted = false;
        if self.fault == Fault::TransmitHang {
            self.fault = Fault::None;
        }
    }

    /// RST#, which also resets configuration space: memory stays enabled, as whoever holds the bus has it, bus mastering does not.
    pub(super) fn reset_function(&mut self) {
        self.reset();
        self.config.set_bus_master(false);
        self.phy = Phy::new();
        self.eeprom = Eeprom::new(self.mac);
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.add(what.into());
    }

    pub(super) fn set_fault(&mut self, fault: Fault) {
        let before = self.link_up();
        self.flap = false;
        self.fault = fault;
        self.link_changed(before);
    }

    /// Whether nobody answers for the device any more.
    pub(super) fn gone(&self) -> bool {
        matches!(self.fault, Fault::Vanished | Fault::Unreachable(_))
    }

    pub(super) fn cable(&self) -> bool {
        self.cable && !(self.fault == Fault::LinkFlap && self.flap)
    }

    /// STATUS.LU: the MAC takes the PHY's link only when CTRL.SLU tells it to (13.4.1).
    pub(super) fn link_up(&self) -> bool {
        self.cable() && Ctrl::from_bits_retain(self.registers.get(CTRL)).contains(Ctrl::SLU)
    }

    pub(super) fn set_cable(&mut self, up: bool) {
        let before = self.link_up();
        self.cable = up;
        self.link_changed(before);
    }

    pub(super) fn link_changed(&mut self, before: bool) {
        if before != self.link_up() {
            self.raise(Cause::LSC);
        }
    }

    pub(super) fn step(&mut self) -> Vec<Vec<u8>> {
        if !self.gone() {
            self.time_passes();
            self.process_transmit_ring();
        }
        std::mem::take(&mut self.wire)
    }

    /// Timers run out.
    fn time_passes(&mut self) {
        let delayed = std::mem::take(&mut self.delayed);
        self.raise(delayed);
        if self.registers.get(TIDV) != 0 {
            self.flush_write_backs();
        }
        match self.fault {
            Fault::LinkFlap => {
                let before = self.link_up();
                self.flap = !self.flap;
                self.link_changed(before);
            }
            Fault::DoneEverywhere => self.set_done_everywhere(),
            _ => {}
        }
    }
}
