//! The connection to a back end, and what it has to be told again when it was restarted.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use crate::connector::{Connector, Patience, has_hung_up};
use crate::error::VhostUserError;
use crate::watchdog::Watchdog;

/// `VHOST_USER_F_PROTOCOL_FEATURES`, a bit among the device's features that is the protocol's own.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Regions of a back end that cannot say how many it takes (`VHOST_MEMORY_BASELINE_NREGIONS`; DPDK's limit too).
const BASELINE_REGIONS: usize = 8;

/// Queues that a connection is prepared for: the protocol crate wants a bound, and learns the number of pairs in its place.
const MOST_QUEUES: u64 = 256;

/// Memory that the back end maps.
pub struct Region {
    /// What the back end sees: guest-physical and front-end addresses are made equal.
    pub address: u64,
    pub len: u64,
    pub descriptor: OwnedFd,
}

impl Region {
    fn describe(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.address,
            memory_size: self.len,
            userspace_addr: self.address,
            mmap_offset: 0,
            mmap_handle: self.descriptor.as_raw_fd(),
        }
    }
}

/// A connection and what is known of the other end.
struct Link {
    frontend: Frontend,
    stream: UnixStream,
    watchdog: Watchdog,
    offered: u64,
    protocol: VhostUserProtocolFeatures,
    pairs: u16,
    slots: usize,
    /// The features are agreed on, so that memory can be told.
    agreed: bool,
}

/// A back end, connected or not.
pub struct Session {
    connector: Connector,
    /// For the back end to be there, and for each of its answers.
    patience: Patience,
    link: Option<Link>,
    /// By address: there are back ends that refuse a table in any other order.
    regions: Vec<Region>,
}

impl Session {
    /// Connects, waiting for the back end at most `patience`, and as long for each of its answers.
    pub fn open(connector: Connector, patience: Patience) -> Result<Self, VhostUserError> {
        let mut session = Self { connector, patience, link: None, regions: Vec::new() };
        session.connect()?;
        Ok(session)
    }

