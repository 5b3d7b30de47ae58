//! A vhost-user back end as a virtio transport.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusError, DmaSpace, Doorbell, Interrupt, RegisterError};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VringConfigData};

use crate::connector::{Connector, Patience};
use crate::error::VhostUserError;
use crate::event::Event;
use crate::session::{PROTOCOL_FEATURES, Session};
use crate::space::VhostSpace;

/// A network card (VIRTIO 1.3, section 5).
const NETWORK: u32 = 1;

/// The largest split ring (VIRTIO 1.3, 2.7); a back end does not say what it takes.
const MOST_ENTRIES: u16 = 32768;

/// `VIRTIO_F_RING_PACKED`.
const RING_PACKED: u64 = 1 << 34;

/// The initial position of a packed ring, with its wrap counter (bit 15) at 1.
const PACKED_BASE: u16 = 1 << 15;

/// Features that are the front end's part over vhost-user, where QEMU has them: a control queue and all that goes through it, announcements. Then the
/// protocol's own and live migration's log.
const NOT_THE_BACK_ENDS: u64 = 1 << 2 // CTRL_GUEST_OFFLOADS
    | 1 << 17 // CTRL_VQ
    | 1 << 18 // CTRL_RX
    | 1 << 19 // CTRL_VLAN
    | 1 << 20 // CTRL_RX_EXTRA
    | 1 << 21 // GUEST_ANNOUNCE
    | 1 << 22 // MQ: pairs serve as soon as they are enabled
    | 1 << 23 // CTRL_MAC_ADDR
    | 1 << 26 // VHOST_F_LOG_ALL
    | PROTOCOL_FEATURES
    | 1 << 33 // ACCESS_PLATFORM: with it a back end asks the front end for the translation of each address (IOTLB messages)
    | 1 << 53 // NOTF_COAL
    | 1 << 57 // HASH_REPORT
    | 1 << 60; // RSS

/// Features that are fields of the configuration, which only some back ends have.
const IN_CONFIGURATION: u64 = 1 << 3 // MTU
    | 1 << 5 // MAC
    | 1 << 16 // STATUS
    | 1 << 63; // SPEED_DUPLEX

/// How a back end is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files become memory regions of the back end, which can then write to them. Default false.
    pub files: bool,
    /// How long a back end is waited for: at the start, after it went away, and for an answer (mapping many gigabytes takes seconds). Default 10 s.
    pub patience: Duration,
    /// Ends a wait for a back end that is not there when it is set, by a signal handler perhaps. Default none.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { files: false, patience: Duration::from_secs(10), stop: None }
    }
}

/// A network device in another process.
///
/// When the back end goes away, messages fail, and so does [`status`](VirtioTransport::status); after a reset, the first status that is set reaches
/// it again when it was restarted, and what is mapped stays mapped.
pub struct VhostUser {
    session: Arc<Mutex<Session>>,
    space: Arc<VhostSpace>,
    /// The protocol crate has no status message: it is kept here.
    status: DeviceStatus,
    features: u64,
    queues: BTreeMap<u16, Queue>,
}

struct Queue {
    kick: Event,
    call: Event,
    enabled: bool,
}

impl VhostUser {
    /// Connects to a back end.
    ///
    /// # Errors
    /// [`VhostUserError`] when nobody is there in time, or does not speak the protocol.
    pub fn open(connector: Connector, options: Options) -> Result<Self, VhostUserError> {
        let patience = Patience { most: options.patience, stop: options.stop };
        let session = Arc::new(Mutex::new(Session::open(connector, patience)?));
        let space = Arc::new(VhostSpace::new(Arc::clone(&session), options.files));
        Ok(Self { session, space, status: DeviceStatus::empty(), features: 0, queues: BTreeMap::new() })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&mut self, index: u16) -> io::Result<&mut Queue> {
        use std::collections::btree_map::Entry;
        match self.queues.entry(index) {
            Entry::Occupied(queue) => Ok(queue.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Queue { kick: Event::new()?, call: Event::new()?, enabled: false })),
        }
    }

    /// Stops every ring: the back end makes no access to it afterwards. One that is gone makes none either.
    fn stop(&mut self) -> Result<(), VhostUserError> {
        // The events stay: whoever waits for an interrupt of a queue goes on doing so when it is enabled again.
        let enabled = self.queues.iter_mut().filter_map(|(index, queue)| std::mem::take(&mut queue.enabled).then_some(*index));
        let enabled: Vec<u16> = enabled.collect();
        for index in enabled {
            stop_ring(&mut self.session(), index)?;
        }
        Ok(())
    }
}

/// Features that are not offered, whether the back end has them or not.
fn kept_back(session: &Session) -> u64 {
    NOT_THE_BACK_ENDS | if session.has(VhostUserProtocolFeatures::CONFIG) { 0 } else { IN_CONFIGURATION }
}

