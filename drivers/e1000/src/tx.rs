//! The transmit ring (manual 3.4).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hal::frame::{Frames, InFlight};
use hal::nic::{HANG, TxCounters};
use hal::pool::PoolMapping;
use hal::registers::Width;
use hal::ring::RingWriter;
use hal::{
    AddressMap, Burst, DescriptorRing, DmaSpace, Doorbell, Frame, NicError, Offload, OffloadFlags, Progress, Registers, TxQueue, barrier,
};

use crate::context::{Contexts, Prepared, SHORTEST, Usual};
use crate::descriptor::{self, Command, MAX_DATA};
use crate::registers::{Status, TXDCTL_AT_ONCE, offset};

/// The transmit queue of an 82540EM.
pub struct TxRing {
    ring: DescriptorRing,
    addresses: AddressMap,
    doorbell: Doorbell,
    registers: Registers,
    contexts: Contexts,
    max_frame: u32,
    /// The device was told to insert VLAN tags (CTRL.VME).
    inserts_tags: bool,
    /// The largest frame of which each segment surely fits a descriptor.
    max_usual: u32,
    /// The next descriptor to write, which is what the doorbell tells.
    tail: u16,
    /// Descriptors that can be written: one always stays free, since TDT == TDH means empty.
    free: u16,
    /// One entry a doorbell, oldest first.
    batches: VecDeque<Batch>,
    /// The empty keepers of completed batches, for the next ones.
    #[allow(clippy::vec_box)] // they move between here and the batches, for every burst
    spare: Vec<Box<InFlight>>,
    progress: Arc<Progress>,
    posted: u64,
    completed: u64,
    counters: TxCounters,
    watch: Watch,
    /// Set by the system when it wants the device back.
    withdrawal: Option<Arc<AtomicBool>>,
    /// The last frame was segmented by the device.
    after_segmentation: bool,
}

/// The part may report the last descriptor of a segmentation, or of the frame behind one, before it has read all of it: so the frame's last
/// bytes get a descriptor of their own, which is reported instead (Linux' e1000 driver, "premature write-back"). The usual frames have
/// no segmentation before them, so this costs them nothing.
const SENTINEL: u32 = 4;

/// What one doorbell announced. Its last descriptor reports for all of it.
struct Batch {
    reporter: u16,
    descriptors: u16,
    frames: u32,
    /// The buffers of its frames: they belong to the device.
    buffers: Box<InFlight>,
}

/// When the queue last got ahead, for [`TxQueue::check`].
#[derive(Default)]
struct Watch {
    completed: u64,
    since: Option<Duration>,
}

impl TxRing {
    /// A ring of `len` descriptors for frames of at most `max_frame` bytes.
    pub fn new(space: &Arc<dyn DmaSpace>, registers: &Registers, len: u16, max_frame: u32, inserts_tags: bool) -> Result<Self, NicError> {
        Ok(Self {
            ring: DescriptorRing::new(space, "e1000-tx", len)?,
            addresses: AddressMap::new(&**space),
            doorbell: Doorbell::register(registers, offset::TDT, Width::Double)?,
            registers: registers.clone(),
            contexts: Contexts::default(),
            max_frame,
            inserts_tags,
            max_usual: max_frame.min(MAX_DATA),
            tail: 0,
            free: len - 1,
            batches: VecDeque::with_capacity(len.into()),
            spare: Vec::with_capacity(len.into()),
            progress: space.queues().join(),
            posted: 0,
            completed: 0,
            counters: TxCounters::default(),
            watch: Watch::default(),
            withdrawal: None,
            after_segmentation: false,
        })
    }

    /// The most segments that a frame may have: the whole ring, without the free descriptor, a context and padding.
    pub fn max_segments(&self) -> u16 {
        self.ring.len() - 3
    }

    /// The largest frame to be segmented: 20 bits of payload, within the ring.
    pub fn max_segmentation(&self) -> u32 {
        // Each segment may need a descriptor that is not full; half of the ring leaves room for that.
        (u32::from(self.ring.len()) / 2 * MAX_DATA).min(0xf_ffff)
    }

    /// [`TxQueue::check`] looks at this flag of the bus.
    pub fn set_withdrawal(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.withdrawal = flag;
    }

    /// Tells the stopped device where the ring is. Everything that was posted is lost; returns how many frames.
    pub fn program(&mut self) -> Result<u64, NicError> {
        let lost = self.settle();
        let base = self.ring.iova();
        for (register, value) in [
            (offset::TDBAL, base as u32),
            (offset::TDBAH, (base >> 32) as u32),
            (offset::TDLEN, u32::from(self.ring.len()) * DescriptorRing::DESCRIPTOR as u32),
            (offset::TDH, 0),
            (offset::TDT, 0),
            (offset::TIDV, 0),
            (offset::TXDCTL, TXDCTL_AT_ONCE),
        ] {
            self.registers.write::<u32>(register, value)?;
        }
        Ok(lost)
    }

