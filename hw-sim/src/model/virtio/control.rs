//! The control queue (5.1.6.5).

use std::collections::{BTreeMap, BTreeSet};

use hal::MacAddress;

use super::config::{ANNOUNCE, ModelConfig};
use super::fault::Fault;
use super::features::{self, Features};
use super::queue::Lie;
use super::state::{Role, State};

const OK: u8 = 0;
const ERR: u8 = 1;
/// Not defined.
const GARBAGE: u8 = 0x55;

/// What the driver has set through the control queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Every packet is received. On after a reset, as in QEMU.
    pub promiscuous: bool,
    /// Every multicast packet is received.
    pub all_multicast: bool,
    /// Every unicast packet is received.
    pub all_unicast: bool,
    /// No multicast packet is received.
    pub no_multicast: bool,
    /// No unicast packet is received.
    pub no_unicast: bool,
    /// No broadcast is received.
    pub no_broadcast: bool,
    /// The table's unicast addresses.
    pub unicast: Vec<MacAddress>,
    /// The table's multicast addresses.
    pub multicast: Vec<MacAddress>,
    /// The VLANs that are received; `None` without VIRTIO_NET_F_CTRL_VLAN: all.
    pub vlans: Option<BTreeSet<u16>>,
    /// How many pairs of queues are in use.
    pub pairs: u16,
    /// The receive offloads that are on.
    pub guest_offloads: Features,
    /// How the receive queue is chosen; `None`: always the first.
    pub hashing: Option<Hashing>,
    /// Coalescing of each queue: most packets, most microseconds.
    pub coalescing: BTreeMap<u16, (u32, u32)>,
    /// How often an announcement was acknowledged.
    pub announcements: u64,
    /// Every command so far: class, command, and what was answered.
    pub commands: Vec<(u8, u8, u8)>,
}

/// RSS, or the calculation of hashes alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// The enabled hash types.
    pub types: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The pair for each value of the masked hash; empty without RSS.
    pub table: Vec<u16>,
    /// The pair for packets without a hash.
    pub unclassified: u16,
}

/// A command that cannot be carried out, and why.
type Refused = String;

impl Control {
    /// After DRIVER_OK with these features.
    pub(super) fn new(config: &ModelConfig, accepted: Features) -> Self {
        Self {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: accepted.contains(Features::CTRL_VLAN).then(BTreeSet::new),
            pairs: 1.min(config.pairs),
            guest_offloads: accepted & Features::GUEST_OFFLOADS,
            hashing: None,
            coalescing: BTreeMap::new(),
            announcements: 0,
            commands: Vec::new(),
        }
    }
}

/// Reads a command's data from its start.
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Refused> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("a command is shorter than its data")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], Refused> {
        self.bytes(LEN).map(|bytes| bytes.try_into().expect("that many bytes"))
    }

    fn u8(&mut self) -> Result<u8, Refused> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Refused> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        self.array().map(u32::from_le_bytes)
    }

    fn switch(&mut self) -> Result<bool, Refused> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }
}

impl State {
    pub(super) fn process_control(&mut self, index: u16) {
        while self.fault != Fault::ControlSilent {
            let Some(chain) = self.next_chain(index) else { return };
            let command = match chain.read(&self.space) {
                Ok(command) => command,
                Err(fault) => return self.fail(fault),
            };
            let (ack, mut result) = match self.fault {
                Fault::ControlError => (ERR, Vec::new()),
                Fault::ControlGarbage => (GARBAGE, Vec::new()),
                _ => match self.execute(&command) {
                    Ok(result) => (OK, result),
                    Err(refused) => {
                        self.violation(format!("queue {index}: a command was refused: {refused} [5.1.6.5]"));
                        (ERR, Vec::new())
                    }
                },
            };
            if let [class, number, ..] = command[..] {
                self.control.commands.push((class, number, ack));
            }
            // The answer is the last byte, behind what the command returns.
            if chain.writable() == 0 {
                self.violation(format!("queue {index}: a command has no room for its answer [5.1.6.5]"));
            } else {
                result.resize(chain.writable() - 1, 0);
                result.push(ack);
                if let Err(fault) = chain.write(&self.space, &result) {
                    return self.fail(fault);
                }
            }
            let len = result.len() as u32;
            self.give_back(index, &[(chain, len)], false, Lie::None);
        }
    }

