//! A NIC with all that it takes to send files from it.

use std::time::Duration;

use hal::{Buffer, Burst, BusError, Capabilities, MacAddress, Nic, NicError, Offload, Pool, PoolConfig, RegisterError, RxBurst};

use hal::nic::RxFilter;
use hal::receive::{About, RxFlags};
use smoltcp::wire::ETHERNET_HEADER_LEN;

use super::error::SendError;
use super::options::Stability;
use crate::file::{RegularFile, WindowCache};
use crate::net::{Interface, announce, respond, vlan};

/// How a [`Port`] is set up.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The most bytes of files that stay mapped for the device. The default is no bound but the space's own.
    pub window_budget: u64,
    /// Frames that can be on their way at once; the rings bound them too. Default 512.
    pub frames: u32,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self { window_budget: u64::MAX, frames: 512 }
    }
}

/// A NIC, its packet buffers, its windows of files, and its address in a network.
pub struct Port {
    // In this order: the NIC stops, so that windows and buffers are no longer referred to, before they go.
    pub(crate) nic: Box<dyn Nic>,
    pub(crate) windows: WindowCache,
    pub(crate) pool: Pool,
    interface: Interface,
    /// Files have to be open for writing to be mapped.
    writable_files: bool,
    arrived: RxBurst,
    packet: Vec<u8>,
    reply: Vec<u8>,
    own: Burst<'static>,
    /// When the NIC was last reset, and what had gone through it by then: frames completed, and packets received.
    reset_at: Option<(Duration, (u64, u64))>,
}

/// What a look at the device has led to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// It was reset, and runs again.
    pub reset: bool,
    /// Frames that were lost by that.
    pub lost: u64,
    /// What is wrong with it now.
    pub trouble: Option<NicError>,
}

/// What a frame from windows needs: a header, two windows, and a last page in three buffers.
const GATHER: u16 = 6;
/// Ethernet, IP and TCP headers with all options, and a little more.
const SHORT: usize = 96;
/// Packets that are looked at in one step.
const RECEIVE_LIMIT: usize = 32;
/// Those of them that are only compared with what was expected.
const SKIM_LIMIT: usize = 128;
/// A device that has run so long since its last reset, though nobody needed it, may be reset once more.
const SETTLED: Duration = Duration::from_secs(60);

impl Port {
    /// Makes a NIC ready to send and to answer as `interface`.
    ///
    /// # Errors
    /// [`SendError`]: no memory, or the NIC.
    pub fn new(mut nic: Box<dyn Nic>, interface: Interface, config: PortConfig) -> Result<Self, SendError> {
        let capabilities = nic.capabilities();
        let frame = u32::from(interface.mtu()) + 18;
        if frame > capabilities.max_frame {
            return Err(SendError::Config(format!(
                "an MTU of {}, but this NIC was opened for frames of {} bytes",
                interface.mtu(),
                capabilities.max_frame
            )));
        }
        let interface = interface.offered(capabilities.offloads);
        if let Some(tag) = interface.written_tag() {
            tracing::info!("this NIC inserts no 802.1Q tags: that of VLAN {} is written into every frame's header", identifier(tag));
        }
        // A NIC that does not gather needs the whole frame in one buffer.
        let buffer_size = if capabilities.max_segments < GATHER { frame.next_power_of_two().max(2048) } else { 2048 };
        // A copied frame may take several buffers.
        let buffers = config.frames * (1 + frame / 2048) + nic.rx(0).capacity() as u32;
        let pool = Pool::new(PoolConfig { buffers, buffer_size: buffer_size as u16 }).map_err(SendError::Pool)?;
        let multicast: Vec<MacAddress> = interface.groups().collect();
        if !multicast.is_empty() {
            nic.set_filter(&RxFilter { multicast, ..RxFilter::default() })?;
        }
        let space = nic.space();
        let writable_files = space.limits().writable_descriptor;
        nic.attach_pool(pool.attach(&space)?)?;
        let windows = WindowCache::new(space, config.window_budget);
        let mut port = Self {
            writable_files,
            nic,
            windows,
            pool,
            interface,
            arrived: RxBurst::with_capacity(RECEIVE_LIMIT),
            packet: Vec::new(),
            reply: Vec::new(),
            own: Burst::with_capacity(RECEIVE_LIMIT),
            reset_at: None,
        };
        port.nic.rx(0).refill(&mut port.pool)?;
        Ok(port)
    }