    /// The device is stopped: its buffers are the program's again. Returns how many frames had not completed.
    pub fn settle(&mut self) -> u64 {
        let lost = self.posted - self.completed;
        self.completed = self.posted;
        self.progress.settle();
        self.batches.clear();
        self.contexts.forget();
        (self.tail, self.free) = (0, self.ring.len() - 1);
        self.watch = Watch::default();
        self.after_segmentation = false;
        lost
    }

    /// Whether the device is done with the oldest burst that was not reaped yet.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        let done = |batch: &Batch| self.ring.read_byte(batch.reporter, descriptor::STATUS_BYTE) & descriptor::TX_DONE != 0;
        self.batches.front().is_some_and(done)
    }

    pub fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.addresses.attach(pool)
    }

    /// Writes frames of the usual kind from descriptor `tail` on, up to the first that is not: their context is there, each segment fits a
    /// descriptor. There is room for all of them. Everything that changes is local, so that it stays in registers; and frames of one segment, of
    /// two, and of more have a loop each, which need not carry what the others need.
    #[inline]
    fn write_usual<'b, 'w>(&self, frames: Frames<'b, 'w>, run: &mut Run) -> Frames<'b, 'w> {
        let Some(usual) = self.contexts.usual(self.max_usual) else { return frames };
        let pieces = frames.pieces();
        let frames = frames.in_runs(|segments, frames| {
            let before = frames.pieces();
            let frames = match segments {
                0 => self.write_singles(frames, run, usual),
                1 => self.write_pairs(frames, run, usual),
                _ => self.write_gathered(frames, run, usual),
            };
            // Each piece took one descriptor.
            let taken = before - frames.pieces();
            if taken > 0 {
                run.tail = self.ring.after(run.tail, taken);
            }
            frames
        });
        if frames.pieces() < pieces {
            run.command = usual.command();
        }
        frames
    }

    /// Frames that gather nothing. Not inlined, nor are the others: a loop has all registers to itself.
    #[inline(never)]
    fn write_singles<'b, 'w>(&self, frames: Frames<'b, 'w>, run: &Run, usual: Usual) -> Frames<'b, 'w> {
        let (addresses, mut ring) = (self.addresses.usual(), self.ring.writer(run.tail));
        let mut count = 0;
        for (header, offload) in frames.singles(frames.len()) {
            let Some(template) = usual.template(offload) else { break };
            let bytes = header.len() as u64;
            if !usual.fits(bytes) {
                break;
            }
            let Some(address) = addresses.buffer(header) else { break };
            ring.write([address, descriptor::end_of_packet(template | bytes)]);
            count += 1;
        }
        frames.behind(count, 0)
    }

    /// Frames that gather one segment.
    #[inline(never)]
    fn write_pairs<'b, 'w>(&self, frames: Frames<'b, 'w>, run: &Run, usual: Usual) -> Frames<'b, 'w> {
        let (addresses, mut ring) = (self.addresses.usual(), self.ring.writer(run.tail));
        let mut count = 0;
        for (header, segment, offload) in frames.pairs(frames.len()) {
            let Some(template) = usual.template(offload) else { break };
            let (Some(address), Some(rest)) = (addresses.buffer(header), addresses.segment(segment)) else { break };
            let (first, second) = (header.len() as u64, u64::from(segment.len()));
            if !usual.fits(first + second) {
                break;
            }
            ring.write([address, template | first]);
            ring.write([rest, descriptor::end_of_packet(template | second)]);
            count += 1;
        }
        frames.behind(count, 1)
    }

    /// Frames that gather several.
    #[inline(never)]
    fn write_gathered<'b, 'w>(&self, mut frames: Frames<'b, 'w>, run: &Run, usual: Usual) -> Frames<'b, 'w> {
        let (addresses, mut ring) = (self.addresses.usual(), self.ring.writer(run.tail));
        'frames: while let Some((frame, after)) = frames.split_first() {
            let (Some(template), Some(header)) = (usual.template(frame.offload), addresses.buffer(frame.header)) else { break };
            let mut bytes = frame.header.len() as u64;
            let mut descriptor = [header, template | bytes];
            for segment in frame.segments {
                // What is written of a frame that turns out to be unusual lies behind the tail, and is written over.
                let Some(address) = addresses.segment(segment) else { break 'frames };
                ring.write(descriptor);
                descriptor = [address, template | u64::from(segment.len())];
                bytes += u64::from(segment.len());
            }
            if !usual.fits(bytes) {
                break;
            }
            ring.write([descriptor[0], descriptor::end_of_packet(descriptor[1])]);
            frames = after;
        }
        frames
    }

    /// The same for any frame: a context first where one is needed, long segments cut, short frames padded. `false` when there is no room for it
    /// now.
    #[inline(never)]
    fn write_any(&mut self, run: &mut Run, frame: &Frame<'_, '_>) -> Result<bool, NicError> {
        let Offload { flags, payload_start, mss, .. } = *frame.offload;
        let bytes = frame.bytes();
        let segmented = flags.intersects(OffloadFlags::SEGMENTATION);
        if segmented && u32::from(payload_start) + u32::from(mss) > self.max_frame {
            return Err(NicError::UnsupportedOffload(format!("segments of {mss} bytes, which are longer than the MTU")));
        }
        if flags.contains(OffloadFlags::VLAN_TAG) && !self.inserts_tags {
            return Err(NicError::UnsupportedOffload("a VLAN tag (see E1000Config::vlan)".to_owned()));
        }
        let limit = if segmented { self.max_segmentation() } else { self.max_frame };
        // Room for the worst case first: a context, padding or a sentinel, and all pieces cut at the descriptors' limit.
        let needed = |most: u32| {
            let cuts = |len: u32| 1 + (len.saturating_sub(1) / most) as usize;
            frame.segments.iter().fold(2 + cuts(frame.header.len() as u32), |needed, segment| needed + cuts(segment.len()))
        };
        // The part reserves room in its FIFO for four segments a descriptor: Linux' driver lets no descriptor have more. A header is never cut,
        // and a ring that is too short for so many descriptors (a tiny MSS) gets longer ones.
        let few = (u32::from(mss) * 4).clamp(u32::from(payload_start).max(1), MAX_DATA);
        let (most, needed) = match if segmented && few < MAX_DATA { needed(few) } else { usize::MAX } {
            needed if needed < usize::from(self.ring.len()) => (few, needed),
            _ => (MAX_DATA, needed(MAX_DATA)),
        };
        if bytes > limit || needed >= usize::from(self.ring.len()) {
            return Err(NicError::FrameTooLong {
                bytes,
                segments: frame.segments.len() + 1,
                max_bytes: limit,
                max_segments: self.max_segments().into(),
            });
        }
        if needed > usize::from(self.room(run)) {
            return Ok(false);
        }
        // All addresses first: after that nothing can fail, and a context that is noted as written is written.
        let Some(header) = self.addresses.buffer(frame.header) else { return Err(NicError::UnmappedSegment) };
        if frame.segments.iter().any(|segment| self.addresses.segment(segment).is_none()) {
            return Err(NicError::UnmappedSegment);
        }
        let Prepared { template, context } = self.contexts.prepare(frame.offload, bytes)?;
        let mut cutter = Cutter { ring: self.ring.writer(run.tail), taken: 0, template, most };
        if let Some(context) = context {
            cutter.write(context.descriptor());
        }
        // Not what is to be segmented: the padding would become payload. The device pads its segments.
        let padding = if segmented { 0 } else { SHORTEST.saturating_sub(bytes) };
        // The padding has a descriptor of its own anyway, and a header must not be cut.
        let wanted = (segmented && bytes - u32::from(payload_start) > SENTINEL) || (self.after_segmentation && padding == 0);
        let (last, segments) = match frame.segments.split_last() {
            Some((last, others)) => {
                cutter.cut(header, frame.header.len() as u32);
                (Some(last), others)
            }
            None => (None, frame.segments),
        };
        for segment in segments {
            self.addresses.segment(segment).into_iter().for_each(|address| cutter.cut(address, segment.len()));
        }
        let (address, len) = match last {
            // It has one: that was looked at above.
            Some(last) => (self.addresses.segment(last).unwrap_or_default(), last.len()),
            None => (header, frame.header.len() as u32),
        };
        // What is left of it for its last descriptor.
        let rest = len.saturating_sub(1) % most + 1;
        let sentinel = if wanted && rest > 2 * SENTINEL { SENTINEL } else { 0 };
        cutter.cut(address, len - sentinel);
        cutter.cut(address + u64::from(len - sentinel), sentinel);
        cutter.cut(self.ring.zeros(), padding);
        let taken = cutter.taken;
        self.after_segmentation = segmented;
        run.tail = self.ring.after(run.tail, taken);
        run.command = descriptor::last_command(template);
        self.ring.write_byte(self.ring.previous(run.tail), descriptor::COMMAND_BYTE, run.command.bits());
        Ok(true)
    }

    /// Descriptors that the burst has taken so far.
    fn taken(&self, run: &Run) -> u16 {
        if run.tail >= self.tail { run.tail - self.tail } else { run.tail + self.ring.len() - self.tail }
    }

    /// Descriptors that it still can take.
    fn room(&self, run: &Run) -> u16 {
        self.free - self.taken(run)
    }

    /// Rings for the frames of a burst that were written: the last descriptor is to report for all of them.
    fn announce(&mut self, burst: &mut Burst<'_>, run: &Run, frames: u32) -> Result<(), NicError> {
        let descriptors = self.taken(run);
        self.tail = run.tail;
        self.free -= descriptors;
        let reporter = self.ring.previous(run.tail);
        self.ring.write_byte(reporter, descriptor::COMMAND_BYTE, (run.command | Command::RS).bits());
        let mut buffers = self.spare.pop().unwrap_or_default();
        burst.hand_over(frames as usize, &mut buffers);
        self.batches.push_back(Batch { reporter, descriptors, frames, buffers });
        self.posted += u64::from(frames);
        self.progress.set_posted(self.posted);
        self.counters.descriptors += u64::from(descriptors);
        self.counters.doorbells += 1;
        barrier::write();
        Ok(self.doorbell.ring(self.tail.into())?)
    }
}

