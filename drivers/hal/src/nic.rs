//! A NIC and its queues.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::BusError;
use crate::frame::Burst;
use crate::mac::MacAddress;
use crate::offload::OffloadFlags;
use crate::pool::{Buffer, Pool, PoolMapping};
use crate::progress::Progress;
use crate::receive::{About, RxBurst};
use crate::registers::RegisterError;
use crate::space::{DmaError, DmaSpace};

/// A started NIC. Queues are borrowed from it, so it cannot be reset under a running queue; [`split`](Self::split) lends them to threads.
pub trait Nic: Send {
    /// The model, as users know it: `Intel 82540EM`.
    fn model(&self) -> &str;

    /// The station address.
    fn mac(&self) -> MacAddress;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// What the device offered, what the driver accepted of it, and why not the rest; empty where nothing is negotiated.
    fn features(&self) -> Vec<FeatureReport> {
        Vec::new()
    }

    /// The space that its queues read from: map files there.
    fn space(&self) -> Arc<dyn DmaSpace>;

    /// The state of the link.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn link(&mut self) -> Result<Link, NicError>;

    /// Whether the device asks this station to tell the network where it is, as after a migration; until [`announced`](Self::announced) is called.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn wants_announcement(&mut self) -> Result<bool, NicError> {
        Ok(false)
    }

    /// This station has told the network where it is.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn announced(&mut self) -> Result<(), NicError> {
        Ok(())
    }

    /// The device's counters since it was started.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn statistics(&mut self) -> Result<Statistics, NicError>;

    /// Which packets are received from now on, besides those to the station address.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_filter(&mut self, filter: &RxFilter) -> Result<(), NicError>;

    /// Lets the queues use a pool's buffers.
    ///
    /// # Errors
    /// [`NicError::ForeignSpace`] when the pool was attached to another space.
    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError>;

    /// Lets one pair of queues, the transmit and the receive queue `pair`, use a pool's buffers: with a pool for each pair, none looks for its own
    /// among those of the others. Where a driver does not tell them apart, all queues get it.
    ///
    /// # Errors
    /// [`NicError::ForeignSpace`] when the pool was attached to another space.
    ///
    /// # Panics
    /// When there is no such queue.
    fn attach_pool_of(&mut self, pair: usize, pool: PoolMapping) -> Result<(), NicError> {
        let (transmit, receive) = self.queues();
        assert!(pair < transmit.max(receive), "no queue {pair}");
        self.attach_pool(pool)
    }

    /// How many (transmit, receive) queues there are; at least one each.
    fn queues(&self) -> (usize, usize);

    /// Transmit queue `index`.
    ///
    /// # Panics
    /// When there is no such queue.
    fn tx(&mut self, index: usize) -> &mut dyn TxQueue;

    /// Receive queue `index`.
    ///
    /// # Panics
    /// When there is no such queue.
    fn rx(&mut self, index: usize) -> &mut dyn RxQueue;

    /// All transmit and receive queues, to be used on threads of their own.
    fn split(&mut self) -> (Vec<&mut dyn TxQueue>, Vec<&mut dyn RxQueue>);

    /// Sleeps until the device has completed or received something, at most `timeout`. Returns whether it has. What happens between the caller's
    /// last look at the queues and this call counts: no wake-up is lost.
    ///
    /// # Errors
    /// [`BusError::NoInterrupt`] when the device's interrupt cannot be had here; poll then.
    fn wait(&mut self, timeout: Duration) -> Result<bool, NicError>;

    /// As [`wait`](Self::wait) for who has no use for completions until something is received: where the device can tell them apart, they do not end
    /// the sleep.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    fn wait_received(&mut self, timeout: Duration) -> Result<bool, NicError> {
        self.wait(timeout)
    }

    /// Resets and starts the device again, with the same filters: after a hang, a link that dropped, a protocol error. Returns how many posted
    /// frames were lost. All buffers are back afterwards.
    ///
    /// # Errors
    /// When the device does not come back.
    fn reset(&mut self) -> Result<u64, NicError>;

    /// Stops the rings; the device makes no access to memory afterwards. Dropping a NIC does this too.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn stop(&mut self) -> Result<(), NicError>;
}

