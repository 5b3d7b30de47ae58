//! The transmit queue (5.1.6.2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hal::barrier::Order;
use hal::frame::{Frames, InFlight};
use hal::memory::PAGE;
use hal::nic::{HANG, TxCounters};
use hal::pool::PoolMapping;
use hal::{AddressMap, Burst, DmaMemory, DmaSpace, Doorbell, Frame, NicError, Offload, OffloadFlags, Progress, TxQueue};

use crate::device::{Health, SharedDevice};
use crate::header::{self, Header, WORDS, WORDS_WITH_HASH};
use crate::queue::{Queue, Transmit};
use crate::ring::{Cursor, Flight, InFlightRun, Indirect, Kind, Piece, Ring, RingConfig, Violation};

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
    /// Up to which position the ring's cache lines were asked for.
    fetched: u32,
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

/// The last request that cuts nothing, and what came of it, since neighbouring frames mostly ask for the same.
#[derive(Clone, Copy)]
struct Usual {
    offload: Offload,
    header: Header,
    /// The shortest and the longest frame that it fits.
    least: u32,
    most: u32,
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

/// How many places are asked for ahead: two bursts of the usual size.
const AHEAD: u32 = 64;

/// What changes while a burst is written.
#[derive(Clone, Copy)]
struct Run<C> {
    cursor: C,
    /// Descriptors that are still free.
    room: u32,
    sent: Sent,
}

impl<R: Ring> Tx<R> {
    pub fn new(space: &Arc<dyn DmaSpace>, index: u16, device: &SharedDevice, config: TxConfig) -> Result<Self, NicError> {
        let size = config.ring.size;
        // Behind the ring in the same memory: a back end may take no more than eight regions (vhost-user).
        let tables = R::bytes(config.ring).next_multiple_of(PAGE);
        let bytes = if config.indirect { tables + Indirect::bytes(size) } else { tables };
        let memory = Arc::new(DmaMemory::new(space, "virtio-tx", bytes)?);
        let indirect = config.indirect.then(|| Indirect::new(&memory, tables, size, R::LINKED));
        Ok(Self {
            ring: R::new(&memory, config.ring),
            flight: Flight::new(size),
            indirect,
            addresses: AddressMap::new(&**space),
            usual: Usual { offload: Offload::NONE, header: [0; 3], least: 1, most: config.max_frame },
            header_len: if config.hash { header::HEADER_WITH_HASH } else { header::HEADER },
            config,
            queue: Queue::new(index),
            batches: VecDeque::with_capacity(size.into()),
            spare: Vec::with_capacity(size.into()),
            fetched: 0,
            done: 0,
            progress: space.queues().join(),
            posted: 0,
            completed: 0,
            counters: TxCounters::default(),
            sent: Sent::default(),
            device: device.clone(),
            watch: Watch::default(),
        })
    }

    /// Writes frames of the usual kind, up to the first that is not, or for which there is no room. Everything that changes is local, so that it
    /// stays in registers; and frames of one piece, of two, and of more have a loop each, which need not carry what the others need.
    #[inline]
    fn write_usual<'b, 'w, const N: usize>(&mut self, mut frames: Frames<'b, 'w>, run: &mut Run<R::Cursor>) -> Frames<'b, 'w> {
        let header = header::extend::<N>(self.usual.header);
        while let Some(segments) = frames.next_segments() {
            let before = frames.len();
            frames = match segments {
                0 => self.write_single(frames, run, header),
                1 => self.write_pairs(frames, run, header),
                _ => self.write_gathered(frames, run, header),
            };
            if frames.len() == before {
                break;
            }
        }
        frames
    }