    /// Makes the connection, anew if there was one.
    pub fn connect(&mut self) -> Result<(), VhostUserError> {
        self.link = None;
        let path = self.connector.path();
        let stream = self.connector.connect(&self.patience)?;
        let failed = |error| VhostUserError::Connect { path: path.to_owned(), error };
        let clone = || stream.try_clone().map_err(failed);
        let watchdog = Watchdog::new(clone()?, self.patience.most).map_err(failed)?;
        let say = |message, error: vhost::Error| VhostUserError::Greeting { path: path.to_owned(), message, reason: error.to_string() };

        // The crate takes the number of pairs for the number of queues, and refuses the second queue of one pair. So it is asked for on a
        // front end of its own, over the same connection.
        let (protocol, pairs) = {
            let mut probe = Frontend::from_stream(clone()?, MOST_QUEUES);
            watchdog.call(|| agree(&mut probe)).map_err(|(message, error)| say(message, error))?
        };
        let mut frontend = Frontend::from_stream(clone()?, MOST_QUEUES);
        let (offered, slots) = watchdog
            .call(|| {
                let offered = frontend.get_features().map_err(|error| ("VHOST_USER_GET_FEATURES", error))?;
                if offered & PROTOCOL_FEATURES != 0 {
                    frontend.get_protocol_features().map_err(|error| ("VHOST_USER_GET_PROTOCOL_FEATURES", error))?;
                    frontend.set_protocol_features(protocol).map_err(|error| ("VHOST_USER_SET_PROTOCOL_FEATURES", error))?;
                }
                if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                    // A message has done what it says when it returns.
                    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
                }
                frontend.set_owner().map_err(|error| ("VHOST_USER_SET_OWNER", error))?;
                let slots = if protocol.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS) {
                    frontend.get_max_mem_slots().map_err(|error| ("VHOST_USER_GET_MAX_MEM_SLOTS", error))?.min(4096) as usize
                } else {
                    BASELINE_REGIONS
                };
                Ok((offered, slots))
            })
            .map_err(|(message, error)| say(message, error))?;
        self.link = Some(Link { frontend, stream, watchdog, offered, protocol, pairs, slots, agreed: false });
        Ok(())
    }

    /// Whether the other end is still there.
    pub fn is_alive(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !has_hung_up(&link.stream))
    }

    /// That it is not.
    pub fn gone(&self) -> VhostUserError {
        VhostUserError::Gone(self.connector.path().to_owned())
    }

    /// The device's features, those of the protocol among them.
    pub fn offered(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.offered)
    }

    /// Whether the protocol has `feature`.
    pub fn has(&self, feature: VhostUserProtocolFeatures) -> bool {
        self.link.as_ref().is_some_and(|link| link.protocol.contains(feature))
    }

    /// How many pairs of queues the back end has.
    pub fn pairs(&self) -> u16 {
        self.link.as_ref().map_or(0, |link| link.pairs)
    }

    /// How many more regions it takes.
    pub fn slots_left(&self) -> usize {
        self.link.as_ref().map_or(BASELINE_REGIONS, |link| link.slots).saturating_sub(self.regions.len())
    }

    /// Sends a message. When it fails the connection is given up: nobody knows any more what the other end has understood.
    pub fn send<T>(&mut self, message: &'static str, send: impl FnOnce(&mut Frontend) -> vhost::Result<T>) -> Result<T, VhostUserError> {
        let path = || self.connector.path().to_owned();
        let Some(link) = &mut self.link else { return Err(VhostUserError::Gone(path())) };
        let Link { frontend, watchdog, .. } = link;
        watchdog.call(|| send(frontend)).map_err(|error| {
            let failed = VhostUserError::Message { path: path(), message, reason: error.to_string() };
            self.link = None;
            failed
        })
    }

    /// Agrees on the device's features; what is mapped is told then.
    pub fn accept(&mut self, features: u64) -> Result<(), VhostUserError> {
        let own = self.offered() & PROTOCOL_FEATURES;
        let told = self.is_agreed();
        self.send("VHOST_USER_SET_FEATURES", |frontend| frontend.set_features(features | own))?;
        if let Some(link) = &mut self.link {
            link.agreed = true;
        }
        if self.has(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            // A back end keeps what it was told on this connection, and takes no region twice.
            for index in if told { 0..0 } else { 0..self.regions.len() } {
                let region = self.regions[index].describe();
                self.send("VHOST_USER_ADD_MEM_REG", |frontend| frontend.add_mem_region(&region))?;
            }
            return Ok(());
        }
        self.tell_all()
    }

    /// Adds a region, and has the back end map it.
    pub fn add(&mut self, region: Region) -> Result<(), VhostUserError> {
        let described = region.describe();
        let place = self.regions.partition_point(|other| other.address < region.address);
        self.regions.insert(place, region);
        if !self.is_agreed() {
            return Ok(());
        }
        let told = if self.has(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            self.send("VHOST_USER_ADD_MEM_REG", |frontend| frontend.add_mem_region(&described)).map(drop)
        } else {
            self.tell_all()
        };
        told.inspect_err(|_| self.regions.retain(|region| region.address != described.guest_phys_addr))
    }

    /// Takes back the region at `address`.
    pub fn remove(&mut self, address: u64) -> Result<(), VhostUserError> {
        let Some(index) = self.regions.iter().position(|region| region.address == address) else { return Ok(()) };
        let region = self.regions.remove(index);
        if !self.is_agreed() {
            return Ok(());
        }
        if self.has(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS) {
            let described = region.describe();
            return self.send("VHOST_USER_REM_MEM_REG", |frontend| frontend.remove_mem_region(&described));
        }
        self.tell_all()
    }

    fn is_agreed(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.agreed)
    }

    /// The whole table. An empty one cannot be sent: the last region stays mapped until the connection ends.
    fn tell_all(&mut self) -> Result<(), VhostUserError> {
        let regions: Vec<_> = self.regions.iter().map(Region::describe).collect();
        if regions.is_empty() {
            return Ok(());
        }
        self.send("VHOST_USER_SET_MEM_TABLE", |frontend| frontend.set_mem_table(&regions)).map(drop)
    }
}

/// What the protocol can do, and how many pairs of queues there are.
fn agree(probe: &mut Frontend) -> Result<(VhostUserProtocolFeatures, u16), (&'static str, vhost::Error)> {
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let offered = probe.get_features().map_err(|error| ("VHOST_USER_GET_FEATURES", error))?;
    if offered & PROTOCOL_FEATURES == 0 {
        return Ok((VhostUserProtocolFeatures::empty(), 1));
    }
    let protocol = wanted & probe.get_protocol_features().map_err(|error| ("VHOST_USER_GET_PROTOCOL_FEATURES", error))?;
    probe.set_protocol_features(protocol).map_err(|error| ("VHOST_USER_SET_PROTOCOL_FEATURES", error))?;
    if !protocol.contains(VhostUserProtocolFeatures::MQ) {
        return Ok((protocol, 1));
    }
    let pairs = probe.get_queue_num().map_err(|error| ("VHOST_USER_GET_QUEUE_NUM", error))?;
    Ok((protocol, pairs.clamp(1, MOST_QUEUES / 2) as u16))
}