    /// Carries a command out. Returns what it returns to the driver before the answer.
    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut data = Data(command);
        let (class, number) = (data.u8()?, data.u8()?);
        let needed = match (class, number) {
            (0, 0 | 1) | (1, 0) => Features::CTRL_RX,
            (0, 2..=5) => Features::CTRL_RX_EXTRA,
            (1, 1) => Features::CTRL_MAC_ADDR,
            (2, 0 | 1) => Features::CTRL_VLAN,
            (3, 0) => Features::GUEST_ANNOUNCE,
            (4, 0) => Features::MQ,
            (4, 1) => Features::RSS,
            (4, 2) => Features::HASH_REPORT,
            (5, 0) => Features::CTRL_GUEST_OFFLOADS,
            (6, 0 | 1) => Features::NOTF_COAL,
            (6, 2 | 3) => Features::VQ_NOTF_COAL,
            _ => return Err(format!("command {number} of class {class} is not defined")),
        };
        if !self.accepted.contains(needed) {
            return Err(format!("command {number} of class {class} was sent without {}", features::name(needed)));
        }
        match class {
            0 => self.set_receive_mode(number, &mut data)?,
            1 if number == 0 => self.set_mac_table(&mut data)?,
            1 => self.mac = MacAddress(data.array()?),
            2 => self.set_vlan(number == 0, data.u16()?)?,
            3 => {
                self.link &= !ANNOUNCE;
                self.control.announcements += 1;
            }
            4 if number == 0 => self.set_pairs(data.u16()?)?,
            4 => self.set_hashing(number == 1, &mut data)?,
            5 => self.set_guest_offloads(Features::from_bits_retain(u64::from_le_bytes(data.array()?)))?,
            _ if number == 3 => {
                let queue = data.u16()?;
                data.u16()?;
                self.check_coalescing_queue(queue)?;
                let (packets, microseconds) = self.control.coalescing.get(&queue).copied().unwrap_or_default();
                let result = [packets.to_le_bytes(), microseconds.to_le_bytes()].concat();
                return finish(&data, result);
            }
            _ => self.set_coalescing(number, &mut data)?,
        }
        finish(&data, Vec::new())
    }

    fn set_receive_mode(&mut self, number: u8, data: &mut Data<'_>) -> Result<(), Refused> {
        let on = data.switch()?;
        let control = &mut self.control;
        *[
            &mut control.promiscuous,
            &mut control.all_multicast,
            &mut control.all_unicast,
            &mut control.no_multicast,
            &mut control.no_unicast,
            &mut control.no_broadcast,
        ][usize::from(number)] = on;
        Ok(())
    }

    fn set_mac_table(&mut self, data: &mut Data<'_>) -> Result<(), Refused> {
        let mut table = |multicast: bool| {
            let entries = data.u32()?;
            let addresses = (0..entries).map(|_| data.array().map(MacAddress)).collect::<Result<Vec<_>, _>>()?;
            match addresses.iter().all(|mac| (mac.0[0] & 1 != 0) == multicast) {
                true => Ok(addresses),
                false => Err(format!("a table of {} addresses has others", if multicast { "multicast" } else { "unicast" })),
            }
        };
        let (unicast, multicast) = (table(false)?, table(true)?);
        (self.control.unicast, self.control.multicast) = (unicast, multicast);
        Ok(())
    }

    fn set_vlan(&mut self, on: bool, vlan: u16) -> Result<(), Refused> {
        if vlan > 4095 {
            return Err(format!("{vlan} is not a VLAN"));
        }
        let vlans = self.control.vlans.get_or_insert_default();
        if on {
            vlans.insert(vlan)
        } else {
            vlans.remove(&vlan)
        };
        Ok(())
    }

    fn set_pairs(&mut self, pairs: u16) -> Result<(), Refused> {
        if pairs == 0 || pairs > self.config.pairs {
            return Err(format!("{pairs} pairs of queues; there are {}", self.config.pairs));
        }
        if self.queues.iter().take(usize::from(pairs) * 2).any(Option::is_none) {
            return Err(format!("{pairs} pairs of queues are not all enabled"));
        }
        (self.control.pairs, self.control.hashing) = (pairs, None);
        Ok(())
    }

    /// RSS (`steers`), or hashes alone: the same layout (5.1.6.5.6.4 and 5.1.6.5.7.1).
    fn set_hashing(&mut self, steers: bool, data: &mut Data<'_>) -> Result<(), Refused> {
        let types = data.u32()?;
        if types & !self.config.hash_types != 0 {
            return Err(format!("hash types {:#x} are not supported", types & !self.config.hash_types));
        }
        let (mut table, mut unclassified, mut transmit) = (Vec::new(), 0, self.control.pairs);
        if steers {
            let entries = u32::from(data.u16()?) + 1;
            if !entries.is_power_of_two() || entries > self.config.indirection_table.into() {
                return Err(format!("an indirection table of {entries} entries"));
            }
            unclassified = data.u16()?;
            table = (0..entries).map(|_| data.u16()).collect::<Result<_, _>>()?;
            transmit = data.u16()?;
        } else if data.bytes(8)? != [0; 8] {
            return Err("reserved fields are not 0".to_owned());
        }
        let length = data.u8()?;
        if length > self.config.hash_key {
            return Err(format!("a key of {length} bytes; {} are supported", self.config.hash_key));
        }
        let key = data.bytes(length.into())?.to_vec();
        let enabled = |pair: &u16| matches!(self.queues.get(usize::from(*pair) * 2), Some(Some(_))) && *pair < self.config.pairs;
        if steers && (!table.iter().chain([&unclassified]).all(enabled) || transmit == 0 || transmit > self.config.pairs) {
            return Err("a queue that is not enabled".to_owned());
        }
        self.control.pairs = transmit;
        self.control.hashing = Some(Hashing { types, key, table, unclassified });
        Ok(())
    }

    fn set_guest_offloads(&mut self, offloads: Features) -> Result<(), Refused> {
        let possible = self.accepted & Features::GUEST_OFFLOADS;
        if !possible.contains(offloads) {
            return Err(format!("offloads {:#x} were not negotiated", (offloads - possible).bits()));
        }
        self.control.guest_offloads = offloads;
        Ok(())
    }

    fn set_coalescing(&mut self, number: u8, data: &mut Data<'_>) -> Result<(), Refused> {
        let mut queues: Vec<u16> = Vec::new();
        if number == 2 {
            let queue = data.u16()?;
            data.u16()?;
            self.check_coalescing_queue(queue)?;
            queues.push(queue);
        } else {
            // 0 is for the transmit queues, which are odd.
            queues.extend((0..self.config.pairs * 2).filter(|queue| queue.is_multiple_of(2) == (number == 1)));
        }
        let parameters = (data.u32()?, data.u32()?);
        self.control.coalescing.extend(queues.into_iter().map(|queue| (queue, parameters)));
        Ok(())
    }

    fn check_coalescing_queue(&self, queue: u16) -> Result<(), Refused> {
        let enabled = matches!(self.queues.get(usize::from(queue)), Some(Some(_))) && self.role(queue) != Role::Control;
        if enabled { Ok(()) } else { Err(format!("queue {queue} is not an enabled transmit or receive queue")) }
    }
}

fn finish(data: &Data<'_>, result: Vec<u8>) -> Result<Vec<u8>, Refused> {
    if data.0.is_empty() { Ok(result) } else { Err(format!("{} bytes follow a command's data", data.0.len())) }
}