    /// The NIC's address in its network.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The NIC, for its link, counters and filters.
    pub fn nic(&mut self) -> &mut dyn Nic {
        &mut *self.nic
    }

    /// The windows of files that are mapped.
    pub fn windows(&self) -> &WindowCache {
        &self.windows
    }

    /// How files can be kept from changing when they are sent from here: where the NIC's holder needs a descriptor that it could write with, no
    /// lease can be had, and [`Stability::Auto`] is trust.
    ///
    /// # Errors
    /// [`SendError::Config`] for [`Stability::Lease`] there.
    pub fn stability(&self, wanted: Stability) -> Result<Stability, SendError> {
        match wanted {
            Stability::Lease if self.writable_files => Err(SendError::Config(
                "no lease: this NIC's back end maps files for writing; send without files=on, or with --stability trust".into(),
            )),
            Stability::Auto if self.writable_files => Ok(Stability::Trust),
            other => Ok(other),
        }
    }

    /// Whether the NIC gathers enough segments for a frame with file bytes in it.
    pub(crate) fn gathers(&self) -> bool {
        self.nic.capabilities().max_segments >= GATHER
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.nic.capabilities()
    }

    /// Takes what has arrived: answers ARP, neighbour discovery and ping, and shows every packet to `look`. Returns how many there were.
    ///
    /// # Errors
    /// What the NIC says.
    pub fn service(&mut self, look: impl FnMut(&[u8])) -> Result<usize, NicError> {
        self.service_with(&mut Looking(look))
    }

    /// As [`service`](Self::service), and tells what the NIC found out about each packet. What `audience` says that it has taken is not looked at for a
    /// question to answer.
    pub(crate) fn service_with<A: Audience>(&mut self, audience: &mut A) -> Result<usize, NicError> {
        let own_vlan = self.interface.vlan().map_or(0, identifier);
        let rx = self.nic.rx(0);
        let mut expected = |buffer: &Buffer, about: &About| {
            let mut short = [0; SHORT];
            vlan_of(about.flags, about.vlan_tag) == own_vlan
                && read_short(buffer, &mut short).is_some_and(|bytes| audience.expects(bytes, about.flags))
        };
        let known = if A::EXPECTS { rx.skim(SKIM_LIMIT, &mut expected)? } else { 0 };
        let count = rx.receive(&mut self.arrived, RECEIVE_LIMIT)?;
        if count == 0 {
            // Packets that the queue dropped itself have used buffers, too.
            rx.refill(&mut self.pool)?;
            return Ok(known);
        }
        // The answers' frames are completed like all others, by the owner of the port.
        let mut own = std::mem::take(&mut self.own);
        let offload = self.interface.offload();
        for packet in self.arrived.packets() {
            let mut short = [0; SHORT];
            let in_one = if let [buffer] = packet.buffers { read_short(buffer, &mut short) } else { None };
            let is_tagged = |bytes: &[u8]| !packet.flags.contains(RxFlags::VLAN_STRIPPED) && vlan::is_tagged(bytes);
            let mut vlan = vlan_of(packet.flags, packet.vlan_tag);
            let bytes = match in_one.filter(|bytes| !is_tagged(bytes)) {
                Some(bytes) => bytes,
                None => {
                    self.packet.resize(packet.bytes as usize, 0);
                    packet.copy_to(&mut self.packet);
                    if is_tagged(&self.packet) {
                        vlan = vlan::take(&mut self.packet).map_or(0, identifier);
                    }
                    &self.packet[..]
                }
            };
            // Of other VLANs nothing is heard.
            if vlan != own_vlan {
                continue;
            }
            if audience.hears(bytes, packet.flags) {
                continue;
            }
            self.reply.clear();
            if respond(&self.interface, bytes, &mut self.reply).is_some() {
                write_tag(&mut self.reply, &self.interface);
                push_copied(&mut own, &mut self.pool, &self.reply, offload);
            }
        }
        self.arrived.clear();
        self.nic.rx(0).refill(&mut self.pool)?;
        if !own.is_empty() {
            // With a full ring an answer is dropped, as on any busy station; the other side asks again.
            self.nic.tx(0).post(&mut own)?;
            own.clear();
        }
        self.own = own;
        Ok(known + count)
    }

