//! Reception: what arrives is counted, and its buffers go back to the queue.

use std::time::Duration;

use hal::nic::RxCounters;
use hal::{NicError, Pool, RxBurst, RxQueue, TxQueue};

use super::BenchError;
use super::figures::Share;
use super::meter::Work;

/// A receive queue that is given buffers in place of those that came back full.
pub(super) struct Source<'q> {
    queue: &'q mut dyn RxQueue,
    /// Packets received since the queue was given buffers.
    owed: usize,
    /// Packets that the queue had dropped when that was last looked at.
    dropped: u64,
    before: RxCounters,
}

/// Packets that a queue is given buffers for at once: one doorbell for many, and a small part of the smallest ring.
const REFILL: usize = 32;

impl<'q> Source<'q> {
    pub fn new(queue: &'q mut dyn RxQueue) -> Self {
        let before = queue.counters();
        Self { queue, owed: 0, dropped: before.dropped, before }
    }

    /// Takes at most `limit` packets. Returns how many.
    #[inline]
    pub fn receive(&mut self, arrived: &mut RxBurst, limit: usize) -> Result<usize, NicError> {
        let count = self.queue.receive(arrived, limit)?;
        self.owed += count;
        Ok(count)
    }

    /// After what was received has been dealt with: gives the queue buffers when many are missing, or when there is time since nothing came.
    #[inline]
    pub fn settle(&mut self, pool: &mut Pool, idle: bool) -> Result<(), NicError> {
        if idle {
            // What the queue dropped took buffers too.
            let dropped = self.queue.counters().dropped;
            self.owed += (dropped - self.dropped) as usize;
            self.dropped = dropped;
        }
        if self.owed >= REFILL || (idle && self.owed > 0) { self.refill(pool) } else { Ok(()) }
    }

    /// Gives it all the buffers that it has room for.
    pub fn refill(&mut self, pool: &mut Pool) -> Result<(), NicError> {
        // What the pool had no buffers for stays owed.
        self.owed = self.owed.saturating_sub(self.queue.refill(pool)?);
        Ok(())
    }

    pub fn share(&self) -> Share {
        let counters = self.queue.counters();
        Share {
            frames: counters.packets - self.before.packets,
            bytes: counters.bytes - self.before.bytes,
            doorbells: counters.doorbells - self.before.doorbells,
            descriptors: 0,
            drops: counters.dropped - self.before.dropped,
        }
    }
}

/// Receives on one queue, and drops what came.
pub(super) struct Receiver<'q> {
    source: Source<'q>,
    /// The other queue of the pair, over which nothing goes: it knows how the device is.
    beside: &'q mut dyn TxQueue,
    pool: &'q mut Pool,
    arrived: RxBurst,
    limit: usize,
}

impl<'q> Receiver<'q> {
    pub fn new(queue: &'q mut dyn RxQueue, beside: &'q mut dyn TxQueue, pool: &'q mut Pool, limit: usize) -> Self {
        Self { source: Source::new(queue), beside, pool, arrived: RxBurst::unread(limit), limit }
    }

    pub fn share(&self) -> Share {
        self.source.share()
    }
}

impl Work for Receiver<'_> {
    fn poll(&mut self) -> Result<bool, BenchError> {
        let count = self.source.receive(&mut self.arrived, self.limit)?;
        self.arrived.clear();
        self.source.settle(self.pool, count == 0)?;
        Ok(count > 0)
    }

    fn begin(&mut self, _over: &dyn Fn() -> bool) -> Result<(), BenchError> {
        Ok(self.source.refill(self.pool)?)
    }

    fn check(&mut self, now: Duration) -> Result<(), BenchError> {
        Ok(self.beside.check(now)?)
    }

    fn finish(&mut self, _clock: &dyn Fn() -> Duration) -> Result<(), BenchError> {
        Ok(())
    }
}