/// GET_VRING_BASE stops a ring, and returns when it has stopped.
fn stop_ring(session: &mut Session, index: u16) -> Result<(), VhostUserError> {
    if session.offered() & PROTOCOL_FEATURES != 0 {
        session.send("VHOST_USER_SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(index.into(), false))?;
    }
    session.send("VHOST_USER_GET_VRING_BASE", |frontend| frontend.get_vring_base(index.into())).map(drop)
}

impl VirtioTransport for VhostUser {
    fn device_type(&self) -> u32 {
        NETWORK
    }

    fn device_features(&mut self) -> Result<u64, BusError> {
        let session = self.session();
        Ok(session.offered() & !kept_back(&session))
    }

    fn withheld_features(&mut self) -> Result<u64, BusError> {
        let session = self.session();
        Ok(session.offered() & kept_back(&session) & !PROTOCOL_FEATURES)
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), BusError> {
        self.session().accept(features)?;
        self.features = features;
        Ok(())
    }

    fn status(&mut self) -> Result<DeviceStatus, BusError> {
        if self.status.contains(DeviceStatus::DRIVER_OK) && !self.session().is_alive() {
            return Err(self.session().gone().into());
        }
        Ok(self.status)
    }

    fn set_status(&mut self, status: DeviceStatus) -> Result<(), BusError> {
        if status.is_empty() {
            // A back end that is gone has stopped; the new one knows nothing of the rings.
            if let Err(error) = self.stop() {
                tracing::debug!("stopping the rings: {error}");
            }
        } else if self.status.is_empty() && !self.session().is_alive() {
            // Only who starts it again waits for it to come back.
            self.session().connect()?;
        }
        self.status = status;
        Ok(())
    }

    fn queues(&mut self) -> Result<u16, BusError> {
        Ok(2 * self.session().pairs())
    }

    fn implicit_pairs(&self) -> Option<u16> {
        Some(self.session().pairs())
    }

    fn max_queue_size(&mut self, index: u16) -> Result<u16, BusError> {
        Ok(if index < 2 * self.session().pairs() { MOST_ENTRIES } else { 0 })
    }

    fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<Doorbell, BusError> {
        let failed = |error: io::Error| BusError::Register(RegisterError::Unreachable(format!("an eventfd: {error}")));
        let base = if self.features & RING_PACKED != 0 { PACKED_BASE } else { 0 };
        let queue = self.queue(index).map_err(failed)?;
        let (kick, call) = (queue.kick.to_send().map_err(failed)?, queue.call.to_send().map_err(failed)?);
        let doorbell = queue.kick.doorbell().map_err(failed)?;
        let place = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: layout.descriptors,
            avail_ring_addr: layout.driver,
            used_ring_addr: layout.device,
            log_addr: None,
        };
        let queue = usize::from(index);
        let mut session = self.session();
        session.send("VHOST_USER_SET_VRING_NUM", |frontend| frontend.set_vring_num(queue, layout.size)).map_err(|error| match error {
            VhostUserError::Message { path, reason, .. } => VhostUserError::Queue { path, index, size: layout.size, reason },
            other => other,
        })?;
        session.send("VHOST_USER_SET_VRING_BASE", |frontend| frontend.set_vring_base(queue, base))?;
        session.send("VHOST_USER_SET_VRING_ADDR", |frontend| frontend.set_vring_addr(queue, &place))?;
        session.send("VHOST_USER_SET_VRING_CALL", |frontend| frontend.set_vring_call(queue, &call))?;
        session.send("VHOST_USER_SET_VRING_KICK", |frontend| frontend.set_vring_kick(queue, &kick))?;
        if session.offered() & PROTOCOL_FEATURES != 0 {
            session.send("VHOST_USER_SET_VRING_ENABLE", |frontend| frontend.set_vring_enable(queue, true))?;
        }
        drop(session);
        if let Some(queue) = self.queues.get_mut(&index) {
            queue.enabled = true;
        }
        Ok(doorbell)
    }

    fn reset_queue(&mut self, index: u16) -> Result<(), BusError> {
        if self.queues.get_mut(&index).is_some_and(|queue| std::mem::take(&mut queue.enabled)) {
            stop_ring(&mut self.session(), index)?;
        }
        Ok(())
    }

    fn interrupt(&mut self, index: Option<u16>) -> Result<Box<dyn Interrupt>, BusError> {
        let none = |vector, reason: String| BusError::NoInterrupt { vector, reason };
        let index = index.ok_or_else(|| none(0, "a back end does not tell of changes to its configuration".into()))?;
        let queue = self.queue(index).map_err(|error| none(index, error.to_string()))?;
        Ok(queue.call.interrupt())
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), BusError> {
        let mut session = self.session();
        if session.has(VhostUserProtocolFeatures::CONFIG) {
            let len = bytes.len() as u32;
            let zeros = vec![0; bytes.len()];
            let (_, read) = session
                .send("VHOST_USER_GET_CONFIG", |frontend| frontend.get_config(offset, len, VhostUserConfigFlags::empty(), &zeros))?;
            if read.len() != bytes.len() {
                let reason = format!("the back end gives {} bytes of its configuration, asked for {len}", read.len());
                return Err(BusError::Register(RegisterError::Unreachable(reason)));
            }
            bytes.copy_from_slice(&read);
            return Ok(());
        }
        // Of virtio_net_config (VIRTIO 1.3, 5.1.4) only the number of pairs is known, at 8.
        let mut configuration = [0; 64];
        configuration[8..10].copy_from_slice(&session.pairs().to_le_bytes());
        let range = offset as usize..offset as usize + bytes.len();
        let found = configuration.get(range).ok_or_else(|| {
            BusError::Register(RegisterError::OutOfRange {
                offset: offset.into(),
                bytes: bytes.len() as u64,
                len: configuration.len() as u64,
            })
        })?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BusError> {
        let flags = VhostUserConfigFlags::WRITABLE;
        Ok(self.session().send("VHOST_USER_SET_CONFIG", |frontend| frontend.set_config(offset, flags, bytes))?)
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.space) as Arc<dyn DmaSpace>
    }
}

impl Drop for VhostUser {
    fn drop(&mut self) {
        // Nothing is left to be told to a back end that does not listen.
        let _ = self.stop();
    }
}
