//! The device behind its transport: status, configuration, and what is asked of both while the queues run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hal::virtio::{DeviceStatus, VirtioTransport};
use hal::{MacAddress, NicError};

use crate::config::{ETHERNET, LEAST_MTU, VirtioNetConfig};
use crate::features::{Features, Negotiated};

/// The device type of a network card.
const NETWORK: u32 = 1;

/// Offsets in the configuration (5.1.4).
mod offset {
    pub const MAC: u32 = 0;
    pub const STATUS: u32 = 6;
    pub const PAIRS: u32 = 8;
    pub const MTU: u32 = 10;
    pub const SPEED: u32 = 12;
    pub const DUPLEX: u32 = 16;
    pub const RSS_KEY: u32 = 17;
    pub const RSS_TABLE: u32 = 18;
    pub const HASH_TYPES: u32 = 20;
}

/// Of a device that is gone it reads all ones.
const STATUS_REGISTER: &str = "device status";

/// Bits of the configuration's status.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// The device, for the NIC and for its queues on their threads. Not touched on the hot path.
#[derive(Clone)]
pub(crate) struct SharedDevice {
    transport: Arc<Mutex<Box<dyn VirtioTransport>>>,
    features: Features,
}

/// How the device is.
pub(crate) struct Health {
    pub link_up: bool,
}

/// What the configuration says of the link.
pub(crate) struct LinkState {
    pub up: bool,
    /// Mbit/s; 0 when unknown.
    pub speed: u32,
    pub full_duplex: bool,
}

/// What the configuration says of RSS.
pub(crate) struct RssLimits {
    pub key: u8,
    pub table: u16,
    pub hash_types: u32,
}

/// Resets a device and agrees on features with it (3.1.1, steps 1 to 6). Where the device's MTU is larger than the receive buffers, those are no longer
/// said to hold every packet.
pub(crate) fn negotiate(
    mut transport: Box<dyn VirtioTransport>,
    config: &mut VirtioNetConfig,
) -> Result<(SharedDevice, Negotiated), NicError> {
    if transport.device_type() != NETWORK {
        return Err(NicError::WrongDevice(format!("a virtio device of type {}, not a network card (1)", transport.device_type())));
    }
    let negotiated = agree(&mut *transport, Features::all(), config)?;
    Ok((SharedDevice { transport: Arc::new(Mutex::new(transport)), features: negotiated.accepted() }, negotiated))
}

/// What the device may send, when it offers to say it: a driver that takes VIRTIO_NET_F_MTU has to have buffers for that, whatever it sends itself
/// (5.1.4.2). The configuration may be read before anything is agreed on (3.1.1, step 4).
fn offered_mtu(transport: &mut dyn VirtioTransport, offered: u64) -> Result<Option<u16>, NicError> {
    if !Features::from_bits_retain(offered).contains(Features::MTU) {
        return Ok(None);
    }
    let mut mtu = [0; 2];
    transport.read_config(offset::MTU, &mut mtu)?;
    Ok(Some(u16::from_le_bytes(mtu)))
}

/// `most`: features beyond these are left alone.
fn agree(transport: &mut dyn VirtioTransport, most: Features, config: &mut VirtioNetConfig) -> Result<Negotiated, NicError> {
    transport.set_status(DeviceStatus::empty())?;
    let mut status = DeviceStatus::ACKNOWLEDGE;
    transport.set_status(status)?;
    status |= DeviceStatus::DRIVER;
    transport.set_status(status)?;
    let (offered, withheld) = (transport.device_features()? & most.bits(), transport.withheld_features()?);
    if offered_mtu(transport, offered)?.is_some_and(|mtu| u32::from(mtu) + ETHERNET > config.rx_buffer.into()) {
        config.rx_buffer = 0;
    }
    let config = &*config;
    let agreed = Negotiated::new(offered, config).and_then(|negotiated| {
        transport.set_driver_features(negotiated.accepted().bits())?;
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status)?;
        let taken = transport.status()?;
        if taken.bits() == u8::MAX {
            Err(NicError::Vanished { register: STATUS_REGISTER })
        } else if taken.contains(DeviceStatus::FEATURES_OK) {
            Ok(negotiated.with_withheld(withheld))
        } else {
            let names: Vec<&str> = negotiated.report(config).iter().filter(|row| row.accepted).map(|row| row.name).collect();
            Err(NicError::WrongDevice(format!(
                "the device does not take this choice of its features: {}; leave some out (VirtioNetConfig::refuse)",
                names.join(", ")
            )))
        }
    });
    if agreed.is_err() {
        // The device shall know; what it says to that changes nothing.
        let _ = transport.set_status(status | DeviceStatus::FAILED);
    }
    agreed
}

