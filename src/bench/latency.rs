//! Latency: one packet goes to the other end and comes back, then the next one.

use std::time::{Duration, Instant};

use hal::nic::TxCounters;
use hal::{Burst, NicError, Offload, Pool, RxBurst, RxQueue, TxQueue};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchError;
use super::figures::Share;
use super::load::HEADER;
use super::meter::Work;
use super::rx::Source;
use super::tx::{Shape, drain};

/// The times of round trips, in nanoseconds: within 0.1 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub mean_ns: f64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub p99_99_ns: u64,
    pub max_ns: u64,
    /// Round trips.
    pub samples: u64,
}

/// The headers, and the packet's number.
pub(super) const LEAST: usize = HEADER + size_of::<u64>();

/// When a packet that is not back counts as lost.
const LOST: Duration = Duration::from_secs(1);
/// How long the first one is waited for: the other end may still be on its way up, and QEMU's receivers are deaf for a second after their start.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is sent meanwhile.
const AGAIN: Duration = Duration::from_millis(100);
/// Looks in a row that find nothing until a few missing buffers are replaced: what comes soon does not wait for that.
const REST: u32 = 64;
/// Packets that are looked at together.
const LIMIT: usize = 32;

/// Sends a packet, waits until it is back, sends the next one.
pub(super) struct Pinger<'q, 'w> {
    source: Source<'q>,
    target: &'q mut dyn TxQueue,
    before: TxCounters,
    pool: &'q mut Pool,
    shape: Shape<'w>,
    burst: Burst<'w>,
    arrived: RxBurst,
    number: u64,
    /// Looks in a row that found nothing.
    idle: u32,
    /// When the last packet was back, which is when this one began.
    since: Instant,
    times: Histogram<u64>,
    lost: u64,
}

impl<'q, 'w> Pinger<'q, 'w> {
    pub fn new(source: &'q mut dyn RxQueue, target: &'q mut dyn TxQueue, pool: &'q mut Pool, shape: Shape<'w>) -> Self {
        Self {
            source: Source::new(source),
            before: target.counters(),
            target,
            pool,
            shape,
            burst: Burst::with_capacity(1),
            arrived: RxBurst::with_capacity(LIMIT),
            number: 0,
            idle: 0,
            since: Instant::now(),
            times: histogram(),
            lost: 0,
        }
    }

    pub fn share(&self) -> Share {
        let (received, counters) = (self.source.share(), self.target.counters());
        Share {
            frames: self.times.len(),
            bytes: self.times.len() * self.shape.bytes(),
            doorbells: received.doorbells + counters.doorbells - self.before.doorbells,
            descriptors: counters.descriptors - self.before.descriptors,
            drops: received.drops + self.lost,
        }
    }

    pub fn times(&self) -> &Histogram<u64> {
        &self.times
    }

    /// Sends the next packet, which lies ready. What need not come before it comes behind: completions, and the packet after it.
    fn send_next(&mut self) -> Result<(), NicError> {
        self.number += 1;
        if self.burst.is_empty() {
            self.prepare(self.number);
        }
        self.post()
    }

    /// Sends the packet of this number again.
    fn send_again(&mut self) -> Result<(), NicError> {
        self.burst.clear();
        self.prepare(self.number);
        self.post()
    }

    fn post(&mut self) -> Result<(), NicError> {
        self.target.post(&mut self.burst)?;
        // Where there is no room it is lost, and sent again.
        self.burst.clear();
        self.target.reap()?;
        Ok(())
    }

    /// Writes the packet of a number.
    fn prepare(&mut self, number: u64) {
        let Some(mut buffer) = self.pool.take() else { return };
        buffer.set(&self.shape.header);
        buffer.write(HEADER, &number.to_be_bytes());
        buffer.set_len(self.shape.first);
        self.burst.push(buffer, Offload::NONE);
        self.shape.rest.iter().for_each(|segment| self.burst.gather(*segment));
    }

    /// How many packets came, and whether one of them was the one that is under way.
    fn receive(&mut self) -> Result<(usize, bool), NicError> {
        let count = self.source.receive(&mut self.arrived, LIMIT)?;
        let expected = self.number.to_be_bytes();
        let back = count > 0
            && self.arrived.packets().any(|packet| {
                let mut number = [0; size_of::<u64>()];
                // The pool's buffers are longer than that, so it lies in the first one.
                packet.buffers.first().filter(|first| first.len() >= LEAST).is_some_and(|first| {
                    first.read(HEADER, &mut number);
                    number == expected
                })
            });
        Ok((count, back))
    }

    /// Gives back what was received.
    fn settle(&mut self, count: usize) -> Result<(), NicError> {
        self.arrived.clear();
        self.idle = if count == 0 { self.idle.saturating_add(1) } else { 0 };
        self.source.settle(self.pool, self.idle >= REST)
    }
}

/// From a nanosecond to a minute, in steps of 0.1 %.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the crate allows")
}

impl Latency {
    /// The mean is that of all the time: `seconds` over the round trips, so with one packet under way it is the inverse of the rate.
    pub(super) fn new(times: &Histogram<u64>, seconds: f64) -> Self {
        let samples = times.len();
        Self {
            mean_ns: if samples > 0 { seconds * 1e9 / samples as f64 } else { 0.0 },
            min_ns: times.min(),
            p50_ns: times.value_at_quantile(0.5),
            p90_ns: times.value_at_quantile(0.9),
            p99_ns: times.value_at_quantile(0.99),
            p99_9_ns: times.value_at_quantile(0.999),
            p99_99_ns: times.value_at_quantile(0.9999),
            max_ns: times.max(),
            samples,
        }
    }
}

impl Work for Pinger<'_, '_> {
    fn poll(&mut self) -> Result<bool, BenchError> {
        let (count, back) = self.receive()?;
        if back {
            // The next one is on its way before anything else is done.
            self.send_next()?;
            let now = Instant::now();
            self.times.saturating_record((now - self.since).as_nanos() as u64);
            self.since = now;
        }
        self.settle(count)?;
        if back {
            self.prepare(self.number + 1);
        }
        Ok(count > 0)
    }

    fn begin(&mut self, over: &dyn Fn() -> bool) -> Result<(), BenchError> {
        self.source.refill(self.pool)?;
        let start = Instant::now();
        let mut sent = start;
        self.send_next()?;
        loop {
            let (count, back) = self.receive()?;
            self.settle(count)?;
            let now = Instant::now();
            if back || over() {
                break;
            }
            if now - start > PATIENCE {
                return Err(BenchError::Silent(PATIENCE));
            }
            if now - sent > AGAIN {
                sent = now;
                self.target.check(now - start)?;
                self.send_again()?;
            }
        }
        // Copies of the first one that come later have another number.
        self.since = Instant::now();
        Ok(self.send_next()?)
    }

    fn check(&mut self, now: Duration) -> Result<(), BenchError> {
        if self.since.elapsed() > LOST {
            self.lost += 1;
            self.since = Instant::now();
            self.send_next()?;
        }
        Ok(self.target.check(now)?)
    }

    fn finish(&mut self, clock: &dyn Fn() -> Duration) -> Result<(), BenchError> {
        drain(self.target, clock)?;
        Ok(())
    }
}
