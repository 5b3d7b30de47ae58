//! The transmit ring (manual 3.4).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hal::nic::{HANG, TxCounters};
use hal::pool::PoolMapping;
use hal::registers::Width;
use hal::{AddressMap, Buffer, Burst, DescriptorRing, DmaSpace, Doorbell, Frame, NicError, Progress, Registers, TxQueue, barrier};

use crate::context::Contexts;
use crate::descriptor::{self, MAX_DATA};
use crate::registers::{TXDCTL_AT_ONCE, offset};

/// The shortest frame on Ethernet, without its check sequence. The device pads with TCTL.PSP, but only what has 48 bytes (3.3.3), so the
/// driver pads itself, with zeros, which change no checksum.
const SHORTEST: u32 = 60;

/// The transmit queue of an 82540EM.
pub struct TxRing {
    ring: DescriptorRing,
    addresses: AddressMap,
    doorbell: Doorbell,
    registers: Registers,
    contexts: Contexts,
    max_frame: u32,
    /// The next descriptor to write, which is what the doorbell tells.
    tail: u16,
    /// Descriptors that can be written: one always stays free, since TDT == TDH means empty.
    free: u16,
    /// One entry a doorbell, oldest first.
    batches: VecDeque<Batch>,
    /// The buffers of posted frames, oldest first: they belong to the device.
    in_flight: VecDeque<Buffer>,
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
    buffers: u32,
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
            tail: 0,
            free: len - 1,
            batches: VecDeque::with_capacity(len.into()),
            in_flight: VecDeque::with_capacity(len.into()),
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
        self.in_flight.clear();
        self.contexts.forget();
        (self.tail, self.free) = (0, self.ring.len() - 1);
        self.watch = Watch::default();
        lost
    }

    pub fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        if self.addresses.attach(pool) { Ok(()) } else { Err(NicError::ForeignSpace) }
    }

    /// Writes one frame's descriptors. `None` when there is no room for it now. The last descriptor is returned, so that it can be made the reporter.
    #[inline]
    fn write_frame(&mut self, frame: &Frame<'_, '_>) -> Result<Option<Written>, NicError> {
        let segmented = frame.offload.mss != 0;
        let limit = if segmented { self.max_segmentation() } else { self.max_frame };
        // Room for the worst case first: a context, padding, and all segments cut at the descriptors' limit.
        let mut needed = frame.segments.len() + 2;
        if frame.bytes > MAX_DATA {
            needed += frame.segments.iter().map(|segment| ((segment.len() - 1) / MAX_DATA) as usize).sum::<usize>();
        }
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
        let start = self.tail;
        if let Some(context) = prepared.context {
            self.push(context.descriptor());
        }
        // One descriptor waits, until it is known whether it is the packet's last.
        let mut waiting = None;
        for segment in frame.segments {
            let Some(mut address) = self.addresses.resolve(segment) else {
                self.tail = start;
                self.contexts.forget();
                return Err(NicError::UnmappedSegment);
            };
            let mut left = segment.len();
            while left > 0 {
                let len = left.min(MAX_DATA);
                if let Some(descriptor) = waiting.replace(prepared.data(address, len)) {
                    self.push(descriptor);
                }
                address += u64::from(len);
                left -= len;
            }
        }
        if frame.bytes < SHORTEST
            && let Some(descriptor) = waiting.replace(prepared.data(self.ring.zeros(), SHORTEST - frame.bytes))
        {
            self.push(descriptor);
        }
        let last = descriptor::end_of_packet(waiting.expect("a frame has a header"));
        let index = self.tail;
        self.push(last);
        let descriptors = if self.tail > start { self.tail - start } else { self.tail + self.ring.len() - start };
        self.free -= descriptors;
        Ok(Some(Written { index, last, descriptors }))
    }

    #[inline(always)]
    fn push(&mut self, descriptor: [u64; 2]) {
        self.ring.write(self.tail, descriptor);
        self.tail = self.ring.next(self.tail);
    }
}

/// What `write_frame` wrote.
struct Written {
    index: u16,
    last: [u64; 2],
    descriptors: u16,
}

impl TxQueue for TxRing {
    fn post(&mut self, burst: &mut Burst<'_>) -> Result<usize, NicError> {
        let mut batch = Batch { reporter: 0, descriptors: 0, frames: 0, buffers: 0 };
        let mut reporter = [0; 2];
        let mut bytes = 0;
        let mut refused = None;
        for frame in burst.frames() {
            match self.write_frame(&frame) {
                Ok(Some(written)) => {
                    (batch.reporter, reporter) = (written.index, written.last);
                    batch.descriptors += written.descriptors;
                    batch.frames += 1;
                    batch.buffers += u32::from(frame.buffers);
                    bytes += u64::from(frame.bytes);
                }
                Ok(None) => break,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let frames = batch.frames as usize;
        if frames > 0 {
            self.ring.write(batch.reporter, descriptor::with_report(reporter));
            burst.hand_over(frames, &mut self.in_flight);
            self.posted += frames as u64;
            self.progress.set_posted(self.posted);
            self.counters.frames += frames as u64;
            self.counters.descriptors += u64::from(batch.descriptors);
            self.counters.bytes += bytes;
            self.counters.doorbells += 1;
            self.batches.push_back(batch);
            barrier::write();
            self.doorbell.ring(self.tail.into())?;
        }
        refused.map_or(Ok(frames), Err)
    }

    fn reap(&mut self) -> Result<usize, NicError> {
        let mut frames = 0;
        while let Some(batch) = self.batches.front() {
            if self.ring.read_byte(batch.reporter, descriptor::STATUS_BYTE) & descriptor::TX_DONE == 0 {
                break;
            }
            barrier::read();
            self.free += batch.descriptors;
            frames += batch.frames as usize;
            self.in_flight.drain(..batch.buffers as usize);
            self.batches.pop_front();
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