impl SharedDevice {
    pub fn lock(&self) -> MutexGuard<'_, Box<dyn VirtioTransport>> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, features: Features) -> bool {
        self.features.contains(features)
    }

    /// From a device that may be in any state to one with the same features as before, also when it offers more now.
    pub fn renegotiate(&self, config: &mut VirtioNetConfig) -> Result<(), NicError> {
        let buffers = config.rx_buffer;
        let negotiated = agree(&mut **self.lock(), self.features, config)?;
        if config.rx_buffer < buffers && !self.has(Features::MRG_RXBUF) {
            return Err(NicError::WrongDevice(
                "the device's MTU is larger than it was before its reset, and than the receive buffers; close the NIC and start it anew"
                    .to_owned(),
            ));
        }
        if negotiated.accepted() != self.features {
            return Err(NicError::WrongDevice(
                "the device does not offer all the features any more that it had before its reset; close the NIC and start it anew"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The device makes no access to memory afterwards.
    pub fn stop(&self) -> Result<(), NicError> {
        Ok(self.lock().set_status(DeviceStatus::empty())?)
    }

    /// The driver is set up (3.1.1, step 8).
    pub fn run(&self) -> Result<(), NicError> {
        let running = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
        Ok(self.lock().set_status(running)?)
    }

    /// Whether the device is there and well.
    ///
    /// # Errors
    /// [`NicError::Vanished`], [`NicError::NeedsReset`].
    pub fn health(&self) -> Result<Health, NicError> {
        let status = self.lock().status()?;
        if status.bits() == u8::MAX {
            return Err(NicError::Vanished { register: STATUS_REGISTER });
        }
        if status.contains(DeviceStatus::NEEDS_RESET) {
            return Err(NicError::NeedsReset);
        }
        Ok(Health { link_up: self.link_status()? & LINK_UP != 0 })
    }

    fn read<const N: usize>(&self, offset: u32) -> Result<[u8; N], NicError> {
        let mut bytes = [0; N];
        self.lock().read_config(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn read_u16(&self, offset: u32) -> Result<u16, NicError> {
        Ok(u16::from_le_bytes(self.read(offset)?))
    }

    /// The bits of the link; up where the device does not say.
    fn link_status(&self) -> Result<u16, NicError> {
        if self.has(Features::STATUS) { self.read_u16(offset::STATUS) } else { Ok(LINK_UP) }
    }

    /// The link, and how fast it is.
    pub fn link(&self) -> Result<LinkState, NicError> {
        let status = self.link_status()?;
        let (mut speed, mut full_duplex) = (0, true);
        if self.has(Features::SPEED_DUPLEX) {
            // Anything beyond 31 bits is "unknown", as is any other duplex than 0 and 1.
            speed = u32::from_le_bytes(self.read(offset::SPEED)?);
            speed = if speed > i32::MAX as u32 { 0 } else { speed };
            full_duplex = self.read::<1>(offset::DUPLEX)? != [0];
        }
        Ok(LinkState { up: status & LINK_UP != 0, speed, full_duplex })
    }

    /// Whether the network is to be told where this station is (5.1.6.5.4). For a device that says so by its status.
    pub fn wants_announcement(&self) -> Result<bool, NicError> {
        Ok(self.link_status()? & ANNOUNCE != 0)
    }

    /// The station address, when the device has one.
    pub fn mac(&self) -> Result<Option<MacAddress>, NicError> {
        if !self.has(Features::MAC) {
            return Ok(None);
        }
        let address = MacAddress(self.read(offset::MAC)?);
        if address.is_valid_unicast() {
            Ok(Some(address))
        } else {
            Err(NicError::WrongDevice(format!("the device gives {address} as its station address")))
        }
    }

    /// The largest IP packet, when the device says it.
    pub fn mtu(&self) -> Result<Option<u16>, NicError> {
        if !self.has(Features::MTU) {
            return Ok(None);
        }
        match self.read_u16(offset::MTU)? {
            mtu if mtu >= LEAST_MTU => Ok(Some(mtu)),
            mtu => Err(NicError::WrongDevice(format!("the device gives {mtu} bytes as its MTU"))),
        }
    }

    /// How many queue pairs there are.
    pub fn queue_pairs(&self) -> Result<u16, NicError> {
        if let Some(pairs) = self.lock().implicit_pairs() {
            return Ok(pairs);
        }
        if !self.features.intersects(Features::MQ | Features::RSS) {
            return Ok(1);
        }
        match self.read_u16(offset::PAIRS)? {
            // The queue behind them, for commands, has a number, too.
            pairs @ 1..=0x7fff => Ok(pairs),
            pairs => Err(NicError::WrongDevice(format!("the device says that it has {pairs} queue pairs"))),
        }
    }

    /// What RSS and hashes can be set to.
    pub fn rss_limits(&self) -> Result<RssLimits, NicError> {
        let [key] = self.read(offset::RSS_KEY)?;
        Ok(RssLimits { key, table: self.read_u16(offset::RSS_TABLE)?, hash_types: u32::from_le_bytes(self.read(offset::HASH_TYPES)?) })
    }
}

/// How long to sleep between two looks at something that takes the device microseconds.
pub(crate) const NAP: Duration = Duration::from_micros(20);