    /// Sends one frame that is complete, checksums included, but without a tag. Returns whether there was room for it.
    ///
    /// # Errors
    /// [`NicError::Config`] for bytes that are no frame; what the NIC says.
    pub fn transmit(&mut self, frame: &[u8]) -> Result<bool, NicError> {
        if frame.len() < ETHERNET_HEADER_LEN {
            return Err(NicError::Config(format!("a frame of {} bytes; its Ethernet header alone has {ETHERNET_HEADER_LEN}", frame.len())));
        }
        let offload = self.interface.offload();
        let mut own = std::mem::take(&mut self.own);
        self.reply.clear();
        self.reply.extend_from_slice(frame);
        write_tag(&mut self.reply, &self.interface);
        let posted = push_copied(&mut own, &mut self.pool, &self.reply, offload) && self.nic.tx(0).post(&mut own)? == 1;
        own.clear();
        self.own = own;
        Ok(posted)
    }

    /// After a migration the network does not know where this station is.
    fn announce_if_asked(&mut self) -> Result<(), NicError> {
        if self.nic.wants_announcement()? && self.announce()? {
            tracing::info!("the station was announced, as the device asked for");
            self.nic.announced()?;
        }
        Ok(())
    }

    /// Tells everybody on the link that this station is there: for one that waits to be spoken to. Returns whether there was room for it.
    ///
    /// # Errors
    /// What the NIC says.
    pub fn announce(&mut self) -> Result<bool, NicError> {
        let mut frame = Vec::new();
        announce(&self.interface, &mut frame);
        self.transmit(&frame)
    }

    /// Looks whether the device is alive, and gets on. One that asks for a reset, or whose other end has gone and may come back, is reset and set
    /// up again. Where the device asks for it, this station is announced.
    pub(crate) fn check(&mut self, now: Duration) -> Checked {
        let Err(trouble) = self.nic.tx(0).check(now).and_then(|()| self.announce_if_asked()) else { return Checked::default() };
        let done = (self.nic.tx(0).progress().completed(), self.nic.rx(0).counters().packets);
        let curable = match trouble {
            // One that asks again and again is not cured by it.
            NicError::NeedsReset => self.reset_at.is_none_or(|(at, before)| done != before || now.saturating_sub(at) >= SETTLED),
            // Whoever is not there does not come through a reset.
            NicError::Bus(BusError::Register(RegisterError::Unreachable(_))) => true,
            _ => false,
        };
        if !curable {
            return Checked { trouble: Some(trouble), ..Checked::default() };
        }
        tracing::warn!("{trouble}; it is reset now, and what was on its way is lost");
        let waiting = self.outstanding();
        let revived = self.nic.reset().and_then(|lost| self.nic.rx(0).refill(&mut self.pool).map(|_| lost));
        self.reset_at = Some((now, (self.nic.tx(0).progress().completed(), done.1)));
        match revived {
            Ok(lost) => Checked { reset: true, lost, trouble: None },
            Err(again) => {
                // That it is still not there says less than what came before. A reset gives up what was on its way even when the device does not
                // come back.
                let gone = matches!(again, NicError::Bus(BusError::Register(RegisterError::Unreachable(_))) | NicError::NeedsReset);
                Checked { reset: false, lost: waiting - self.outstanding(), trouble: Some(if gone { trouble } else { again }) }
            }
        }
    }