    /// Frames that gather nothing. Not inlined, nor are the others: a loop has all registers to itself.
    #[inline(never)]
    fn write_single<'b, 'w, const N: usize>(&self, frames: Frames<'b, 'w>, run: &mut Run<R::Cursor>, header: [u32; N]) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let Run { mut cursor, mut sent, .. } = *run;
        let (mut count, mut sum) = (0, 0);
        for (buffer, offload) in frames.singles(run.room.min(self.ring.until_end(&cursor)) as usize) {
            let bytes = buffer.len() as u64;
            if *offload != usual.offload || !usual.fits(bytes) {
                break;
            }
            let Some(address) = addresses.prefix(buffer, header) else { break };
            self.ring.write(&mut cursor, Piece { address, len: bytes as u32 + header::len(header), kind: Kind::Read });
            count += 1;
            sum += bytes;
        }
        self.ring.turn(&mut cursor);
        sent.packets += count as u64;
        sent.bytes += sum;
        *run = Run { cursor, room: run.room - count as u32, sent };
        frames.behind(count, 0)
    }

    /// Frames that gather one segment. Two descriptors in the ring are half a cache line for the device to fetch; a table would be a whole one.
    #[inline(never)]
    fn write_pairs<'b, 'w, const N: usize>(
        &mut self,
        frames: Frames<'b, 'w>,
        run: &mut Run<R::Cursor>,
        header: [u32; N],
    ) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let (ring, mut lengths) = (&self.ring, self.flight.chains());
        let Run { mut cursor, mut sent, .. } = *run;
        let (mut count, mut sum) = (0, 0);
        for (buffer, segment, offload) in frames.pairs(run.room as usize / 2) {
            let (first, second) = (buffer.len() as u64, segment.len());
            let bytes = first + u64::from(second);
            if *offload != usual.offload || !usual.fits(bytes) {
                break;
            }
            let (Some(rest), Some(address)) = (addresses.segment(segment), addresses.prefix(buffer, header)) else { break };
            let head = Piece { address, len: first as u32 + header::len(header), kind: Kind::Read };
            lengths.add(cursor.position(), 2);
            ring.put_pair(&mut cursor, [head, Piece { address: rest, len: second, kind: Kind::Read }]);
            count += 1;
            sum += bytes;
        }
        sent.packets += count as u64;
        sent.bytes += sum;
        *run = Run { cursor, room: run.room - 2 * count as u32, sent };
        frames.behind(count, 1)
    }

    /// Frames that gather several, by a table.
    #[inline(never)]
    fn write_gathered<'b, 'w, const N: usize>(
        &self,
        mut frames: Frames<'b, 'w>,
        run: &mut Run<R::Cursor>,
        header: [u32; N],
    ) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let Some(indirect) = &self.indirect else { return frames };
        // A chain has no more descriptors than the ring, wherever they are (2.7.5.3.1).
        let most = Indirect::ENTRIES.min(self.config.ring.size.into());
        let Run { mut cursor, mut room, mut sent } = *run;
        'frames: while room > 0
            && let Some((frame, after)) = frames.split_first()
            && frame.segments.len() < most
            && *frame.offload == usual.offload
        {
            let Some(address) = addresses.prefix(frame.header, header) else { break };
            let mut bytes = frame.header.len() as u64;
            // The table is of a free place: what is written of a frame that turns out to be unusual is written over.
            let mut table = indirect.start(cursor.position(), frame.segments.len() + 1);
            table.put(Piece { address, len: bytes as u32 + header::len(header), kind: Kind::Read });
            for segment in frame.segments {
                let Some(address) = addresses.segment(segment) else { break 'frames };
                table.put(Piece { address, len: segment.len(), kind: Kind::Read });
                bytes += u64::from(segment.len());
            }
            if !usual.fits(bytes) {
                break;
            }
            self.ring.put(&mut cursor, table.piece());
            room -= 1;
            sent.bytes += bytes;
            sent.packets += 1;
            frames = after;
        }
        *run = Run { cursor, room, sent };
        frames
    }

    /// The same for any frame. `false` when there is no room for it now.
    #[inline(never)]
    fn write_any(&mut self, run: &mut Run<R::Cursor>, frame: &Frame<'_, '_>) -> Result<bool, NicError> {
        let Offload { flags, payload_start, mss, .. } = *frame.offload;
        let (bytes, pieces) = (frame.bytes(), frame.segments.len() + 1);
        let cutting = flags.intersects(OffloadFlags::CUTTING);
        if cutting && u32::from(payload_start) + u32::from(mss) > self.config.max_frame {
            return Err(NicError::UnsupportedOffload(format!("segments of {mss} bytes, which are longer than the MTU")));
        }
        let limit = if cutting { MAX_SEGMENTATION } else { self.config.max_frame };
        if bytes > limit || pieces > usize::from(self.max_segments()) {
            return Err(NicError::FrameTooLong { bytes, segments: pieces, max_bytes: limit, max_segments: self.max_segments().into() });
        }
        let prepared = header::prepare(frame.offload, self.config.offloads)?;
        if bytes < prepared.least {
            return Err(NicError::UnsupportedOffload(format!("work on headers that a frame of {bytes} bytes does not have")));
        }
        let table = self.indirect.as_ref().filter(|_| pieces > 1 && pieces <= Indirect::ENTRIES);
        let descriptors = if table.is_some() { 1 } else { pieces };
        if descriptors > run.room as usize {
            return Ok(false);
        }
        // All addresses first: after that nothing can fail.
        if frame.segments.iter().any(|segment| self.addresses.segment(segment).is_none()) {
            return Err(NicError::UnmappedSegment);
        }
        let address = if self.config.hash {
            self.addresses.prefix(frame.header, header::extend::<WORDS_WITH_HASH>(prepared.header))
        } else {
            self.addresses.prefix(frame.header, prepared.header)
        };
        let Some(address) = address else { return Err(NicError::UnmappedSegment) };
        let head = Piece { address, len: frame.header.len() as u32 + self.header_len, kind: Kind::Read };
        let rest = frame
            .segments
            .iter()
            .filter_map(|segment| self.addresses.segment(segment).map(|address| Piece { address, len: segment.len(), kind: Kind::Read }));
        let position = run.cursor.position();
        match table {
            Some(table) => {
                let mut table = table.start(position, pieces);
                std::iter::once(head).chain(rest).for_each(|piece| table.put(piece));
                self.ring.put(&mut run.cursor, table.piece());
            }
            None if pieces == 1 => self.ring.put(&mut run.cursor, head),
            None => {
                self.ring.put_chain(&mut run.cursor, pieces, std::iter::once(head).chain(rest));
                self.flight.chains().add(position, pieces as u16);
            }
        }
        run.room -= descriptors as u32;
        run.sent.bytes += u64::from(bytes);
        if cutting {
            let (payload, headers) = (u64::from(bytes) - u64::from(payload_start), u64::from(payload_start));
            let segments = payload.div_ceil(mss.into());
            run.sent.packets += segments;
            run.sent.bytes += (segments - 1) * headers;
        } else {
            run.sent.packets += 1;
            self.usual = Usual { offload: *frame.offload, header: prepared.header, least: prepared.least, most: limit };
        }
        Ok(true)
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
                batch.buffers.give_back_fetching();
            } else {
                batch.buffers.give_back();
            }
            if let Some(batch) = self.batches.pop_front() {
                self.spare.push(batch.buffers);
            }
        }
        if shared {
            self.fetch_ahead();
        }
        self.progress.set_completed(self.completed);
    }

    /// Asks for the cache lines of the next free places, each once.
    fn fetch_ahead(&mut self) {
        let tail = self.ring.cursor().position();
        let ahead = self.flight.free().min(AHEAD);
        // How many of them were asked for before. After a burst that was longer they are behind the tail.
        let asked = self.fetched.wrapping_sub(tail);
        let asked = if asked > self.config.ring.size.into() { 0 } else { asked };
        if asked < ahead {
            self.ring.fetch(tail.wrapping_add(asked), ahead - asked);
            self.fetched = tail.wrapping_add(ahead);
        }
    }
}

impl Usual {
    #[inline(always)]
    fn fits(&self, bytes: u64) -> bool {
        // One comparison, where a range takes two.
        bytes.wrapping_sub(u64::from(self.least)) <= u64::from(self.most - self.least)
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
        (self.fetched, self.done) = (0, 0);
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
