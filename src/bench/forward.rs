//! Forwarding: what one NIC receives is sent by another, or by itself, without a copy; testpmd's `io` and `macswap`.

use std::time::{Duration, Instant};

use hal::nic::{HANG, TxCounters};
use hal::{Buffer, Burst, NicError, Offload, Pool, RxBurst, RxQueue, TxQueue};

use super::BenchError;
use super::figures::Share;
use super::meter::Work;
use super::rx::Source;

/// What is done with packets on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether destination and source address change places in every packet; otherwise it goes on as it came.
    pub mac_swap: bool,
    /// Packets that each NIC sends at the start, to go around where the other end sends them back (testpmd's `start tx_first`).
    pub inject: usize,
}

/// From a receive queue to a transmit queue.
pub(super) struct Direction<'q> {
    source: Source<'q>,
    target: &'q mut dyn TxQueue,
    before: TxCounters,
    /// Received, and not posted yet. Nothing more is taken before it is empty, so that nothing is lost here.
    burst: Burst<'static>,
    /// Packets posted since completions were looked for.
    unreaped: usize,
    /// Turns in a row with nothing to do.
    idle: u32,
}

/// Packets for which completions are looked for together: a usual burst, and a small part of the smallest ring.
const REAP: usize = 32;
/// Turns with nothing to do until completions are looked for all the same.
const PATIENCE: u32 = 64;

impl<'q> Direction<'q> {
    pub fn new(source: &'q mut dyn RxQueue, target: &'q mut dyn TxQueue, limit: usize) -> Self {
        let before = target.counters();
        Self { source: Source::new(source), target, before, burst: Burst::with_capacity(limit), unreaped: 0, idle: 0 }
    }

    #[inline]
    fn poll(&mut self, pool: &mut Pool, arrived: &mut RxBurst, limit: usize, mac_swap: bool) -> Result<bool, NicError> {
        let mut received = 0;
        if self.burst.is_empty() {
            received = self.source.receive(arrived, limit)?;
            if mac_swap {
                arrived.forward_edited(&mut self.burst, swap_addresses);
            } else {
                arrived.forward(&mut self.burst);
            }
        }
        // What is waited for goes first. There nearly always is room, and if not, completions are looked for until there is.
        let mut posted = if self.burst.is_empty() { 0 } else { self.target.post(&mut self.burst)? };
        self.unreaped += posted;
        self.idle = if received == 0 && posted == 0 { (self.idle + 1) % PATIENCE } else { 1 };
        // One look for many packets, since it costs as much as for one; what is left is taken back when there is time.
        let reaped = if self.unreaped >= REAP || !self.burst.is_empty() || self.idle == 0 {
            self.unreaped = 0;
            self.target.reap()?
        } else {
            0
        };
        if !self.burst.is_empty() && reaped > 0 {
            let after = self.target.post(&mut self.burst)?;
            self.unreaped += after;
            posted += after;
        }
        self.source.settle(pool, received == 0)?;
        Ok(reaped + received + posted > 0)
    }

    /// Sends packets of `frame`.
    fn inject(&mut self, pool: &mut Pool, frame: &[u8], count: usize, over: &dyn Fn() -> bool) -> Result<(), BenchError> {
        let (start, mut left) = (Instant::now(), count);
        while (left > 0 || !self.burst.is_empty()) && !over() {
            self.target.reap()?;
            while left > 0
                && let Some(mut buffer) = pool.take()
            {
                buffer.set(frame);
                self.burst.push(buffer, Offload::NONE);
                left -= 1;
            }
            if self.target.post(&mut self.burst)? == 0 {
                self.target.check(start.elapsed())?;
            }
        }
        Ok(())
    }

    /// What was received is sent on, as far as the device still takes it.
    fn flush(&mut self, clock: &dyn Fn() -> Duration) -> Result<(), BenchError> {
        let start = clock();
        while !self.burst.is_empty() {
            self.target.reap()?;
            self.target.post(&mut self.burst)?;
            let now = clock();
            self.target.check(now)?;
            let waited = now.saturating_sub(start);
            if waited > 2 * HANG {
                return Err(NicError::Timeout { what: "room for the last packets", register: "transmit queue", waited }.into());
            }
        }
        Ok(())
    }
}

fn swap_addresses(buffer: &mut Buffer) {
    let mut addresses = [0; 12];
    if buffer.len() >= addresses.len() {
        buffer.read(0, &mut addresses);
        addresses.rotate_left(6);
        buffer.write(0, &addresses);
    }
}

/// Forwards in one direction, or in both between two NICs, with buffers of one pool.
pub(super) struct Forwarder<'q> {
    directions: Vec<Direction<'q>>,
    pool: &'q mut Pool,
    arrived: RxBurst,
    limit: usize,
    forwarding: Forwarding,
    /// What is injected.
    frame: Vec<u8>,
}

impl<'q> Forwarder<'q> {
    pub fn new(directions: Vec<Direction<'q>>, pool: &'q mut Pool, limit: usize, forwarding: Forwarding, frame: Vec<u8>) -> Self {
        let arrived = if forwarding.mac_swap { RxBurst::with_capacity(limit) } else { RxBurst::unread(limit) };
        Self { directions, pool, arrived, limit, forwarding, frame }
    }

    pub fn share(&self) -> Share {
        let mut sum = Share::default();
        for direction in &self.directions {
            let (received, counters) = (direction.source.share(), direction.target.counters());
            sum.frames += counters.frames - direction.before.frames;
            sum.bytes += received.bytes;
            sum.doorbells += received.doorbells + counters.doorbells - direction.before.doorbells;
            sum.descriptors += counters.descriptors - direction.before.descriptors;
            sum.drops += received.drops;
        }
        sum
    }
}

impl Work for Forwarder<'_> {
    fn poll(&mut self) -> Result<bool, BenchError> {
        let Self { directions, pool, arrived, limit, forwarding, .. } = self;
        let mut busy = false;
        for direction in directions {
            busy |= direction.poll(pool, arrived, *limit, forwarding.mac_swap)?;
        }
        Ok(busy)
    }

    fn begin(&mut self, over: &dyn Fn() -> bool) -> Result<(), BenchError> {
        for direction in &mut self.directions {
            direction.source.refill(self.pool)?;
        }
        for direction in &mut self.directions {
            direction.inject(self.pool, &self.frame, self.forwarding.inject, over)?;
            // The packets that were injected are not forwarded ones.
            direction.before = direction.target.counters();
        }
        Ok(())
    }

    fn check(&mut self, now: Duration) -> Result<(), BenchError> {
        Ok(self.directions.iter_mut().try_for_each(|direction| direction.target.check(now))?)
    }

    fn finish(&mut self, clock: &dyn Fn() -> Duration) -> Result<(), BenchError> {
        self.directions.iter_mut().try_for_each(|direction| direction.flush(clock))
    }
}
