//! Transmission: for every packet what DPDK's testpmd does in `txonly`.

use std::time::Duration;

use hal::nic::{HANG, TxCounters};
use hal::{Buffer, Burst, NicError, Offload, Pool, Segment, TxQueue};

use super::BenchError;
use super::figures::Share;
use super::idle::Idle;
use super::load::{HEADER, header};
use super::meter::Work;

/// What every packet is made of.
#[derive(Clone, Debug)]
pub struct Shape<'w> {
    /// The bytes of the first segment, in a pool buffer that begins with the headers.
    pub(super) first: usize,
    /// What is gathered behind it.
    pub(super) rest: Vec<Segment<'w>>,
    pub(super) header: [u8; HEADER],
    /// The headers are in the buffers already.
    pub(super) prebuilt: bool,
}

impl<'w> Shape<'w> {
    /// A first segment of `first` bytes, at least 42 for the headers, and what is gathered behind it.
    pub fn new(first: usize, rest: Vec<Segment<'w>>) -> Self {
        let mut shape = Self { first, rest, header: [0; HEADER], prebuilt: false };
        shape.header = header(shape.bytes());
        shape
    }

    /// The bytes of a packet.
    pub(super) fn bytes(&self) -> u64 {
        self.first as u64 + self.rest.iter().map(|segment| u64::from(segment.len())).sum::<u64>()
    }
}

/// Sends packets of one shape over one queue. Each [`poll`](Work::poll) reaps what is complete, builds a burst (a buffer taken from the pool and
/// 42 header bytes written for every packet), and posts it.
pub struct Transmitter<'q, 'w> {
    queue: &'q mut dyn TxQueue,
    pool: &'q mut Pool,
    shape: Shape<'w>,
    burst: Burst<'w>,
    limit: usize,
    idle: Idle<'q>,
    completed: u64,
    before: TxCounters,
}

impl<'q, 'w> Transmitter<'q, 'w> {
    /// In bursts of `limit` packets, 1 to 256.
    pub fn new(queue: &'q mut dyn TxQueue, pool: &'q mut Pool, shape: Shape<'w>, limit: usize) -> Self {
        let before = queue.counters();
        Self { queue, pool, shape, burst: Burst::with_capacity(limit), limit, idle: Idle::default(), completed: 0, before }
    }

    /// The same thread serves other queues, too.
    pub(super) fn beside(self, idle: Idle<'q>) -> Self {
        Self { idle, ..self }
    }

    /// Fills the burst. A copy for each way of gathering, so that a packet of one segment pays nothing for those of several.
    #[inline(always)]
    fn fill(&mut self, gather: impl Fn(&mut Burst<'w>)) {
        let Self { pool, shape: Shape { first, prebuilt, header, .. }, burst, limit, .. } = self;
        let (first, prebuilt, header) = (*first, *prebuilt, *header);
        for _ in burst.len()..*limit {
            let Some(mut buffer) = pool.take() else { break };
            if !prebuilt {
                buffer.set(&header);
            }
            buffer.set_len(first);
            burst.push(buffer, Offload::NONE);
            gather(burst);
        }
    }

    pub(super) fn share(&self) -> Share {
        let counters = self.queue.counters();
        Share {
            frames: self.completed,
            bytes: self.completed * self.shape.bytes(),
            doorbells: counters.doorbells - self.before.doorbells,
            descriptors: counters.descriptors - self.before.descriptors,
            drops: 0,
        }
    }
}

impl Work for Transmitter<'_, '_> {
    fn poll(&mut self) -> Result<bool, BenchError> {
        let reaped = self.queue.reap()?;
        self.completed += reaped as u64;
        match *self.shape.rest.as_slice() {
            [] => self.fill(|_| ()),
            [segment] => self.fill(|burst| burst.gather(segment)),
            _ => {
                let rest = std::mem::take(&mut self.shape.rest);
                self.fill(|burst| rest.iter().for_each(|segment| burst.gather(*segment)));
                self.shape.rest = rest;
            }
        }
        let posted = self.queue.post(&mut self.burst)?;
        self.idle.turn(self.pool)?;
        Ok(reaped + posted > 0)
    }

    fn begin(&mut self, _over: &dyn Fn() -> bool) -> Result<(), BenchError> {
        self.idle.begin(self.pool)?;
        if self.shape.prebuilt {
            // All of them at once, so that each is written. They stay as long as nobody writes to a buffer that is then sent (`Pool::take`).
            let buffers: Vec<Buffer> = std::iter::from_fn(|| self.pool.take()).collect();
            buffers.into_iter().for_each(|mut buffer| buffer.set(&self.shape.header));
        }
        Ok(())
    }

    fn check(&mut self, now: Duration) -> Result<(), BenchError> {
        Ok(self.queue.check(now)?)
    }

    fn finish(&mut self, clock: &dyn Fn() -> Duration) -> Result<(), BenchError> {
        self.burst.clear();
        self.completed += drain(self.queue, clock)?;
        Ok(())
    }
}

/// Waits until all that was posted is complete. Returns how many packets that were.
pub(super) fn drain(queue: &mut dyn TxQueue, clock: &dyn Fn() -> Duration) -> Result<u64, NicError> {
    let (start, mut completed) = (clock(), 0);
    while queue.progress().completed() < queue.progress().posted() {
        completed += queue.reap()? as u64;
        let now = clock();
        queue.check(now)?;
        let waited = now.saturating_sub(start);
        if waited > 2 * HANG {
            return Err(NicError::Timeout { what: "the completion of the last frames", register: "transmit queue", waited });
        }
    }
    Ok(completed)
}