    /// Frames that are posted and not completed.
    pub fn outstanding(&mut self) -> u64 {
        let progress = self.nic.tx(0).progress();
        progress.posted() - progress.completed()
    }

    /// Unmaps all windows of a file, as far as frames do not refer to them. Returns how many are left.
    ///
    /// # Errors
    /// What the space says.
    pub fn forget(&mut self, file: &RegularFile) -> Result<usize, SendError> {
        self.windows.forget(file);
        Ok(self.windows.sweep()?)
    }
}

/// Who is shown what arrives.
pub(crate) trait Audience {
    /// Whether there may be something that it [expects](Self::expects).
    const EXPECTS: bool = false;

    /// Whether a packet of [`SHORT`] bytes at most is one that was expected, and is taken; else it is shown again by [`hears`](Self::hears).
    fn expects(&mut self, _packet: &[u8], _checked: RxFlags) -> bool {
        false
    }

    /// Whether a packet is taken.
    fn hears(&mut self, packet: &[u8], checked: RxFlags) -> bool;
}

/// An audience that takes nothing.
struct Looking<L>(L);

impl<L: FnMut(&[u8])> Audience for Looking<L> {
    fn hears(&mut self, packet: &[u8], _checked: RxFlags) -> bool {
        (self.0)(packet);
        false
    }
}

/// The bytes of a packet that has hardly more than headers, as most that comes to a sender: copied by a few moves of a known size.
#[inline]
fn read_short<'s>(buffer: &Buffer, short: &'s mut [u8; SHORT]) -> Option<&'s [u8]> {
    if buffer.len() > SHORT || buffer.capacity() < SHORT {
        return None;
    }
    buffer.read(0, short);
    Some(&short[..buffer.len()])
}

/// The VLAN identifier of a packet's tag, 0 without one: a tag with identifier 0 has a priority and nothing else (802.1Q).
#[inline]
fn vlan_of(flags: RxFlags, tag: u16) -> u16 {
    if flags.contains(RxFlags::VLAN_STRIPPED) { identifier(tag) } else { 0 }
}

/// The VLAN identifier of a tag.
fn identifier(tag: u16) -> u16 {
    tag & 0xfff
}

/// What the NIC does not do for a whole frame of its own station.
fn write_tag(frame: &mut Vec<u8>, interface: &Interface) {
    if let Some(tag) = interface.written_tag() {
        vlan::insert(frame, tag);
    }
}

/// Adds a frame whose bytes are all copied, over as many buffers as it takes. Whether there were buffers enough; if not, nothing is added.
pub(crate) fn push_copied(burst: &mut Burst<'_>, pool: &mut Pool, frame: &[u8], offload: Offload) -> bool {
    let Some(buffers) = buffers_of(pool, frame) else { return false };
    let mut buffers = buffers.into_iter().flatten();
    let Some(header) = buffers.next() else { return false };
    burst.push(header, offload);
    buffers.for_each(|buffer| burst.gather_buffer(buffer));
    true
}

/// The most buffers of a copied frame: 16,128 bytes over 2048 each.
pub(crate) const MOST_BUFFERS: usize = 8;

/// Copies bytes into as many buffers as it takes; `None` when there are not so many, or the bytes are more than any frame has.
pub(crate) fn buffers_of(pool: &mut Pool, bytes: &[u8]) -> Option<[Option<Buffer>; MOST_BUFFERS]> {
    let mut buffers = [const { None }; MOST_BUFFERS];
    let chunks = bytes.chunks(pool.buffer_size());
    if chunks.len() > MOST_BUFFERS {
        return None;
    }
    for (place, chunk) in buffers.iter_mut().zip(chunks) {
        let mut buffer = pool.take()?;
        buffer.set(chunk);
        *place = Some(buffer);
    }
    Some(buffers)
}
