//! The transmit queue (5.1.6.2).

mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hal::barrier::Order;
use hal::frame::{InFlight, Lengths};
use hal::nic::{HANG, TxCounters};
use hal::pool::PoolMapping;
use hal::{AddressMap, Burst, DmaSpace, Doorbell, NicError, Offload, OffloadFlags, Progress, TxQueue};

use crate::device::{Health, SharedDevice};
use crate::header::{self, WORDS, WORDS_WITH_HASH};
use crate::queue::{Queue, Transmit};
use crate::ring::{Cursor, Flight, InFlightRun, Indirect, Place, Ring, RingConfig, Violation};
use write::{Run, Usual};

/// The most pieces of a frame; back ends gather between 128 and 1024.
const MAX_PIECES: u16 = 128;
/// The largest frame to be cut: an IP packet of the largest size.
pub(crate) const MAX_SEGMENTATION: u32 = 65_535 + 14;

/// What was agreed on for a transmit queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxConfig {
    pub ring: RingConfig,
    pub in_order: bool,
    pub indirect: bool,
    /// Headers have room for a hash.
    pub hash: bool,
    pub offloads: OffloadFlags,
    /// Without a header, in bytes.
    pub max_frame: u32,
}

/// A transmit queue over one layout.
pub(crate) struct Tx<R: Ring> {
    ring: R,
    flight: Flight,
    indirect: Option<Indirect>,
    addresses: AddressMap,
    usual: Usual,
    config: TxConfig,
    header_len: u32,
    queue: Queue,
    /// One entry a burst, oldest first.
    batches: VecDeque<Batch>,
    /// The empty keepers of completed batches, for the next ones.
    #[allow(clippy::vec_box)] // they move between here and the batches, for every burst
    spare: Vec<Box<InFlight>>,
    /// Up to which position the ring's cache lines were claimed.
    claimed: u32,
    /// Completed frames of the oldest batch, which is not complete.
    done: u32,
    progress: Arc<Progress>,
    posted: u64,
    completed: u64,
    counters: TxCounters,
    sent: Sent,
    device: SharedDevice,
    watch: Watch,
}

/// Frames that were posted together.
struct Batch {
    frames: u32,
    sent: Sent,
    /// The buffers of its frames: they belong to the device.
    buffers: Box<InFlight>,
}

/// What goes out on the wire.
#[derive(Clone, Copy, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
}

/// When the queue last got ahead, for [`TxQueue::check`].
#[derive(Default)]
struct Watch {
    completed: u64,
    since: Option<Duration>,
    /// The doorbell was rung since.
    nudged: bool,
}

/// How long a queue stands still before its doorbell is rung whether the device asked for it or not. QEMU loses a wake-up now and then: after a
/// wire that was full (`virtio_net_tx_complete`) it names a descriptor that it then takes without being told, and no later one.
const NUDGE: Duration = Duration::from_millis(10);

/// How many places are claimed ahead: two bursts of the usual size.
const AHEAD: u32 = 64;
/// Descriptors in a cache line.
const A_LINE: u32 = 4;

impl<R: Ring> Tx<R> {
    /// The bytes that a queue has at its place: the ring, and tables behind it.
    pub fn bytes(config: &TxConfig) -> usize {
        let tables = if config.indirect { Indirect::bytes(config.ring.size) } else { 0 };
        Place::span(R::bytes(config.ring)) + tables
    }

    pub fn new(space: &Arc<dyn DmaSpace>, mut place: Place, index: u16, device: &SharedDevice, config: TxConfig) -> Self {
        let size = config.ring.size;
        let ring = place.take(R::bytes(config.ring));
        let indirect = config.indirect.then(|| Indirect::new(&place, size, R::LINKED));
        Self {
            ring: R::new(ring, config.ring),
            flight: Flight::new(size),
            indirect,
            addresses: AddressMap::new(&**space),
            usual: Usual { offload: Offload::NONE, header: [0; 3], lengths: Lengths { least: 1, most: config.max_frame } },
            header_len: if config.hash { header::HEADER_WITH_HASH } else { header::HEADER },
            config,
            queue: Queue::new(index),
            batches: VecDeque::with_capacity(size.into()),
            spare: Vec::with_capacity(size.into()),
            claimed: 0,
            done: 0,
            progress: space.queues().join(),
            posted: 0,
            completed: 0,
            counters: TxCounters::default(),
            sent: Sent::default(),
            device: device.clone(),
            watch: Watch::default(),
        }
    }

    /// Hands the frames of a burst that were written to the device.
    fn announce(&mut self, burst: &mut Burst<'_>, run: &Run<R::Cursor>, frames: u32) -> Result<(), NicError> {
        let mut buffers = self.spare.pop().unwrap_or_default();
        burst.hand_over(frames as usize, &mut buffers);
        self.batches.push_back(Batch { frames, sent: run.sent, buffers });
        self.posted += u64::from(frames);
        self.progress.set_posted(self.posted);
        self.counters.descriptors += u64::from(self.flight.free() - run.room);
        self.flight.post(run.cursor.position());
        if self.ring.publish(run.cursor) {
            self.counters.doorbells += 1;
            self.queue.ring()?;
        }
        Ok(())
    }

    /// Takes what the device says it is done with; returns how many frames are complete with all before them.
    #[inline(always)]
    fn take_used(&mut self) -> Result<u32, Violation> {
        if self.config.in_order {
            return self.ring.take_in_order(&mut self.flight);
        }
        let Self { ring, flight, .. } = self;
        // Nearly always they come as they were posted.
        let (mut frames, more) = match flight.in_flight() {
            InFlightRun::Singles(posted) => ring.take_run(posted, |_| 1)?,
            InFlightRun::Chains(posted) => ring.take_run(posted, |position| flight.descriptors(position))?,
            InFlightRun::Mixed => (0, true),
        };
        flight.take(frames)?;
        if more {
            frames += self.take_singly()?;
        }
        Ok(frames)
    }