/// Writes a frame's descriptors, each of at most so many bytes.
struct Cutter<'r> {
    ring: RingWriter<'r>,
    taken: usize,
    template: u64,
    most: u32,
}

impl Cutter<'_> {
    #[inline(always)]
    fn write(&mut self, descriptor: [u64; 2]) {
        self.ring.write(descriptor);
        self.taken += 1;
    }

    /// Writes the descriptors of `len` bytes from `address` on; none for none.
    #[inline(always)]
    fn cut(&mut self, mut address: u64, len: u32) {
        let mut left = len;
        while left > self.most {
            self.write([address, self.template | u64::from(self.most)]);
            address += u64::from(self.most);
            left -= self.most;
        }
        if left > 0 {
            self.write([address, self.template | u64::from(left)]);
        }
    }
}

/// What changes while a burst is written.
struct Run {
    tail: u16,
    /// The command of the last descriptor.
    command: Command,
}

impl TxQueue for TxRing {
    fn post(&mut self, burst: &mut Burst<'_>) -> Result<usize, NicError> {
        let mut run = Run { tail: self.tail, command: Command::empty() };
        let mut frames = burst.frames();
        let mut refused = None;
        while frames.len() > 0 {
            if frames.pieces() <= usize::from(self.room(&run)) {
                frames = self.write_usual(frames, &mut run);
            }
            let Some((frame, after)) = frames.split_first() else { break };
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
        let mut frames = 0;
        while self.is_done()
            && let Some(mut batch) = self.batches.pop_front()
        {
            barrier::read();
            self.free += batch.descriptors;
            frames += batch.frames as usize;
            batch.buffers.give_back();
            self.spare.push(batch.buffers);
        }
        if frames > 0 {
            self.completed += frames as u64;
            self.progress.set_completed(self.completed);
        }
        Ok(frames)
    }

    fn check(&mut self, now: Duration) -> Result<(), NicError> {
        if self.withdrawal.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(NicError::Withdrawn);
        }
        let status = self.registers.read::<u32>(offset::STATUS)?;
        if status == u32::MAX {
            return Err(NicError::Vanished { register: "STATUS" });
        }
        let since = match self.watch.since {
            Some(since) if self.watch.completed == self.completed && self.posted > self.completed => since,
            _ => {
                // An idle queue does not stand still: its time begins when something is posted.
                self.watch = Watch { completed: self.completed, since: (self.posted > self.completed).then_some(now) };
                return Ok(());
            }
        };
        let stood = now.saturating_sub(since);
        if stood < HANG {
            return Ok(());
        }
        if !Status::from_bits_retain(status).contains(Status::LU) {
            return Err(NicError::LinkDown { outstanding: self.posted - self.completed, stood });
        }
        let head = self.registers.read::<u32>(offset::TDH)?;
        Err(NicError::Hang { outstanding: self.posted - self.completed, stood, head, tail: self.tail.into() })
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn counters(&self) -> TxCounters {
        TxCounters { frames: self.posted, ..self.counters }
    }
}

impl Drop for TxRing {
    fn drop(&mut self) {
        // The device has been stopped before (see `E1000`), so nothing reads what was posted.
        self.progress.settle();
    }
}