/// A transmit queue.
pub trait TxQueue: Send {
    /// Posts as many frames of the burst as there is room for, in order, with one doorbell; they leave the burst. Returns how many.
    ///
    /// # Errors
    /// [`NicError::UnmappedSegment`], [`NicError::FrameTooLong`], [`NicError::UnsupportedOffload`] for the first frame that is left in the burst: those before it were posted.
    /// [`NicError::Register`] when the doorbell could not be rung.
    fn post(&mut self, burst: &mut Burst<'_>) -> Result<usize, NicError>;

    /// Takes back the buffers of completed frames, without waiting. Returns how many frames completed.
    ///
    /// # Errors
    /// [`NicError::Protocol`] when the device wrote what it must not.
    fn reap(&mut self) -> Result<usize, NicError>;

    /// Whether the queue hangs: frames are posted, and none completed since at least [`HANG`] of time. `now` is the caller's monotonic clock.
    /// Called now and then while waiting, not for each burst.
    ///
    /// # Errors
    /// [`NicError::Hang`] then, or [`NicError::LinkDown`]; [`NicError::NeedsReset`] when the device says so; [`NicError::Vanished`] when it is no
    /// longer there, [`NicError::Withdrawn`] when the system wants it back. [`Nic::reset`] is the way on.
    fn check(&mut self, now: Duration) -> Result<(), NicError>;

    /// The counters of posted and completed frames.
    fn progress(&self) -> &Progress;

    /// What was done, since the queue was made.
    fn counters(&self) -> TxCounters;
}

/// A receive queue.
pub trait RxQueue: Send {
    /// How many buffers the queue holds at most.
    fn capacity(&self) -> usize;

    /// Gives the queue buffers until its ring is full or the pool is empty, with one doorbell. Returns how many.
    ///
    /// # Errors
    /// [`NicError::UnmappedSegment`] for a pool that is not attached; [`NicError::Register`].
    fn refill(&mut self, pool: &mut Pool) -> Result<usize, NicError>;

    /// Takes at most `limit` packets that have arrived, without waiting. Returns how many were added to `burst`.
    ///
    /// # Errors
    /// [`NicError::Protocol`] when the device wrote what it must not.
    fn receive(&mut self, burst: &mut RxBurst, limit: usize) -> Result<usize, NicError>;

    /// Shows at most `limit` packets that have arrived, in order, where they lie: `known` says which it has copied what it wants of, and their
    /// buffers go straight back to the device. Returns how many those were. The first that is not known ends it, as does one that lies in several
    /// buffers or has an error: [`receive`](Self::receive) takes these. A driver may have nothing of this kind.
    ///
    /// # Errors
    /// [`NicError::Register`].
    fn skim(&mut self, _limit: usize, _known: &mut dyn FnMut(&Buffer, &About) -> bool) -> Result<usize, NicError> {
        Ok(0)
    }

    /// What was done, since the queue was made.
    fn counters(&self) -> RxCounters;
}

/// How long a transmit queue may stand still with frames posted before it counts as hung (Linux' drivers wait 5 s).
pub const HANG: Duration = Duration::from_secs(5);

/// What a NIC can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What it does for transmitted frames.
    pub offloads: OffloadFlags,
    /// Segments of a frame that it gathers, header included; 1: no gathering.
    pub max_segments: u16,
    /// The largest frame in bytes, without segmentation and without the frame check sequence.
    pub max_frame: u32,
    /// The largest frame that it cuts into segments, in bytes; 0 without segmentation.
    pub max_segmentation: u32,
    /// Whether it strips VLAN tags of received packets.
    pub vlan_strip: bool,
    /// A frame to be cut carries the headers that it would have in one piece: the IP length, the IPv4 checksum, and a pseudo-header sum with
    /// the length of all of it (virtio). Without it the [flags](OffloadFlags::TCP4_SEGMENTATION) say what the headers are.
    pub whole_headers: bool,
}

/// One negotiated feature, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureReport {
    /// The specification's name: `VIRTIO_NET_F_CSUM`.
    pub name: &'static str,
    /// The bit's number.
    pub bit: u8,
    /// The device has it.
    pub offered: bool,
    /// The driver uses it.
    pub accepted: bool,
    /// What it is for; or why it is not used although it is offered.
    pub note: String,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Mbit/s, 0 when unknown.
    pub speed: u32,
    /// Both directions at once.
    pub full_duplex: bool,
}

/// A device's own counters, summed since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets put on the wire, segments counted singly.
    pub tx_packets: u64,
    /// Their bytes, frame check sequence included as the device counts it.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that found no buffer.
    pub rx_missed: u64,
    /// Packets with a CRC, length or alignment error.
    pub rx_errors: u64,
}

