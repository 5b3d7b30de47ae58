//! The transmit ring (manual 3.4).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hal::nic::{HANG, TxCounters};
use hal::pool::PoolMapping;
use hal::registers::Width;
use hal::{AddressMap, Buffer, Burst, DescriptorRing, DmaSpace, Doorbell, Frame, NicError, Progress, Registers, TxQueue, barrier};

use crate::context::{Contexts, SHORTEST};
use crate::descriptor::{self, MAX_DATA};
use crate::registers::{TXDCTL_AT_ONCE, offset};

/// The transmit queue of an 82540EM.
pub struct TxRing {
    ring: DescriptorRing,
    addresses: AddressMap,
    doorbell: Doorbell,
    registers: Registers,
    contexts: Contexts,
    max_frame: u32,
    /// The largest frame of which each segment surely fits a descriptor.
    max_usual: u32,
    /// The next descriptor to write, which is what the doorbell tells.
    tail: u16,
    /// Descriptors that can be written: one always stays free, since TDT == TDH means empty.
    free: u16,
    /// One entry a doorbell, oldest first.
    batches: VecDeque<Batch>,
    /// Empty vectors of completed batches, for the next ones.
    spare: Vec<Vec<Buffer>>,
    progress: Arc<Progress>,
    posted: u64,
    completed: u64,
    counters: TxCounters,
    watch: Watch,
}

/// What one doorbell announced. Its last descriptor reports for all of it.
struct Batch {
    reporter: u16,
    descriptors: u16,
    frames: u32,
    /// The buffers of its frames: they belong to the device.
    buffers: Vec<Buffer>,
}

/// When the queue last got ahead, for [`TxQueue::check`].
#[derive(Default)]
struct Watch {
    completed: u64,
    since: Option<Duration>,
}