    /// The same for buffers in any order, and of any length.
    #[inline(never)]
    fn take_singly(&mut self) -> Result<u32, Violation> {
        let mut frames = 0;
        while let Some(used) = self.ring.peek()? {
            let (descriptors, complete) = self.flight.complete(used.id)?;
            self.ring.advance(1, descriptors);
            frames += complete;
        }
        Ok(frames)
    }

    /// The buffers of the batches that are complete return to their pools.
    fn give_back(&mut self, frames: u32) {
        self.completed += u64::from(frames);
        self.done += frames;
        let shared = self.config.ring.order == Order::Processors;
        while let Some(batch) = self.batches.front_mut()
            && batch.frames <= self.done
        {
            self.done -= batch.frames;
            self.sent.packets += batch.sent.packets;
            self.sent.bytes += batch.sent.bytes;
            if shared {
                batch.buffers.give_back_claiming();
            } else {
                batch.buffers.give_back();
            }
            if let Some(batch) = self.batches.pop_front() {
                self.spare.push(batch.buffers);
            }
        }
        if shared {
            self.claim_ahead();
        }
        self.progress.set_completed(self.completed);
    }

    /// Gets the cache lines of the next free places, each once.
    fn claim_ahead(&mut self) {
        let tail = self.ring.cursor().position();
        let ahead = self.flight.free().min(AHEAD);
        // How many of them were claimed before. After a burst that was longer they are behind the tail.
        let claimed = self.claimed.wrapping_sub(tail);
        let claimed = if claimed > self.config.ring.size.into() { 0 } else { claimed };
        // Up to the end of a line: of one that is free in part the rest follows.
        let ahead = (tail.wrapping_add(ahead) & !(A_LINE - 1)).wrapping_sub(tail);
        if claimed < ahead && ahead <= AHEAD {
            self.ring.claim(tail.wrapping_add(claimed), ahead - claimed);
            self.claimed = tail.wrapping_add(ahead);
        }
    }
}

impl<R: Ring> TxQueue for Tx<R> {
    fn post(&mut self, burst: &mut Burst<'_>) -> Result<usize, NicError> {
        self.queue.check()?;
        let mut run = Run { cursor: self.ring.cursor(), room: self.flight.free(), sent: Sent::default() };
        let mut frames = burst.frames();
        let mut refused = None;
        while frames.len() > 0 {
            frames = if self.config.hash {
                self.write_usual::<WORDS_WITH_HASH>(frames, &mut run)
            } else {
                self.write_usual::<WORDS>(frames, &mut run)
            };
            let Some((frame, after)) = frames.split_first().filter(|_| run.room > 0) else { break };
            match self.write_any(&mut run, &frame) {
                Ok(true) => frames = after,
                Ok(false) => break,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let written = burst.len() - frames.len();
        if written > 0 {
            self.announce(burst, &run, written as u32)?;
        }
        refused.map_or(Ok(written), Err)
    }

    fn reap(&mut self) -> Result<usize, NicError> {
        self.queue.check()?;
        match self.take_used() {
            Ok(0) => Ok(0),
            Ok(frames) => {
                self.give_back(frames);
                Ok(frames as usize)
            }
            Err(violation) => Err(self.queue.stop(violation)),
        }
    }

    fn check(&mut self, now: Duration) -> Result<(), NicError> {
        self.queue.check()?;
        let Health { link_up } = self.device.health()?;
        let since = match self.watch.since {
            Some(since) if self.watch.completed == self.completed && self.posted > self.completed => since,
            _ => {
                // An idle queue does not stand still: its time begins when something is posted.
                let since = (self.posted > self.completed).then_some(now);
                self.watch = Watch { completed: self.completed, since, nudged: false };
                return Ok(());
            }
        };
        let stood = now.saturating_sub(since);
        if stood >= NUDGE && !self.watch.nudged {
            self.watch.nudged = true;
            self.counters.doorbells += 1;
            self.queue.ring()?;
        }
        if stood < HANG {
            return Ok(());
        }
        let outstanding = self.posted - self.completed;
        if !link_up {
            return Err(NicError::LinkDown { outstanding, stood });
        }
        let (head, tail) = (self.completed as u32, self.posted as u32);
        Err(NicError::Hang { outstanding, stood, head, tail })
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn counters(&self) -> TxCounters {
        TxCounters { frames: self.posted, ..self.counters }
    }
}

impl<R: Ring> Transmit for Tx<R> {
    fn layout(&self) -> hal::virtio::QueueLayout {
        self.ring.layout()
    }

    fn enabled(&mut self, doorbell: Doorbell) {
        self.queue.enabled(doorbell);
    }

    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.addresses.attach(pool)
    }

    fn settle(&mut self) -> u64 {
        let lost = self.posted - self.completed;
        self.completed = self.posted;
        self.progress.settle();
        self.batches.clear();
        (self.claimed, self.done) = (0, 0);
        self.flight.clear();
        self.ring.restart();
        self.queue.settled();
        self.watch = Watch::default();
        lost
    }

    fn max_segments(&self) -> u16 {
        self.config.ring.size.min(MAX_PIECES)
    }

    fn has_used(&self) -> bool {
        self.ring.has_used()
    }

    fn arm(&mut self) {
        self.ring.arm();
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }

    fn sent(&self) -> (u64, u64) {
        (self.sent.packets, self.sent.bytes)
    }
}

impl<R: Ring> Drop for Tx<R> {
    fn drop(&mut self) {
        // The device has been stopped before (see `VirtioNet`), so nothing reads what was posted.
        self.progress.settle();
    }
}