/// Which packets are received besides those to the station address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// Everything.
    pub promiscuous: bool,
    /// Every group address.
    pub all_multicast: bool,
    /// Not even broadcast, when true.
    pub no_broadcast: bool,
    /// Further station addresses, at most 15.
    pub unicast: Vec<MacAddress>,
    /// Group addresses. A device may let others through that share a hash value.
    pub multicast: Vec<MacAddress>,
    /// VLANs to receive, 0 to 4095; empty: no filtering by VLAN.
    pub vlans: Vec<u16>,
}

impl RxFilter {
    /// Checks that every entry can be what it is listed as.
    ///
    /// # Errors
    /// [`NicError::Config`] names the first that cannot.
    pub fn check(&self) -> Result<(), NicError> {
        if let Some(address) = self.unicast.iter().find(|address| !address.is_valid_unicast()) {
            return Err(NicError::Config(format!("{address} is not a station address")));
        }
        if let Some(address) = self.multicast.iter().find(|address| !address.is_multicast()) {
            return Err(NicError::Config(format!("{address} is not a group address")));
        }
        if let Some(vlan) = self.vlans.iter().find(|vlan| **vlan > 4095) {
            return Err(NicError::Config(format!("VLAN {vlan}; VLAN identifiers are 0 to 4095")));
        }
        Ok(())
    }
}

/// What a transmit queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxCounters {
    /// Frames posted.
    pub frames: u64,
    /// Descriptors written for them.
    pub descriptors: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

/// What a receive queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxCounters {
    /// Packets handed to the program.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets dropped: with an error, or longer than any frame can be.
    pub dropped: u64,
    /// Doorbells rung for buffers that the queue was given, or used again.
    pub doorbells: u64,
}

/// What can go wrong with a NIC.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NicError {
    /// A register access failed.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Memory could not be mapped for the device.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// The bus refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The device did not do something in time.
    #[error("{what} did not happen within {waited:?} ({register})")]
    Timeout {
        /// what was waited for
        what: &'static str,
        /// the register or queue that was watched
        register: &'static str,
        /// how long
        waited: Duration,
    },
    /// Reads give all ones: the device was unplugged, or lost its power or its bus.
    #[error("the device is gone: {register} reads all ones; unplugged, powered down, or taken by another driver")]
    Vanished {
        /// the register that was read
        register: &'static str,
    },
    /// The system wants the device back.
    #[error("the system takes the device away: it is being removed, or unbound from its driver, so it is given up")]
    Withdrawn,
    /// Not the device that the driver is for.
    #[error("{0}")]
    WrongDevice(String),
    /// A configuration value outside its range.
    #[error("{0}")]
    Config(String),
    /// A segment lies in memory that is not mapped for this queue.
    #[error(
        "a frame refers to memory that is not mapped for this queue; attach the pool to the NIC, and map the file in the NIC's own space"
    )]
    UnmappedSegment,
    /// A frame that the device cannot send.
    #[error("a frame of {bytes} bytes in {segments} segments; this device sends at most {max_bytes} bytes in {max_segments} segments")]
    FrameTooLong {
        /// the frame's bytes
        bytes: u32,
        /// the frame's segments
        segments: usize,
        /// the device's most bytes
        max_bytes: u32,
        /// the device's most segments
        max_segments: usize,
    },
    /// A request that the device cannot do, or header offsets that cannot be right.
    #[error("the frame asks for {0}, which this device does not do for such a frame")]
    UnsupportedOffload(String),
    /// A pool that is attached to the space of another device.
    #[error("the pool is attached to another device's address space; attach it to this NIC's space")]
    ForeignSpace,
    /// The device wrote something that it must not write; its queue is stopped.
    #[error("the device broke the protocol: {0}; reset it")]
    Protocol(String),
    /// Frames wait for a link.
    #[error(
        "the link is down: {outstanding} frames have waited for {stood:?}; plug the cable in, or switch the other end on, and send again"
    )]
    LinkDown {
        /// frames that wait
        outstanding: u64,
        /// for how long
        stood: Duration,
    },
    /// The device has an error from which only a reset recovers, and says so.
    #[error("the device asks for a reset (DEVICE_NEEDS_RESET); reset it, and send what was lost again")]
    NeedsReset,
    /// The transmit unit stands still.
    #[error(
        "the transmit queue hangs: {outstanding} frames posted and none completed for {stood:?} (the device is at {head}, the driver at {tail}); \
         reset it, or restart what is behind it"
    )]
    Hang {
        /// frames that did not complete
        outstanding: u64,
        /// for how long
        stood: Duration,
        /// the device's index
        head: u32,
        /// the driver's index
        tail: u32,
    },
}

impl NicError {
    /// Whether a wait for a device that was not there was given up, as somebody asked.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Bus(BusError::Stopped(_)))
    }
}