impl TxRing {
    /// A ring of `len` descriptors for frames of at most `max_frame` bytes.
    pub fn new(space: &Arc<dyn DmaSpace>, registers: &Registers, len: u16, max_frame: u32) -> Result<Self, NicError> {
        Ok(Self {
            ring: DescriptorRing::new(space, "e1000-tx", len)?,
            addresses: AddressMap::new(&**space),
            doorbell: Doorbell::register(registers, offset::TDT, Width::Double)?,
            registers: registers.clone(),
            contexts: Contexts::default(),
            max_frame,
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
        lost
    }

    pub fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        if self.addresses.attach(pool) { Ok(()) } else { Err(NicError::ForeignSpace) }
    }

    /// Writes the descriptors of a frame of the usual kind: its context is there, and each segment fits a descriptor. Returns the last one, which is
    /// written too, and how many there are. `None` for any other frame, with nothing done.
    #[inline(always)]
    fn write_usual(&mut self, frame: &Frame<'_, '_>) -> Option<([u64; 2], u16)> {
        let template = self.contexts.usual(frame.offload, frame.bytes)?;
        let count = frame.segments.len();
        if frame.bytes > self.max_usual || count > usize::from(self.free) {
            return None;
        }
        let (last, others) = frame.segments.split_last()?;
        let mut index = self.tail;
        for segment in others {
            self.ring.write(index, [self.addresses.resolve(segment)?, template | u64::from(segment.len())]);
            index = self.ring.next(index);
        }
        let descriptor = descriptor::end_of_packet([self.addresses.resolve(last)?, template | u64::from(last.len())]);
        self.ring.write(index, descriptor);
        self.tail = self.ring.next(index);
        self.free -= count as u16;
        Some((descriptor, count as u16))
    }

    /// The same for any frame: a context first where one is needed, long segments cut, short frames padded. `None` when there is no room for it now.
    #[cold]
    fn write_any(&mut self, frame: &Frame<'_, '_>) -> Result<Option<([u64; 2], u16)>, NicError> {
        let limit = if frame.offload.mss != 0 { self.max_segmentation() } else { self.max_frame };
        // Room for the worst case first: a context, padding, and all segments cut at the descriptors' limit.
        let cuts: usize = frame.segments.iter().map(|segment| ((segment.len() - 1) / MAX_DATA) as usize).sum();
        let needed = frame.segments.len() + cuts + 2;
        if frame.bytes > limit || needed >= usize::from(self.ring.len()) {
            return Err(NicError::FrameTooLong {
                bytes: frame.bytes,
                segments: frame.segments.len(),
                max_bytes: limit,
                max_segments: self.max_segments().into(),
            });
        }
        if needed > usize::from(self.free) {
            return Ok(None);
        }
        let prepared = self.contexts.prepare(frame.offload, frame.bytes)?;
        let (start, mut count) = (self.tail, 0);
        if let Some(context) = prepared.context {
            self.push(context.descriptor(), &mut count);
        }
        // One descriptor waits, until it is known whether it is the packet's last.
        let mut waiting: Option<[u64; 2]> = None;
        for segment in frame.segments {
            let Some(mut address) = self.addresses.resolve(segment) else {
                self.tail = start;
                self.contexts.forget();
                return Err(NicError::UnmappedSegment);
            };
            let mut left = segment.len();
            while left > 0 {
                let len = left.min(MAX_DATA);
                let before = waiting.replace([address, prepared.template | u64::from(len)]);
                before.into_iter().for_each(|descriptor| self.push(descriptor, &mut count));
                address += u64::from(len);
                left -= len;
            }
        }
        if frame.bytes < SHORTEST {
            let before = waiting.replace([self.ring.zeros(), prepared.template | u64::from(SHORTEST - frame.bytes)]);
            before.into_iter().for_each(|descriptor| self.push(descriptor, &mut count));
        }
        let last = descriptor::end_of_packet(waiting.expect("a frame has a header"));
        self.push(last, &mut count);
        self.free -= count;
        Ok(Some((last, count)))
    }

    fn push(&mut self, descriptor: [u64; 2], count: &mut u16) {
        self.ring.write(self.tail, descriptor);
        self.tail = self.ring.next(self.tail);
        *count += 1;
    }

    /// Rings for the frames of a burst that were written: the last descriptor is to report for all of them.
    fn announce(&mut self, burst: &mut Burst<'_>, reporter: [u64; 2], frames: u32, descriptors: u16, bytes: u64) -> Result<(), NicError> {
        let index = self.ring.previous(self.tail);
        self.ring.write(index, descriptor::with_report(reporter));
        let mut buffers = self.spare.pop().unwrap_or_default();
        burst.hand_over(frames as usize, &mut buffers);
        self.batches.push_back(Batch { reporter: index, descriptors, frames, buffers });
        self.posted += u64::from(frames);
        self.progress.set_posted(self.posted);
        self.counters.frames += u64::from(frames);
        self.counters.descriptors += u64::from(descriptors);
        self.counters.bytes += bytes;
        self.counters.doorbells += 1;
        barrier::write();
        Ok(self.doorbell.ring(self.tail.into())?)
    }
}

impl TxQueue for TxRing {
    fn post(&mut self, burst: &mut Burst<'_>) -> Result<usize, NicError> {
        let (mut frames, mut descriptors, mut bytes) = (0, 0, 0);
        let mut reporter = [0; 2];
        let mut refused = None;
        for frame in burst.frames() {
            let written = match self.write_usual(&frame) {
                Some(written) => written,
                None => match self.write_any(&frame) {
                    Ok(Some(written)) => written,
                    Ok(None) => break,
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                },
            };
            reporter = written.0;
            descriptors += written.1;
            frames += 1;
            bytes += u64::from(frame.bytes);
        }
        if frames > 0 {
            self.announce(burst, reporter, frames, descriptors, bytes)?;
        }
        refused.map_or(Ok(frames as usize), Err)
    }

    fn reap(&mut self) -> Result<usize, NicError> {
        let mut frames = 0;
        while let Some(batch) = self.batches.front()
            && self.ring.read_byte(batch.reporter, descriptor::STATUS_BYTE) & descriptor::TX_DONE != 0
            && let Some(mut batch) = self.batches.pop_front()
        {
            barrier::read();
            self.free += batch.descriptors;
            frames += batch.frames as usize;
            Buffer::give_back(&mut batch.buffers);
            self.spare.push(batch.buffers);
        }
        if frames > 0 {
            self.completed += frames as u64;
            self.progress.set_completed(self.completed);
        }
        Ok(frames)
    }

    fn check(&mut self, now: Duration) -> Result<(), NicError> {
        if self.registers.read::<u32>(offset::STATUS)? == u32::MAX {
            return Err(NicError::Vanished { register: "STATUS" });
        }
        let since = match self.watch.since {
            Some(since) if self.watch.completed == self.completed && self.posted > self.completed => since,
            _ => {
                self.watch = Watch { completed: self.completed, since: Some(now) };
                return Ok(());
            }
        };
        let stood = now.saturating_sub(since);
        if stood < HANG {
            return Ok(());
        }
        let head = self.registers.read::<u32>(offset::TDH)?;
        Err(NicError::Hang { outstanding: self.posted - self.completed, stood, head, tail: self.tail.into() })
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn counters(&self) -> TxCounters {
        self.counters
    }
}

impl Drop for TxRing {
    fn drop(&mut self) {
        // The device has been stopped before (see `E1000`), so nothing reads what was posted.
        self.progress.settle();
    }
}
